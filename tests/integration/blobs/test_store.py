"""Blobs by their SHA-256."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import obstore
import pytest

from gstd.blobs.store import BlobCorruptError, BlobMissingError, Blobs


@pytest.mark.parametrize("data", [b"", b"a", bytes(range(256)) * 20_000])
async def test_bytes_come_back_by_their_hash(blobs: Blobs, data: bytes) -> None:
    digest = await blobs.put(data)
    assert digest == hashlib.sha256(data).digest()
    assert await blobs.get(digest) == data


async def test_putting_twice_and_at_once_is_harmless(blobs: Blobs) -> None:
    digests = await asyncio.gather(*(blobs.put(b"same") for _ in range(10)))
    assert len(set(digests)) == 1
    assert await blobs.get(digests[0]) == b"same"


async def test_a_hash_without_bytes_is_missing(blobs: Blobs) -> None:
    digest = hashlib.sha256(b"never put").digest()
    with pytest.raises(BlobMissingError, match=digest.hex()):
        await blobs.get(digest)


async def test_bytes_that_changed_on_the_disk_are_never_given_out(
    blobs: Blobs, tmp_path: Path
) -> None:
    digest = await blobs.put(b"right")
    [file] = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    file.write_bytes(b"wrong")
    with pytest.raises(BlobCorruptError) as corrupt:
        await blobs.get(digest)
    assert corrupt.value.status == 500
    await blobs.put(b"right")
    assert await blobs.get(digest) == b"right"


async def test_two_stores_over_one_folder_share_their_bytes(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/shared"
    digest = await Blobs.open(url).put(b"shared")
    assert await Blobs.open(url).get(digest) == b"shared"


async def test_the_folder_is_made_and_belongs_to_its_user_alone(tmp_path: Path) -> None:
    Blobs.open(f"file://{tmp_path}/deep/er")
    assert ((tmp_path / "deep" / "er").stat().st_mode & 0o777) == 0o700


async def test_what_is_stored_is_not_written_again_until_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[str] = []
    put_async = obstore.put_async

    async def counting(target: Any, path: str, data: bytes) -> object:
        writes.append(path)
        return await put_async(target, path, data)

    monkeypatch.setattr("gstd.blobs.store.obstore.put_async", counting)
    blobs = Blobs.open(f"file://{tmp_path}")
    digest = await blobs.put(b"data")
    assert await blobs.put(b"data") == digest
    assert len(writes) == 1
    (tmp_path / writes[0]).unlink()
    with pytest.raises(BlobMissingError):
        await blobs.get(digest)
    await blobs.put(b"data")
    assert await blobs.get(digest) == b"data"
    assert len(writes) == 2
