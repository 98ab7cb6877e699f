"""Turns a freshly forked process into a cage: no files, no privileges, bounded memory and CPU."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from typing import Final

import msgspec

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38

MAX_DESCRIPTORS: Final = 256
"""How many the zygote may hold; its children close every one of them."""

_CHILD_DESCRIPTORS: Final = 16


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What one child may use."""

    cpu_seconds: int
    data_bytes: int


def load_prctl() -> ctypes.CDLL | None:
    """libc, looked up once in the zygote, where ``prctl`` exists."""
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def limit_descriptors() -> None:
    """Hold at most ``MAX_DESCRIPTORS`` files, so that a child can close all of them quickly."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def enter(keep: int, zygote_pid: int, bounds: Bounds, libc: ctypes.CDLL | None) -> None:
    """Close everything but the descriptor ``keep`` and give up what a module must not have.

    Ends the process at once when the zygote has died meanwhile.
    """
    if libc is not None:
        for option, value in ((_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_NO_NEW_PRIVS, 1)):
            if libc.prctl(option, value, 0, 0, 0) != 0:
                os._exit(1)
    if os.getppid() != zygote_pid:
        os._exit(1)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.closerange(3, keep)
    os.closerange(keep + 1, MAX_DESCRIPTORS)
    for what, soft, hard in (
        (resource.RLIMIT_DATA, bounds.data_bytes, bounds.data_bytes),
        (resource.RLIMIT_CPU, bounds.cpu_seconds, bounds.cpu_seconds + 2),
        (resource.RLIMIT_NOFILE, _CHILD_DESCRIPTORS, _CHILD_DESCRIPTORS),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
    ):
        with contextlib.suppress(ValueError):  # a lower limit was already in force
            resource.setrlimit(what, (soft, hard))
