"""The calls to Linux that Python has no functions for, through the C library."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Self


class Linux:
    """``prctl`` and raw system calls. Whoever passes an address keeps alive what lies there."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long

    @classmethod
    def here(cls) -> Self | None:
        """The C library of this process; None on other systems."""
        return cls() if sys.platform == "linux" else None

    def prctl(self, option: int, value: int) -> None:
        """Raises ``OSError``."""
        words = [ctypes.c_ulong(word) for word in (value, 0, 0, 0)]
        if self._libc.prctl(option, *words) != 0:
            raise _last_error()

    def syscall(self, number: int, *words: int) -> int:
        """Raises ``OSError``."""
        answer: int = self._libc.syscall(*(ctypes.c_long(word) for word in (number, *words)))
        if answer < 0:
            raise _last_error()
        return answer


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
