"""Which processes run: zombies do not count, a name in the command line tells whose they are."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")


class Running(NamedTuple):
    """One process that is not a zombie."""

    pid: int
    group: int
    argv: list[str]


def _inspect(pid: int) -> Running | None:
    """Read one process from Linux's ``/proc``."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
        argv = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return None
    state, _parent, group = stat.rpartition(b")")[2].split()[:3]
    if state in b"ZX":
        return None
    return Running(pid, int(group), argv.decode(errors="replace").rstrip("\0").split("\0"))


def _listed() -> Iterator[Running]:
    """Read all processes from ``ps``, for systems without ``/proc``."""
    ps = ["ps", "-axo", "pid=,pgid=,stat=,command="]
    listing = subprocess.run(ps, capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        pid, group, state, *argv = line.split()
        if not state.startswith("Z"):
            yield Running(int(pid), int(group), argv)


def running() -> Iterator[Running]:
    """Every process of this machine that can be seen and is not a zombie."""
    if not (_PROC / "self" / "stat").exists():
        yield from _listed()
        return
    for entry in os.listdir(_PROC):  # noqa: PTH208 - thousands of names, no need for paths
        if entry.isdigit() and (process := _inspect(int(entry))) is not None:
            yield process


def is_running(pid: int) -> bool:
    """Whether ``pid`` is a process and not a zombie."""
    if (_PROC / "self" / "stat").exists():
        return _inspect(pid) is not None
    return any(process.pid == pid for process in _listed())


def exists(pid: int) -> bool:
    """Whether the kernel still knows ``pid``, be it as a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def group_is_running(group: int) -> bool:
    """Whether any process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return any(process.group == group for process in running())


def servers_tagged(program: str, tag: str) -> list[int]:
    """The pids of ``program`` and its helpers (``program: …``) whose command line has ``tag``."""
    if not tag:
        raise ValueError("an empty tag would match every server of this machine")
    return [
        process.pid
        for process in running()
        if (Path(process.argv[0]).name == program or process.argv[0].startswith(f"{program}:"))
        and any(tag in word for word in process.argv)
    ]


def send(pid: int, signum: int) -> None:
    """Send a signal to a process that may be gone already."""
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


def send_group(group: int, signum: int) -> None:
    """Send a signal to a group that may be gone already."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)
