"""Files that commands read and write: whole or not at all, and errors that say which file."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from gstd.kernel.errors import GstdError


class UnreadableFileError(GstdError):
    """A file cannot be read."""

    code = "file_unreadable"
    hint = "Check that it is a file and that you may read it."


class UnwritableFileError(GstdError):
    """A file cannot be written."""

    code = "file_unwritable"
    hint = "Give a file in a folder that exists, where you may write and room is left."


def read(path: Path) -> bytes:
    """What a file holds. Raises ``UnreadableFileError``."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFileError(f"{path}: {error.strerror or error}") from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file, which takes the place of ``path`` once the block has ended well.

    When it fails, ``path`` is as before. What is not a plain file (a terminal, a pipe) cannot be
    replaced and is written to as it is. Raises ``UnwritableFileError``.
    """
    try:
        place = path.resolve()  # a link stays a link
        if place.exists() and not place.is_file():
            with place.open("wb") as opened:
                yield opened
            return
        partial = place.with_name(f".gstd-{secrets.token_hex(8)}.partial")
        try:
            with partial.open("xb") as opened:
                if place.exists():
                    shutil.copymode(place, partial)  # what was private stays private
                yield opened
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)
    except BrokenPipeError:
        raise  # whoever read standard output has gone: not about this file
    except OSError as error:
        raise UnwritableFileError(f"{path}: {error.strerror or error}") from error
