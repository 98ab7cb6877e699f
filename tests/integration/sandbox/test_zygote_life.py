"""Cancelling, killing and restarting: no child outlives what it was made for."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wasmtime

from gstd.protocol.execution import Limits, Status, TaskInput
from gstd.sandbox import errors
from gstd.sandbox.runner import Sandbox
from gstd.sandbox.walls import Wall, Walls

LONG = Limits(fuel=10**15, wall_ms=60_000)
FOREVER = bytes(
    wasmtime.wat2wasm(
        '(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))'
    )
)
QUICK = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start")))'))


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


async def until_running(pid: int, count: int = 1) -> list[int]:
    """Wait until the zygote has ``count`` children (it forks on its own time)."""
    async with asyncio.timeout(10):
        while len(found := children(pid)) != count:  # noqa: ASYNC110 - the kernel has no event
            await asyncio.sleep(0)
    return found


async def until_gone(pid: int) -> float:
    """Seconds until the process is gone."""
    started = time.monotonic()
    async with asyncio.timeout(10):
        while _alive(pid):  # noqa: ASYNC110 - the kernel has no event
            await asyncio.sleep(0)
    return time.monotonic() - started


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def test_cancelling_kills_the_child_at_once(tmp_path: Path) -> None:
    async with Sandbox(tmp_path / "c") as box:
        await box.compile_check(FOREVER)
        task = asyncio.create_task(box.run(FOREVER, TaskInput(), LONG))
        assert box.zygote_pid is not None
        (child,) = await until_running(box.zygote_pid)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await until_gone(child) < 1.0  # 100 ms on an idle machine
        assert (await box.run(QUICK, TaskInput(), Limits())).status is Status.OK


async def test_the_wall_clock_leaves_no_child_behind(tmp_path: Path) -> None:
    async with Sandbox(tmp_path / "c") as box:
        with pytest.raises(errors.WallClockExceeded):
            await box.run(FOREVER, TaskInput(), Limits(fuel=10**15, wall_ms=100))
        assert box.zygote_pid is not None
        assert children(box.zygote_pid) == []


async def test_several_run_at_once_and_closing_ends_them(tmp_path: Path) -> None:
    async with Sandbox(tmp_path / "c", slots=2) as box:
        await box.compile_check(FOREVER)
        tasks = [asyncio.create_task(box.run(FOREVER, TaskInput(), LONG)) for _ in range(3)]
        assert box.zygote_pid is not None
        pids = await until_running(box.zygote_pid, 2)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [
        errors.HostFault,
        errors.HostFault,
        errors.HostFault,
    ]
    assert "closed" in str(results[2])
    for pid in pids:
        await until_gone(pid)


async def test_a_killed_child_is_a_host_fault(tmp_path: Path) -> None:
    async with Sandbox(tmp_path / "c") as box:
        await box.compile_check(FOREVER)
        task = asyncio.create_task(box.run(FOREVER, TaskInput(), LONG))
        assert box.zygote_pid is not None
        (child,) = await until_running(box.zygote_pid)
        os.kill(child, signal.SIGKILL)
        with pytest.raises(errors.HostFault):
            await task


async def test_a_killed_zygote_takes_its_children_along_and_is_replaced(tmp_path: Path) -> None:
    async with Sandbox(tmp_path / "c") as box:
        await box.compile_check(FOREVER)
        task = asyncio.create_task(box.run(FOREVER, TaskInput(), LONG))
        first = box.zygote_pid
        assert first is not None
        (child,) = await until_running(first)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(errors.HostFault):
            await task
        await until_gone(child)
        assert (await box.run(QUICK, TaskInput(), Limits())).status is Status.OK
        assert box.zygote_pid != first


def caged(pid: int, walls: Walls) -> bool:
    """Whether the child has finished locking itself up: limits, then the filter."""
    if Wall.SECCOMP in walls.standing and "Seccomp:\t2" not in proc_status(pid):
        return False
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    sizes = {line[:25].strip(): line[26:47].strip() for line in lines}
    return sizes["Max file size"] == "0" and sizes["Max core file size"] == "0"


def open_files(pid: int) -> list[str]:
    return [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]


async def test_the_child_is_locked_up(tmp_path: Path) -> None:
    async with Sandbox(tmp_path / "c") as box:
        await box.compile_check(FOREVER)
        task = asyncio.create_task(box.run(FOREVER, TaskInput(), LONG))
        assert box.zygote_pid is not None
        (child,) = await until_running(box.zygote_pid)
        async with asyncio.timeout(10):
            while not caged(child, box.walls):  # noqa: ASYNC110 - the kernel has no event
                await asyncio.sleep(0)
        assert "NoNewPrivs:\t1" in proc_status(child)
        (other,) = [name for name in open_files(child) if name != os.devnull]
        assert other.startswith("pipe:")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def proc_status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


async def test_compiled_modules_survive_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    async with Sandbox(folder) as box:
        await box.run(QUICK, TaskInput(), Limits())
    (file,) = folder.iterdir()
    made = file.stat().st_ino
    async with Sandbox(folder) as box:
        await box.run(QUICK, TaskInput(), Limits())
    assert [f.stat().st_ino for f in folder.iterdir()] == [made]
    file.write_bytes(b"not what it was")
    async with Sandbox(folder) as box:
        assert (await box.run(QUICK, TaskInput(), Limits())).status is Status.OK


def test_the_zygote_dies_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import asyncio, os, sys, pathlib\n"
        "from gstd.sandbox.runner import Sandbox\n"
        "async def main():\n"
        "    async with Sandbox(pathlib.Path(sys.argv[1])) as box:\n"
        "        print(box.zygote_pid, flush=True)\n"
        "        os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[3] / "src"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "c")],
        capture_output=True,
        env={"PYTHONPATH": str(root)},
        check=False,
    )
    zygote = int(done.stdout)
    deadline = time.monotonic() + 10
    while _alive(zygote):
        assert time.monotonic() < deadline
