"""The key file: made once, private, refused when others could read it."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gstd.worker.errors import KeyFileError, KeyFileOpenToOthersError
from gstd.worker.identity import load_key, load_or_create_key


def test_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "device.key"
    key = load_or_create_key(path)
    assert load_or_create_key(path).public == key.public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_text() == key.seed().hex() + "\n"
    assert [file.name for file in path.parent.iterdir()] == ["device.key"]


def test_whoever_asks_at_once_gets_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(lambda _: load_or_create_key(path).public, range(16)))
    assert len(keys) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "device.key"
    load_or_create_key(path)
    path.chmod(mode)
    with pytest.raises(KeyFileOpenToOthersError, match=f"{mode:04o}") as caught:
        load_or_create_key(path)
    assert "chmod 600" in caught.value.advice


@pytest.mark.parametrize("text", ["", "ab", "x" * 64, "ab" * 33 + "\n"])
def test_broken_file_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "device.key"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(KeyFileError, match="does not hold"):
        load_or_create_key(path)
    assert path.read_text() == text


def test_missing_file_and_impossible_folder_are_errors_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"device\.key cannot be read"):
        load_key(tmp_path / "device.key")
    (tmp_path / "file").touch()
    with pytest.raises(KeyFileError, match="cannot be written"):
        load_or_create_key(tmp_path / "file" / "device.key")
