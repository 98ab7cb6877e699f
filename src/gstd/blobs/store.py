"""Blobs by SHA-256: a name always means the same bytes, so writing twice is harmless."""

from __future__ import annotations

import hashlib
from pathlib import Path

import obstore
from obstore.exceptions import NotFoundError as ObjectNotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from gstd.kernel.errors import GstdError


class BlobMissingError(GstdError):
    """The bytes are not in the store."""

    code = "blob_missing"
    status = 404
    hint = "Upload them again; their name is the SHA-256 of the content."


class BlobCorruptError(GstdError):
    """The stored bytes are not what their name says."""

    code = "blob_corrupt"
    status = 500
    hint = "Restore the object store from its backup."


REMEMBERED = 16_384
"""Names of blobs that this process knows to be stored."""


class Blobs:
    """A content-addressed store over any object store. Nothing is ever deleted from it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._stored: dict[bytes, None] = {}

    @classmethod
    def open(cls, url: str) -> Blobs:
        """The store behind a URL: ``file:///folder`` (made if missing), ``s3://…``, ``gs://…``."""
        if url.startswith("file://"):
            folder = Path(url.removeprefix("file://"))
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return cls(LocalStore(prefix=folder))
        return cls(from_url(url))

    async def put(self, data: bytes) -> bytes:
        """Store bytes; returns their SHA-256, 32 bytes.

        What this process has stored lately is not written again: right results of one task are
        equal, and so is much that modules say.
        """
        digest = hashlib.sha256(data).digest()
        if digest not in self._stored:
            await obstore.put_async(self._store, _path(digest), data)
            self._remember(digest)
        return digest

    def _remember(self, digest: bytes) -> None:
        self._stored[digest] = None
        if len(self._stored) > REMEMBERED:
            del self._stored[next(iter(self._stored))]

    async def get(self, digest: bytes) -> bytes:
        """The bytes of a hash. Raises ``BlobMissingError`` or ``BlobCorruptError``.

        What is missing or corrupt is written again by the next ``put``.
        """
        self._stored.pop(digest, None)
        try:
            answer = await obstore.get_async(self._store, _path(digest))
        except (ObjectNotFoundError, FileNotFoundError) as error:
            raise BlobMissingError(f"no bytes named {digest.hex()}") from error
        data = bytes(await answer.bytes_async())
        if hashlib.sha256(data).digest() != digest:
            raise BlobCorruptError(f"the bytes named {digest.hex()} have another hash")
        self._remember(digest)
        return data


def _path(digest: bytes) -> str:
    name = digest.hex()
    return f"{name[:2]}/{name}"
