"""The demo as a new user runs it, undisturbed and with every process killed under it."""

from __future__ import annotations

import json
import re
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.e2e.processes import descendants, gstd, kill, stopping, wait_for

VICTIMS = {
    "api": r"gstd\.cli\.main api",
    "scheduler": r"gstd\.cli\.main scheduler",
    "referee": r"gstd\.cli\.main referee",
    "an honest worker": r"gstd\.cli\.main worker start --name honest-1",
    "a sandbox": r"gstd\.sandbox\.zygote",
    "valkey": r"valkey-server",
    "postgresql": r"bin/postgres ",
    "the wrapper of postgresql": r"leash\.py.*postgres",
}


def finish(demo: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = demo.communicate(timeout=110)
    assert demo.returncode == 0, errors
    report: dict[str, Any] = json.loads(output)
    return report


def assert_paid_and_sound(report: dict[str, Any]) -> None:
    assert report["tasks"] >= 64
    assert report["accepted"] == report["tasks"]
    assert report["escrow_left_nano"] == "0"
    assert report["ledger_sum_nano"] == "0"
    assert report["ledger_ok"] is True
    assert report["paid_nano"]["cheat"] == "0"
    assert sum(map(int, report["paid_nano"].values())) == report["tasks"] * 10_000_000
    with Image.open(report["picture"]) as picture:
        assert picture.size == (512, 512)


def test_the_demo_ends_with_everything_paid_and_the_cheat_unpaid(tmp_path: Path) -> None:
    picture = str(tmp_path / "picture.png")
    with stopping(gstd("demo", "--exit", "--json", "--picture", picture, state=tmp_path)) as demo:
        report = finish(demo)
    assert_paid_and_sound(report)
    assert report["rejected_results"] >= 1
    assert not leftovers(tmp_path)


@pytest.mark.timeout(180)
def test_the_demo_survives_a_kill_of_each_process_it_started(tmp_path: Path) -> None:
    picture = str(tmp_path / "picture.png")
    with stopping(gstd("demo", "--exit", "--json", "--picture", picture, state=tmp_path)) as demo:
        wait_for(lambda: find(demo.pid, VICTIMS["an honest worker"]), "a working demo")
        for name, pattern in VICTIMS.items():
            pid = wait_for(partial(find, demo.pid, pattern), name)
            kill(pid)
            wait_for(partial(find, demo.pid, pattern, other_than=pid), f"the return of {name}")
        report = finish(demo)
    assert_paid_and_sound(report)
    assert not leftovers(tmp_path)


def find(root: int, pattern: str, other_than: int = 0) -> int | None:
    """A process of the demo by its command line."""
    return next(
        (
            pid
            for pid, command in descendants(root).items()
            if pid != other_than and re.search(pattern, command)
        ),
        None,
    )


def leftovers(state: Path) -> list[str]:
    """Processes that still belong to a state folder."""
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in listing.stdout.splitlines() if str(state) in line]
