"""What a person mistypes gets a sentence and a hint, never a traceback."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from uuid import UUID

import pytest

from gstd.cli.graphs import read_graph
from gstd.cli.job import read_edge
from gstd.cli.main import main
from gstd.kernel.errors import InvalidInputError
from gstd.protocol.graphs import JobAfter, Shape

JOB = str(UUID(int=7))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nothing.wasm", "--reward", "1", "--count", "1"], "invalid_input"),
        (["0" * 64, "--reward", "a lot", "--count", "1"], "invalid_input"),
        (["0" * 64, "--reward", "1e3", "--count", "1"], "invalid_input"),
        (["0" * 64, "--reward", "1", "--inputs", "BAD"], "invalid_input"),
        (["0" * 64, "--reward", "1", "--count", "1", "--after", "me"], "invalid_input"),
        (
            ["0" * 64, "--reward", "1", "--count", "1", "--after", f"{JOB}:any"],
            "invalid_input",
        ),
        (["0" * 64, "--reward", "1", "--count", "1"], "no_credentials"),
    ],
)
def test_a_job_that_cannot_be_read_is_explained(
    words: list[str],
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bad.jsonl").write_text('{"args": ["1"]}\n{"argz": 1}\n')
    words = [str(tmp_path / "bad.jsonl") if word == "BAD" else word for word in words]
    monkeypatch.setenv("GSTD_STATE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["gstd", "job", "submit", *words, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == code
    assert error["hint"]


@pytest.mark.parametrize("option", [["--tier", "some"], ["--asset", "EUR"], ["--quorum", "9"]])
def test_a_choice_that_does_not_exist_is_a_usage_error(
    option: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["job", "submit", "0" * 64, "--reward", "1", "--count", "1", *option]
    monkeypatch.setattr(sys, "argv", ["gstd", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert option[0] in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", '{"jobs": 5}', '{"jobs": [{"module": "gone.wasm"}]}'])
def test_a_graph_that_cannot_be_read_is_explained(text: str, tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(text)
    with pytest.raises(InvalidInputError) as refused:
        read_graph(tmp_path / "graph.json")
    assert "jobs" in refused.value.advice


def test_edges_are_read_as_they_are_typed() -> None:
    job = JOB
    assert read_edge(job) == JobAfter(job=job)
    assert read_edge(f"{job}:all") == JobAfter(job=job)
    assert read_edge(f"{job}:one-to-one") == JobAfter(job=job, shape=Shape.ONE_TO_ONE)
