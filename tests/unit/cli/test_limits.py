"""Limits as options: what is given replaces, what is not stays, what is wrong is explained."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from uuid import UUID

import pytest

from gstd.cli.limits import changed, limits_of, words_of
from gstd.cli.main import main
from gstd.kernel.errors import InvalidInputError
from gstd.protocol.matching import NO_LIMITS, DeviceLimits
from gstd.protocol.types import Asset

MODULE = "ab" * 32
POOL = UUID(int=7)


def test_options_become_limits() -> None:
    given = limits_of(
        min_reward="0.01",
        max_seconds=2.5,
        asset=[Asset.TEST],
        allow=[MODULE],
        deny=[MODULE],
        pool=[POOL],
        only_pools=True,
    )
    assert changed(NO_LIMITS, given) == DeviceLimits(
        max_wall_ms=2_500,
        min_reward_nano={Asset.GSTD: "10000000", Asset.TEST: "10000000"},
        assets=[Asset.TEST],
        allowed_modules=[MODULE],
        denied_modules=[MODULE],
        pools=[POOL],
        public=False,
    )


def test_what_is_not_given_stays() -> None:
    before = DeviceLimits(max_wall_ms=1_000, pools=[POOL])
    assert changed(before, limits_of()) == before
    after = changed(before, limits_of(max_seconds=2))
    assert after == DeviceLimits(max_wall_ms=2_000, pools=[POOL])


def test_a_wrong_limit_is_named() -> None:
    with pytest.raises(InvalidInputError, match="denied_modules"):
        changed(NO_LIMITS, limits_of(deny=["zz"]))


def test_limits_in_words() -> None:
    assert words_of(NO_LIMITS) == ""
    limits = DeviceLimits(
        memory_bytes=64 << 20,
        max_wall_ms=2_500,
        min_reward_nano={Asset.TEST: "10000000"},
        assets=[Asset.TEST],
        denied_modules=[MODULE],
        pools=[],
        public=False,
    )
    assert words_of(limits) == (
        "at most 64 MiB, at most 2.5 s, at least 0.01 TEST, paid in TEST, not 1 module, "
        "0 pools served, no public tasks"
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["worker", "start", "--deny-module", "zz"], "invalid_input"),
        (["worker", "start", "--min-reward", "much"], "invalid_input"),
        (["worker", "limit", str(POOL), "--min-reward", "much"], "invalid_input"),
        (["why", str(POOL)], "no_credentials"),
        (["pool", "list"], "no_credentials"),
        (["pool", "create", "friends"], "no_credentials"),
        (["pool", "join", str(POOL), "--secret", "s"], "no_credentials"),
        (["pool", "leave", str(POOL)], "no_credentials"),
    ],
)
def test_commands_explain_what_is_wrong(
    words: list[str],
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GSTD_STATE", str(tmp_path))
    as_json = [] if words[1] == "start" else ["--json"]
    monkeypatch.setattr(sys, "argv", ["gstd", *words, *as_json])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)["error"]["code"] if as_json else printed.err.split(":")[0]
    assert found == code
