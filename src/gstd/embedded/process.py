"""One child process kept alive, and several of them started in order and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
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
    ``account`` needs the wrapper; such a program starts in ``/`` with ``cwd`` as descriptor 3.
    ``final_codes`` are exit codes by which the program says that starting it again is pointless.
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
    final_codes: frozenset[int] = frozenset()

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
            hard = self.process.returncode is None
            for signum in (
                (signal.SIGKILL,) if hard else (self._command.stop_signal, signal.SIGKILL)
            ):
                if group_is_running(group):
                    send_group(group, signum)
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


async def to_its_end(work: Coroutine[object, object, None]) -> None:
    """Await ``work`` wholly even if the caller is cancelled, which then is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


class State(StrEnum):
    """Where a managed process is in its life."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPED = "stopped"


class Backoff:
    """Pauses between restarts: 0.1 s, doubling to 5 s, from the start again after 10 s of life."""

    def __init__(self) -> None:
        self._next = _FIRST_PAUSE_SECONDS

    def pause(self, lived_seconds: float) -> float:
        """How long to wait after a process that lived so long."""
        if lived_seconds >= _STABLE_SECONDS:
            self._next = _FIRST_PAUSE_SECONDS
        pause = self._next
        self._next = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        return pause


async def _always() -> bool:
    return True


async def _nothing() -> None:
    pass


class ManagedProcess:
    """A child that runs until ``stop()``: when it dies, it is started again.

    ``ready`` is polled after every start. ``before_restart`` runs when the last process and its
    group are gone; an ``EmbeddedError`` or ``OSError`` it raises counts as another death.
    ``on_state`` is called in the event loop at every change of ``state``.
    """

    def __init__(
        self,
        command: Command,
        *,
        ready: Callable[[], Awaitable[bool]] = _always,
        before_restart: Callable[[], Awaitable[None]] = _nothing,
        on_state: Callable[[str, State], None] | None = None,
    ) -> None:
        self.command = command
        self.restarts = 0
        self.pid: int | None = None
        self.state = State.STOPPED
        self._ready = ready
        self._before_restart = before_restart
        self._on_state = on_state
        self._stop_seconds = 10.0
        self._stopping = asyncio.Event()
        self._settled = asyncio.Event()
        self._was_ready = False
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The command's name."""
        return self.command.name

    async def start(self, timeout: float = 30.0, *, adopt: int | None = None) -> None:
        """Start and wait until ready; ``adopt`` takes over a process that already runs.

        Raises ``StartFailedError`` after ``timeout`` seconds or the third death before it was
        ever ready. Whatever is raised, no process is left.
        """
        if self._task is not None:
            raise RuntimeError(f"{self.name} is already started")
        self._stopping.clear()
        self._settled.clear()
        self._was_ready = False
        self._task = asyncio.create_task(self._keep_alive(adopt), name=f"keep {self.name}")
        try:
            await self._first_ready(timeout)
        except BaseException:
            await self.stop()
            raise

    async def _first_ready(self, timeout: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), timeout)
        if not self._was_ready:
            detail = log_tail(self.command.log)
            raise StartFailedError(f"{self.name} did not become ready.\n{detail}".strip())

    async def stop(self, timeout: float = 10.0) -> None:
        """Stop signal, then SIGKILL after ``timeout`` seconds; returns when the process is gone.

        Harmless when it is not running. A cancelled call still stops the process.
        """
        if self._task is None:
            return
        self._stop_seconds = timeout
        self._stopping.set()
        await to_its_end(self._joined(self._task))

    async def _joined(self, task: asyncio.Task[None]) -> None:
        try:
            with suppress(asyncio.CancelledError):
                await task
        finally:
            if self._task is task:
                self._task = None

    async def _keep_alive(self, adopt: int | None) -> None:
        backoff = Backoff()
        deaths = 0
        try:
            while True:
                started = time.monotonic()
                code = await self._live(adopt)
                adopt = None
                deaths += 1
                hopeless = deaths >= _ATTEMPTS_TO_START and not self._was_ready
                if self._stopping.is_set() or hopeless or code in self.command.final_codes:
                    return
                self.restarts += 1
                self._enter(State.RESTARTING)
                if await self._asked_to_stop_within(backoff.pause(time.monotonic() - started)):
                    return
        finally:
            self._enter(State.STOPPED)
            self._settled.set()

    async def _live(self, adopt: int | None) -> int | None:
        """One life, from the start to the end of the last process of its group: its exit code."""
        try:
            if self.state is State.RESTARTING:
                await self._before_restart()
            running = await Leashed.launch(self.command, adopt=adopt)
        except (OSError, EmbeddedError):
            return None
        self.pid = running.process.pid
        self._enter(State.STARTING)
        waits = [
            asyncio.create_task(running.process.wait()),
            asyncio.create_task(self._stopping.wait()),
        ]
        readiness = asyncio.create_task(self._become_ready())
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (readiness, *waits):
                task.cancel()
            self.pid = None
            await running.end(self._stop_seconds)
        return running.process.returncode

    async def _become_ready(self) -> None:
        while True:
            with suppress(OSError):
                if await self._ready():
                    break
            await asyncio.sleep(_POLL_SECONDS)
        self._was_ready = True
        self._enter(State.READY)
        self._settled.set()

    async def _asked_to_stop_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    def _enter(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            if self._on_state is not None:
                self._on_state(self.name, state)


class Service(Protocol):
    """What a supervisor starts and stops: a server, or a process of ours."""

    @property
    def name(self) -> str: ...

    async def start(self) -> object: ...

    async def stop(self) -> None: ...


async def _stop_together(services: Sequence[Service]) -> None:
    """Stop them all, whatever one of them raises; then raise the first error."""
    ends = await asyncio.gather(*(service.stop() for service in services), return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            raise end


class Supervisor:
    """Services started in order and stopped in reverse order, none of them left behind.

    Those that one call of ``start`` was given do not need each other and stop together. Use it as
    a context: leaving it, by whatever way, stops everything, even when one stop fails
    or the caller is cancelled meanwhile.
    """

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def start(self, *services: Service) -> None:
        """Start these one after the other, each once the one before it is ready.

        Raises what a start raises; the services started before keep running until ``stop()``.
        """
        started: list[Service] = []
        self._stack.push_async_callback(_stop_together, started)
        for service in services:
            started.append(service)
            await service.start()

    async def stop(self) -> None:
        """Stop everything, the last started first. Raises the last error of a stop."""
        await to_its_end(self._stack.aclose())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
