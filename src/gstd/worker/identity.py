"""The device's key file: 32 bytes in hexadecimal, readable by its owner only."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from gstd.protocol.signing import DeviceKey
from gstd.worker.errors import KeyFileError, KeyFileOpenToOthersError

_SEED_HEX = 64


def load_key(path: Path) -> DeviceKey:
    """The key in ``path``.

    Raises ``KeyFileError`` for a missing or broken file, ``KeyFileOpenToOthersError`` for one
    that others may read or that belongs to another user.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(_SEED_HEX + 2)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise KeyFileOpenToOthersError(f"{path} has mode {stat.S_IMODE(found.st_mode):04o}")
    if os.geteuid() not in (0, found.st_uid):
        raise KeyFileOpenToOthersError(f"{path} belongs to another user")
    try:
        return DeviceKey.from_seed(bytes.fromhex(data.decode("ascii").strip()))
    except ValueError:
        raise KeyFileError(f"{path} does not hold a device key") from None


def load_or_create_key(path: Path) -> DeviceKey:
    """The key in ``path``, made at the first call. Whoever asks at once gets the same key."""
    if not path.exists():
        _create(path)
    return load_key(path)


def _create(path: Path) -> None:
    """Make the file wholly or not at all, and never in the place of another."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent) as file:  # has mode 0600
            file.write(DeviceKey.generate().seed().hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another process was first: its key stays
                path.hardlink_to(file.name)
    except OSError as error:
        raise KeyFileError(
            f"{path} cannot be written: {error.strerror}", hint="Choose another place for it."
        ) from error
