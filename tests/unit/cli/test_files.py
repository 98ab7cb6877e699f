"""Files of commands: replaced whole or not touched, and named when something is wrong."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import IO

import pytest

from gstd.cli.files import UnreadableFileError, UnwritableFileError, read, replacing
from gstd.cli.main import main


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def broken_off(file: IO[bytes]) -> None:
    file.write(b"half")
    raise ValueError


def test_a_file_appears_with_its_last_byte(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with replacing(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
        file.write(b", whole")
    assert path.read_bytes() == b"half, whole"
    assert names(tmp_path) == ["new"]


def test_what_fails_in_the_middle_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"old")
    with pytest.raises(ValueError), replacing(path) as file:  # noqa: PT011 - its own
        broken_off(file)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["kept"]


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"old")
    with pytest.raises(UnwritableFileError, match="No space left"), replacing(path):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == ["kept"]


def test_a_private_file_stays_private_and_a_link_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "private", tmp_path / "link"
    path.write_bytes(b"old")
    path.chmod(0o600)
    link.symlink_to(path)
    with replacing(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with replacing(pipe) as file:
        file.write(b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert pipe.is_fifo()


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for bad in (tmp_path, tmp_path / "no" / "where", tmp_path / "file" / "inside"):
        with pytest.raises(UnwritableFileError, match=str(bad)), replacing(bad):
            raise AssertionError("nothing should happen then")
    for bad in (tmp_path, tmp_path / "nowhere", tmp_path / "file" / "inside"):
        with pytest.raises(UnreadableFileError, match=str(bad)):
            read(bad)


@pytest.mark.parametrize("path", [".", "no/where"])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("wallet verify", "file_unreadable"),
        ("admin audit verify --since", "file_unreadable"),
        ("wallet export --csv", "file_unwritable"),
        ("admin ledger export", "file_unwritable"),
    ],
)
def test_a_path_that_cannot_be_used_is_explained_before_anybody_is_asked(
    words: str,
    code: str,
    path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GSTD_STATE", str(tmp_path))
    monkeypatch.setenv("GSTD_API_KEY", "key")
    monkeypatch.setenv("GSTD_URL", "http://127.0.0.1:1")  # nobody is there
    monkeypatch.setattr(sys, "argv", ["gstd", *words.split(), str(tmp_path / path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{code}: {tmp_path / path}")
    assert len(said.splitlines()) == 2  # what is wrong, and what to do
    assert names(tmp_path) == []


def test_a_path_that_looks_like_colours_is_told_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gstd", "wallet", "verify", "[/]no[red]where"])
    with pytest.raises(SystemExit):
        main()
    assert "[/]no[red]where" in capsys.readouterr().err


def test_for_programs_it_is_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gstd", "wallet", "verify", str(tmp_path), "--json"])
    with pytest.raises(SystemExit):
        main()
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "file_unreadable"
    assert error["hint"]


@pytest.mark.parametrize("content", [b"", b"\xff", b'[{"checkpoint":"\xc3("}]', b"[]", b'["x"]'])
def test_what_are_no_proofs_is_said(
    content: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["gstd", "wallet", "verify", str(tmp_path / "file")])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert said.startswith(f"invalid_input: {tmp_path / 'file'}")
    assert "gstd wallet statement --proof" in said
