"""Only artefacts this user wrote, unchanged, are ever loaded."""

from __future__ import annotations

import os
from pathlib import Path

from gstd.sandbox.cache import ArtefactCache
from gstd.sandbox.wire import Artefact

SHA = "a" * 64
CODE = Artefact(1, 2, b"machine code")


def test_keeps_private_files_that_another_zygote_finds(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    ArtefactCache(folder).put(SHA, CODE)
    (file,) = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600
    assert ArtefactCache(folder).get(SHA) == CODE
    assert ArtefactCache(folder).get("b" * 64) is None
    assert ArtefactCache(folder).get("*") is None


def test_changed_foreign_and_linked_files_are_thrown_away(tmp_path: Path) -> None:
    def refuse(spoil: str) -> None:
        folder = tmp_path / spoil
        ArtefactCache(folder).put(SHA, CODE)
        (file,) = folder.iterdir()
        if spoil == "changed":
            file.write_bytes(file.read_bytes()[:-1] + b"!")
        elif spoil == "public":
            file.chmod(0o644)
        else:
            file.rename(tmp_path / "elsewhere")
            file.symlink_to(tmp_path / "elsewhere")
        assert ArtefactCache(folder).get(SHA) is None
        assert list(folder.iterdir()) == []

    for spoil in ("changed", "public", "linked"):
        refuse(spoil)


def test_least_recently_used_files_go_first(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, disk_bytes=2500, memory_bytes=1500)
    for moment, letter in enumerate("abc"):
        cache.put(letter * 64, Artefact(1, 1, bytes(1000)))
        for file in tmp_path.glob(f"{letter * 64}*"):
            os.utime(file, ns=(moment, moment))
    assert cache.held_bytes == 1000
    fresh = ArtefactCache(tmp_path)
    assert [fresh.get(letter * 64) is not None for letter in "abc"] == [False, True, True]


def test_drop_forgets_memory_and_disk(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path)
    cache.put(SHA, CODE)
    cache.drop(SHA)
    assert cache.get(SHA) is None
    assert list(tmp_path.iterdir()) == []
