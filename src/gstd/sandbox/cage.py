"""Turns a freshly forked process into a cage: no files, no privileges, bounded memory and CPU."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Callable
from typing import Final

import msgspec

from gstd.sandbox import landlock, seccomp
from gstd.sandbox.linux import Linux
from gstd.sandbox.walls import Wall, Walls

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38

MAX_DESCRIPTORS: Final = 256
"""How many the zygote may hold; its children close every one of them."""

_CHILD_DESCRIPTORS: Final = 16

_LOCKS: Final[dict[Wall, Callable[[Linux], None]]] = {
    Wall.LANDLOCK: landlock.lock,
    Wall.SECCOMP: seccomp.lock,
}


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What one child may use."""

    cpu_seconds: int
    data_bytes: int


def limit_descriptors() -> None:
    """Hold at most ``MAX_DESCRIPTORS`` files, so that a child can close all of them quickly."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Cage:
    """Made once by the zygote, entered by each of its children."""

    def __init__(self, linux: Linux | None) -> None:
        self._linux = linux
        self._zygote = os.getpid()
        self.walls = Walls(() if linux is None else tuple(w for w in Wall if _holds(linux, w)))

    def enter(self, keep: int, bounds: Bounds) -> None:
        """Close everything but the descriptor ``keep`` and give up what a module must not have.

        Ends the process at once when the zygote has died meanwhile. Raises ``OSError`` if a wall
        does not stand that stood in the trial: then nothing may run here.
        """
        if self._linux is not None:
            self._linux.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            self._linux.prctl(_PR_SET_NO_NEW_PRIVS, 1)  # both locks below need it
        if os.getppid() != self._zygote:
            os._exit(1)
        # Each step takes away what the steps before it needed: files, then limits, then calls.
        _close_files(keep)
        self._lock(Wall.LANDLOCK)
        _set_limits(bounds)
        self._lock(Wall.SECCOMP)

    def _lock(self, wall: Wall) -> None:
        if self._linux is not None and wall in self.walls.standing:
            _LOCKS[wall](self._linux)


def _close_files(keep: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.closerange(3, keep)
    os.closerange(keep + 1, MAX_DESCRIPTORS)


def _set_limits(bounds: Bounds) -> None:
    for what, soft, hard in (
        (resource.RLIMIT_DATA, bounds.data_bytes, bounds.data_bytes),
        (resource.RLIMIT_CPU, bounds.cpu_seconds, bounds.cpu_seconds + 2),
        (resource.RLIMIT_NOFILE, _CHILD_DESCRIPTORS, _CHILD_DESCRIPTORS),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
    ):
        with contextlib.suppress(ValueError):  # a lower limit was already in force
            resource.setrlimit(what, (soft, hard))


def _holds(linux: Linux, wall: Wall) -> bool:
    """Whether a child can raise the wall and it holds.

    Tried and not asked, because a container may forbid what its kernel offers.
    """
    pid = os.fork()
    if pid == 0:
        try:
            linux.prctl(_PR_SET_NO_NEW_PRIVS, 1)
            _LOCKS[wall](linux)
            os._exit(0 if _no_files() else 1)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def _no_files() -> bool:
    try:
        os.open("/", os.O_RDONLY)
    except PermissionError:
        return True
    return False
