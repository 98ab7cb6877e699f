"""Compiled modules, kept by the zygote in memory and in a private folder.

Compiled code is machine code: a file counts only if this user alone could have written it and
its contents have the SHA-256 that stands in its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import stat
from collections import OrderedDict
from pathlib import Path
from typing import Final

import msgspec

from gstd.sandbox.profile import PROFILE
from gstd.sandbox.wire import ARTEFACTS, ENCODER, Artefact

DISK_BYTES: Final = 1 << 30
MEMORY_BYTES: Final = 128 << 20

_SUFFIX: Final = f".{PROFILE.replace('/', '-')}-{platform.machine()}"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class ArtefactCache:
    """Least recently used artefacts go first, in memory and on disk.

    The folder is made with mode 0700 and its files with 0600. Several zygotes may share it.
    """

    def __init__(
        self, folder: Path, *, disk_bytes: int = DISK_BYTES, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self._folder = folder
        self._disk_bytes = disk_bytes
        self._memory_bytes = memory_bytes
        self._held: OrderedDict[str, Artefact] = OrderedDict()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():
            raise PermissionError(f"{folder} belongs to another user")
        folder.chmod(0o700)

    @property
    def held_bytes(self) -> int:
        """Bytes of code in memory."""
        return sum(len(artefact.code) for artefact in self._held.values())

    def get(self, sha256: str) -> Artefact | None:
        """The artefact of a module, or None."""
        artefact = self._held.get(sha256)
        if artefact is None:
            artefact = self._load(sha256)
            if artefact is not None:
                self._hold(sha256, artefact)
            return artefact
        self._held.move_to_end(sha256)
        return artefact

    def put(self, sha256: str, artefact: Artefact) -> None:
        """Keep an artefact. A full disk only means that it is compiled again another time."""
        self._hold(sha256, artefact)
        content = ENCODER.encode(artefact)
        path = self._path(sha256, hashlib.sha256(content).hexdigest())
        with contextlib.suppress(OSError):
            self._write(path, content)
            self._evict(path)

    def drop(self, sha256: str) -> None:
        """Forget a module's artefact."""
        self._held.pop(sha256, None)
        for path in self._files(sha256):
            path.unlink(missing_ok=True)

    def _hold(self, sha256: str, artefact: Artefact) -> None:
        self._held[sha256] = artefact
        self._held.move_to_end(sha256)
        while len(self._held) > 1 and self.held_bytes > self._memory_bytes:
            self._held.popitem(last=False)

    def _path(self, sha256: str, integrity: str) -> Path:
        return self._folder / f"{sha256}{_SUFFIX}.{integrity}.cwasm"

    def _files(self, sha256: str) -> list[Path]:
        if not _SHA256.fullmatch(sha256):
            return []
        return list(self._folder.glob(f"{sha256}{_SUFFIX}.*.cwasm"))

    def _load(self, sha256: str) -> Artefact | None:
        for path in self._files(sha256):
            content = _read_own(path)
            if content is not None:
                integrity = hashlib.sha256(content).hexdigest()
                if path == self._path(sha256, integrity):
                    with contextlib.suppress(OSError, msgspec.MsgspecError):
                        os.utime(path)
                        return ARTEFACTS.decode(content)
            path.unlink(missing_ok=True)
        return None

    def _write(self, path: Path, content: bytes) -> None:
        draft = path.with_suffix(f".{os.getpid()}.draft")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
                file.write(content)
            draft.rename(path)
        finally:
            draft.unlink(missing_ok=True)

    def _evict(self, newest: Path) -> None:
        files = [(p.stat(), p) for p in self._folder.glob("*.cwasm")]
        total = sum(status.st_size for status, _ in files)
        for status, path in sorted(files, key=lambda item: item[0].st_mtime_ns):
            if total <= self._disk_bytes:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= status.st_size


def _read_own(path: Path) -> bytes | None:
    """The contents of a regular file that only this user could write, or None."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            status = os.fstat(file.fileno())
            private = stat.S_ISREG(status.st_mode) and not status.st_mode & 0o077
            return file.read() if private and status.st_uid == os.geteuid() else None
    except OSError:
        return None
