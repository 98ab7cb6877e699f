"""The command as a user runs it, and its process tree as an enemy sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx2

T = TypeVar("T")

WITHIN_S = 90.0


def gstd(
    *arguments: str, state: Path, env: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start ``gstd`` with these arguments and a state folder of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "gstd.cli.main", *arguments],
        env={**os.environ, "GSTD_STATE": str(state), "GSTD_PORT": "0", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for(look: Callable[[], T | None], what: str, within_s: float = WITHIN_S) -> T:
    """What ``look`` finds once it finds something."""
    until = time.monotonic() + within_s
    pause = threading.Event()
    while time.monotonic() < until:
        found = look()
        if found:
            return found
        pause.wait(0.05)
    raise AssertionError(f"{what} did not happen within {within_s} s")


def commands() -> dict[int, tuple[int, str]]:
    """Every running process: its parent and its command line."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(folder.name)] = (parent, words.decode(errors="replace"))
    return found


def descendants(root: int) -> dict[int, str]:
    """Every process below one, with its command line."""
    running = commands()
    below: dict[int, str] = {}
    for pid in sorted(running):
        seen, at = [], pid
        while at in running and at not in seen and at != root:
            seen.append(at)
            at = running[at][0]
        if at == root and pid != root:
            below[pid] = running[pid][1]
    return below


def kill(pid: int) -> None:
    """End a process without a word."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def is_well(url: str) -> bool:
    """Whether an API answers there and reaches its stores."""
    try:
        async with httpx2.AsyncClient(timeout=5, trust_env=False) as http:
            return (await http.get(f"{url}/api/v1/health")).status_code == 200
    except httpx2.HTTPError:
        return False


@contextlib.contextmanager
def stopping(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """The process, stopped at the end."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
