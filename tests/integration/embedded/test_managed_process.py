"""A managed process comes back, gives up, stops; a supervisor leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from gstd.embedded.errors import StartFailedError
from gstd.embedded.pids import group_is_running, is_running
from gstd.embedded.process import Backoff, Command, ManagedProcess, State, Supervisor, until

WAIT = "print('up', flush=True); import time; time.sleep(60)"
FOREVER = "while :; do sleep 0.05; done"


def command(folder: Path, script: str, name: str = "shell", **more: object) -> Command:
    """A shell script as a command."""
    argv = ("sh", "-c", script)
    return Command(name=name, argv=argv, log=folder / f"{name}.log", **more)  # type: ignore[arg-type]


def test_pauses_double_up_to_five_seconds_and_start_again_after_ten() -> None:
    backoff = Backoff()
    assert [backoff.pause(0) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert backoff.pause(10) == 0.1
    assert backoff.pause(9.9) == 0.2


async def test_it_comes_back_and_says_so(tmp_path: Path) -> None:
    seen: list[State] = []
    hooks: list[int] = []

    async def hook() -> None:
        hooks.append(1)

    async def printed() -> bool:
        return (tmp_path / "shell.log").read_text() == "started\n" * (1 + len(hooks))

    process = ManagedProcess(
        command(tmp_path, f"echo started; {FOREVER}"),
        ready=printed,
        before_restart=hook,
        on_state=lambda _name, state: seen.append(state),
    )
    await process.start()
    first = process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert await until(lambda: process.restarts == 1 and process.state is State.READY, 5)
    assert not group_is_running(first), "the wrapper was killed, its shell went too"
    second = process.pid
    await process.stop()
    assert second is not None
    assert not group_is_running(second)
    assert hooks == [1]
    one_life = [State.STARTING, State.READY]
    assert seen == [*one_life, State.RESTARTING, *one_life, State.STOPPED]
    assert process.pid is None
    await process.stop()


async def test_what_never_becomes_ready_is_given_up_with_its_last_words(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    process = ManagedProcess(command(tmp_path, "echo no such luck; exit 3"), ready=never)
    with pytest.raises(StartFailedError, match="no such luck"):
        await process.start()
    assert process.state is State.STOPPED
    slow = ManagedProcess(command(tmp_path, FOREVER, "slow"), ready=never)
    with pytest.raises(StartFailedError):
        await slow.start(0.3)
    assert slow.pid is None


async def test_who_ignores_the_stop_signal_is_killed_with_its_children(tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 60 & {FOREVER}"
    process = ManagedProcess(command(tmp_path, script))
    await process.start()
    group = process.pid
    assert group is not None
    await process.stop(timeout=0.2)
    assert not group_is_running(group)


async def test_a_python_child_needs_no_wrapper(tmp_path: Path) -> None:
    program = "from gstd.embedded.leash import hold_leash; assert hold_leash();"
    child = Command(
        name="child",
        argv=(sys.executable, "-c", f"{program} {WAIT}"),
        log=tmp_path / "child.log",
        calls_hold_leash=True,
    )
    process = ManagedProcess(child)
    async with Supervisor() as supervisor:
        await supervisor.start(process)
        assert await until(lambda: "up" in (tmp_path / "child.log").read_text(), 5)
        pid = process.pid
        assert pid is not None
    assert not is_running(pid)


async def test_order_is_kept_and_reversed_even_when_a_start_fails(tmp_path: Path) -> None:
    events: list[str] = []

    def note(name: str, state: State) -> None:
        if state in {State.READY, State.STOPPED}:
            events.append(f"{name} {state}")

    first, *together = [
        ManagedProcess(command(tmp_path, FOREVER, name), on_state=note) for name in "abc"
    ]
    bad = ManagedProcess(command(tmp_path, "exit 1", "d"), ready=unready, on_state=note)
    async with Supervisor() as supervisor:
        await supervisor.start(first)
        with pytest.raises(StartFailedError):
            await supervisor.start(*together, bad)
    assert events[:4] == ["a ready", "b ready", "c ready", "d stopped"]
    assert set(events[4:6]) == {"b stopped", "c stopped"}
    assert events[6:] == ["a stopped"]


async def unready() -> bool:
    """A readiness that never comes."""
    return False


async def test_a_cancelled_supervisor_leaves_nothing(tmp_path: Path) -> None:
    first = ManagedProcess(command(tmp_path, FOREVER, "a"))
    second = ManagedProcess(command(tmp_path, FOREVER, "b"), ready=unready)

    async def run() -> None:
        async with Supervisor() as supervisor:
            await supervisor.start(first, second)

    task = asyncio.create_task(run())
    assert await until(lambda: second.pid is not None, 5)
    groups = [pid for pid in (first.pid, second.pid) if pid is not None]
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert len(groups) == 2
    assert not any(group_is_running(group) for group in groups)
