"""One child process kept alive, and several of them started in order and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from gstd.embedded import leash
from gstd.embedded.errors import EmbeddedError, StartFailedError
from gstd.embedded.pids import group_is_running, send_group
from gstd.embedded.state import Account, log_tail, open_log

_POLL_SECONDS = 0.02
_ATTEMPTS_TO_START = 3
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_STABLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run and how to end it.

    ``log`` gets standard output and error, appended. ``env`` replaces the environment.
    ``grace_seconds`` is the time between the stop signal and SIGKILL once our own process died.
    ``calls_hold_leash`` promises that the program calls ``hold_leash()`` itself; every other
    program runs under the wrapper. ``keep_fds`` stay open in the wrapper, never in the program.
    ``account`` needs the wrapper.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 5.0
    calls_hold_leash: bool = False
    keep_fds: tuple[int, ...] = ()

    def wrapped(self, adopt: int | None = None) -> tuple[str, ...]:
        """The command line of the wrapper around this command, or around the running ``adopt``."""
        options = ["--signal", self.stop_signal.name.removeprefix("SIG")]
        options += ["--grace", str(self.grace_seconds)]
        if self.account is not None:
            options += ["--user", f"{self.account.uid}:{self.account.gid}"]
        target = ("--", *self.argv) if adopt is None else ("--pid", str(adopt))
        return (sys.executable, "-I", "-S", leash.__file__, *options, *target)


class Leashed:
    """A running command and our end of its leash."""

    def __init__(self, command: Command, process: asyncio.subprocess.Process, fd: int) -> None:
        self.process = process
        self._command = command
        self._fd = fd

    @classmethod
    async def launch(
        cls, command: Command, *, adopt: int | None = None, stdin: int = asyncio.subprocess.DEVNULL
    ) -> Self:
        """Start the command in a session of its own. Raises ``OSError``."""
        read_end, write_end = os.pipe()
        log = open_log(command.log)
        env = {
            **(os.environ if command.env is None else command.env),
            leash.LEASH_FD: str(read_end),
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *(command.argv if command.calls_hold_leash else command.wrapped(adopt)),
                stdin=stdin,
                stdout=log,
                stderr=log,
                env=env,
                cwd=command.cwd,
                pass_fds=(read_end, *command.keep_fds),
                start_new_session=True,
            )
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(log)
            os.close(read_end)
        return cls(command, process, write_end)

    async def end(self, timeout: float) -> None:
        """Stop signal, ``timeout`` seconds, SIGKILL; then the same for what is left of its group.

        If this is cancelled, the leash is let go and does the rest.
        """
        try:
            if self.process.returncode is None:
                with suppress(ProcessLookupError):
                    self.process.send_signal(self._command.stop_signal)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.process.wait(), timeout)
            group = self.process.pid
            for signum in (self._command.stop_signal, signal.SIGKILL):
                if group_is_running(group):
                    send_group(group, signum if self.process.returncode is not None else 9)
                    await until(lambda: not group_is_running(group), timeout)
            await self.process.wait()
        finally:
            os.close(self._fd)


async def until(condition: Callable[[], bool], timeout: float) -> bool:
    """Whether ``condition`` came true within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


async def run_to_end(command: Command, *, stdin: int = asyncio.subprocess.DEVNULL) -> int:
    """Run a command once and return its exit code; cancelled, it ends the command first."""
    running = await Leashed.launch(command, stdin=stdin)
    try:
        return await running.process.wait()
    finally:
        await running.end(command.grace_seconds)


async def to_its_end[T](work: Coroutine[object, object, T]) -> T:
    """Await ``work`` wholly even if the caller is cancelled, which then is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except BaseException:  # noqa: BLE001, S110 - task.result() raises it below
            pass
    if cancelled is not None and not task.cancelled():
        task.exception()
        raise cancelled
    return task.result()
