"""The state folder: private sub-folders, secrets, logs, sockets, and the lock of its owner."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import pwd
import secrets
import stat
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from gstd.embedded.errors import (
    RootNotSupportedError,
    SocketFolderError,
    StateInUseError,
    StateOwnerError,
)
from gstd.embedded.pids import is_running

_SOCKET_PATH_BYTES = 103
"""The shortest limit of the systems we run on: macOS has 104 bytes with the final zero."""

_LOG_BYTES = 16 << 20
_PATIENCE_SECONDS = 10.0
"""How long the servers of a dead owner may take to end."""

_DYING_SECONDS = 0.3
"""How long a process that was just killed may still be seen."""


class Account(NamedTuple):
    """Who a process runs as."""

    uid: int
    gid: int


def unprivileged(name: str) -> Account | None:
    """The account to drop to, or ``None`` when we are not root and nothing is to be dropped.

    Raises ``RootNotSupportedError`` if there is no such account.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise RootNotSupportedError(f"There is no account {name} to run the server.") from None
    return Account(entry.pw_uid, entry.pw_gid)


def private_folder(path: Path) -> Path:
    """Make ``path`` (and what is missing above it) a folder that only we may enter.

    Raises ``StateOwnerError`` if it belongs to another user.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.geteuid():
        raise StateOwnerError(f"{path} belongs to another user.")
    path.chmod(0o700)
    return path


def server_folder(state_dir: Path, name: str) -> Path:
    """The private folder of one server. A state folder that is new or only ours becomes private
    too; a shared folder somebody chose keeps its mode, for the server's folder is wall enough.
    """
    missing_or_empty = not state_dir.exists() or not any(state_dir.iterdir())
    if missing_or_empty or (state_dir / name).exists():
        private_folder(state_dir)
    return private_folder(state_dir / name)


def kept_secret(path: Path) -> str:
    """The secret in ``path``, mode 0600; made at the first call."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32))
    return path.read_text(encoding="ascii").strip()


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``, mode 0600, wholly or not at all."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(temporary).replace(path)


def open_log(path: Path) -> int:
    """A descriptor that appends to ``path``, mode 0600. A log beyond 16 MiB moves to ``.1``."""
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def log_tail(path: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error message."""
    try:
        text = path.read_bytes()[-4096:].decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def socket_folder(wanted: Path, socket_name: str) -> Path:
    """``wanted``, or a short folder in ``/run`` (``/tmp`` for users) if its path is too long.

    The answer depends only on ``wanted`` and the user, so every process finds the same folder.
    """
    if len(os.fsencode(wanted / socket_name)) <= _SOCKET_PATH_BYTES:
        return wanted
    base = Path("/run") if os.geteuid() == 0 and Path("/run").is_dir() else Path("/tmp")  # noqa: S108
    return base / f"gstd-{hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]}"


def make_socket_folder(folder: Path, account: Account | None) -> None:
    """Make a short socket folder for ``account`` (or us), refusing one that others prepared."""
    owner = account.uid if account else os.geteuid()
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
            raise SocketFolderError(f"{folder} is not ours.") from None
    else:
        if account:
            os.chown(folder, account.uid, account.gid)


class StateLock:
    """One owner for a server's folder.

    The descriptor is also handed to the leash, so the lock is free only when the last server of
    a killed owner is gone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    @property
    def fd(self) -> int:
        """The descriptor to hand on; -1 while the lock is not held."""
        return self._fd

    async def acquire(self) -> None:
        """Take the lock. Raises ``StateInUseError``: after 0.3 s if its owner lives, else after
        10 s in which the servers of a dead owner did not end.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            await self._contend(fd)
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    async def _contend(self, fd: int) -> None:
        started = time.monotonic()
        while not _try_lock(fd):
            owner = os.pread(fd, 32, 0).decode()
            lives = owner != "" and is_running(int(owner))
            patience = _DYING_SECONDS if lives else _PATIENCE_SECONDS
            if time.monotonic() > started + patience:
                raise StateInUseError(
                    f"Process {owner or 'unknown'} already runs on {self._path.parent.parent}."
                )
            await asyncio.sleep(0.02)

    def release(self) -> None:
        """Give the lock back; does nothing when it is not held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
