"""Module bytes by hash: in memory, on disk, or fetched; always checked, least used first out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from weakref import WeakValueDictionary

from gstd.kernel.canonical import sha256
from gstd.worker.errors import ModuleMismatchError

MEMORY_BYTES = 64 << 20
DISK_BYTES = 512 << 20


class ModuleCache:
    """Keeps modules that were used lately. Without a ``folder`` it keeps them in memory only."""

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[bytes]],
        folder: Path | None = None,
        *,
        memory_bytes: int = MEMORY_BYTES,
        disk_bytes: int = DISK_BYTES,
    ) -> None:
        self._fetch = fetch
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._disk_bytes = disk_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def get(self, metered_hash: str) -> bytes:
        """The module with this hash. Raises ``ModuleMismatchError`` and what fetching raises.

        Attempts that need the same module at once share one download.
        """
        lock = self._locks.setdefault(metered_hash, asyncio.Lock())
        async with lock:
            data = self._kept.get(metered_hash)
            if data is None:
                data = await self._from_disk(metered_hash) or await self._download(metered_hash)
            self._keep(metered_hash, data)
            return data

    async def _from_disk(self, metered_hash: str) -> bytes | None:
        if self._folder is None:
            return None
        return await asyncio.to_thread(_read, self._folder / metered_hash)

    async def _download(self, metered_hash: str) -> bytes:
        data = await self._fetch(metered_hash)
        if (await asyncio.to_thread(sha256, data)).hex() != metered_hash:
            raise ModuleMismatchError(f"what came for module {metered_hash[:12]}… is not it")
        if self._folder is not None:
            await asyncio.to_thread(_write, self._folder / metered_hash, data, self._disk_bytes)
        return data

    def _keep(self, metered_hash: str, data: bytes) -> None:
        self._kept[metered_hash] = data
        self._kept.move_to_end(metered_hash)
        while sum(map(len, self._kept.values())) > self._memory_bytes:
            self._kept.popitem(last=False)


def _read(path: Path) -> bytes | None:
    """The file if it holds what its name says; its time of change counts as its last use."""
    try:
        data = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    return data if sha256(data).hex() == path.name else None


def _write(path: Path, data: bytes, most: int) -> None:
    """Keep a file and drop those used longest ago. A full disk only means no cache."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent) as file:
            file.write(data)
            file.flush()
            with contextlib.suppress(FileExistsError):
                path.unlink(missing_ok=True)  # what is there was found to be broken
                path.hardlink_to(file.name)
        _shrink(path.parent, most)


def _shrink(folder: Path, most: int) -> None:
    files = sorted(
        ((path.stat().st_mtime_ns, path.stat().st_size, path) for path in folder.iterdir()),
        reverse=True,
    )
    total = 0
    for _, size, path in files:
        total += size
        if total > most:
            path.unlink(missing_ok=True)
