"""The fork server: ``python -m gstd.sandbox.zygote CACHE_FOLDER COMPILE_CPU_SECONDS``.

It loads the engine once, but makes no ``Engine`` and runs nothing itself. Every request forks a
child that is killed when its time is up, when the request is cancelled and when this process
dies. Requests come on standard input, answers leave on standard output (``wire``); the end of
standard input ends everything. One thread, because a fork copies only one.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from gstd.protocol.execution import STDERR_BYTES
from gstd.sandbox import cage
from gstd.sandbox.cache import ArtefactCache
from gstd.sandbox.child import compile_module, run_module
from gstd.sandbox.errors import ModuleDoesNotCompile
from gstd.sandbox.linux import Linux
from gstd.sandbox.profile import PROFILE
from gstd.sandbox.wire import (
    ENCODER,
    FROM_CHILD,
    LENGTH_BYTES,
    REQUESTS,
    Answer,
    Artefact,
    Compile,
    Compiled,
    Done,
    Fault,
    FromChild,
    NotCompiled,
    Ready,
    Refused,
    Request,
    Run,
    WallClock,
    frame,
    frame_length,
)

COMPILE_WALL_SECONDS: Final = 60.0
COMPILE_DATA_BYTES: Final = 1 << 30
MAX_ARTEFACT_BYTES: Final = 512 << 20

RUN_EXTRA_BYTES: Final = 512 << 20
"""Room for Python, the engine and the input beside the module's own memory."""

_READ_BYTES: Final = 1 << 20


class _Child(msgspec.Struct):
    """A living child and what it has said so far."""

    request: Compile | Run
    pid: int
    pipe: int
    deadline: float
    max_bytes: int
    said: bytearray


class Zygote:
    """Reads requests, forks, listens to children, answers."""

    def __init__(self, folder: Path, compile_cpu_seconds: int, requests: int, answers: int) -> None:
        self._cache = ArtefactCache(folder)
        self._compile_cpu_seconds = compile_cpu_seconds
        self._requests = requests
        self._answers = answers
        self._cage = cage.Cage(Linux.here())
        self._children: dict[int, _Child] = {}
        self._unread = bytearray()
        self._selector = selectors.DefaultSelector()
        self._selector.register(requests, selectors.EVENT_READ, None)

    def serve(self) -> None:
        """Work until the parent is gone, then leave no child behind."""
        try:
            self._answer(Ready(PROFILE, self._cage.walls))
            while self._turn():
                self._kill_late()
        except BrokenPipeError:
            pass
        finally:
            for child in list(self._children.values()):
                self._bury(child)

    def _turn(self) -> bool:
        """Wait for one thing to happen; False when the parent is gone."""
        now = time.monotonic()
        nearest = min((c.deadline for c in self._children.values()), default=None)
        wait = None if nearest is None else max(0.0, nearest - now)
        for key, _ in self._selector.select(wait):
            if key.data is None:
                if not self._read_requests():
                    return False
            elif key.data.request.id in self._children:
                self._listen(key.data)
        return True

    def _answer(self, message: Ready | Answer) -> None:
        rest = memoryview(frame(message))
        while rest:
            rest = rest[os.write(self._answers, rest) :]

    def _read_requests(self) -> bool:
        data = os.read(self._requests, _READ_BYTES)
        self._unread += data
        while len(self._unread) >= LENGTH_BYTES:
            end = LENGTH_BYTES + frame_length(self._unread)
            if len(self._unread) < end:
                break
            request = REQUESTS.decode(bytes(self._unread[LENGTH_BYTES:end]))
            del self._unread[:end]
            self._handle(request)
        return bool(data)

    def _handle(self, request: Request) -> None:
        if isinstance(request, Compile):
            self._compile(request)
        elif isinstance(request, Run):
            self._run(request)
        elif (child := self._children.get(request.id)) is not None:
            self._bury(child)

    def _compile(self, request: Compile) -> None:
        if self._cache.get(request.sha256) is not None:
            self._answer(Compiled(request.id))
            return
        bounds = cage.Bounds(
            cpu_seconds=self._compile_cpu_seconds,
            data_bytes=COMPILE_DATA_BYTES + self._cache.held_bytes,
        )
        work = partial(compile_module, request.module)
        self._start(request, work, bounds, COMPILE_WALL_SECONDS, MAX_ARTEFACT_BYTES)

    def _run(self, request: Run) -> None:
        artefact = self._cache.get(request.sha256)
        if artefact is None:
            self._answer(NotCompiled(request.id))
            return
        seconds = request.wall_ms / 1000
        extra = RUN_EXTRA_BYTES + self._cache.held_bytes + 4 * len(artefact.code)
        bounds = cage.Bounds(cpu_seconds=int(seconds) + 2, data_bytes=request.memory_bytes + extra)
        most = request.output_bytes + STDERR_BYTES + 4096
        self._start(request, partial(run_module, artefact, request.job), bounds, seconds, most)

    def _start(
        self,
        request: Compile | Run,
        work: Callable[[], FromChild],
        bounds: cage.Bounds,
        seconds: float,
        max_bytes: int,
    ) -> None:
        deadline = time.monotonic() + seconds
        try:
            pipe, pid = self._fork(work, bounds)
        except OSError as error:
            self._answer(Fault(f"No process could be started: {error.strerror}.", request.id))
            return
        child = _Child(request, pid, pipe, deadline, max_bytes, bytearray())
        self._children[request.id] = child
        self._selector.register(pipe, selectors.EVENT_READ, child)

    def _fork(self, work: Callable[[], FromChild], bounds: cage.Bounds) -> tuple[int, int]:
        read_end, write_end = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(read_end)
            raise
        else:
            if pid == 0:
                _live(work, write_end, partial(self._cage.enter, write_end, bounds))
            return read_end, pid
        finally:
            os.close(write_end)

    def _listen(self, child: _Child) -> None:
        data = os.read(child.pipe, _READ_BYTES)
        child.said += data
        if data and len(child.said) <= child.max_bytes:
            return
        status = self._bury(child)
        self._answer(msgspec.structs.replace(self._judge(child, status), id=child.request.id))

    def _kill_late(self) -> None:
        now = time.monotonic()
        for child in [c for c in self._children.values() if c.deadline <= now]:
            self._bury(child)
            if isinstance(child.request, Run):
                self._answer(WallClock(child.request.id))
            else:
                self._answer(Fault("This machine is too busy to compile.", child.request.id))

    def _bury(self, child: _Child) -> int:
        """Make sure the child is dead and tell its wait status."""
        del self._children[child.request.id]
        self._selector.unregister(child.pipe)
        os.close(child.pipe)
        os.kill(child.pid, signal.SIGKILL)
        return os.waitpid(child.pid, 0)[1]

    def _judge(self, child: _Child, status: int) -> Answer:
        """What a dead child's words and end mean."""
        try:
            message: FromChild = FROM_CHILD.decode(child.said)
        except msgspec.MsgspecError:
            return _epitaph(child.request, status)
        request = child.request
        if isinstance(message, Artefact):
            if isinstance(request, Run):
                return Fault("A child answered what it was not asked.")
            self._cache.put(request.sha256, message)
            return Compiled()
        if isinstance(message, NotCompiled):
            self._cache.drop(request.sha256)
        if isinstance(message, Done) and not _fits(request, message):
            return Fault("A child answered more than it may.")
        return message


def _fits(request: Compile | Run, message: Done) -> bool:
    return (
        isinstance(request, Run)
        and len(message.outcome.stdout) <= request.output_bytes
        and len(message.outcome.stderr) <= STDERR_BYTES
    )


def _epitaph(request: Compile | Run, status: int) -> Answer:
    """The answer for a child that died without words."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if isinstance(request, Run):
        if number == signal.SIGXCPU:
            return WallClock()
        return Fault(f"The child died (signal {number}).")
    if number == signal.SIGXCPU:
        text = "Compiling takes too much processor time."
        return Refused(ModuleDoesNotCompile.code, text)
    if number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL):
        text = f"The compiler gave up (signal {number}), mostly for lack of memory or stack."
        return Refused(ModuleDoesNotCompile.code, text)
    return Fault(f"The compiling child died (signal {number}).")


def _live(work: Callable[[], FromChild], pipe: int, enter: Callable[[], None]) -> NoReturn:
    """The whole life of a child. Never returns into the zygote's code."""
    try:
        try:
            enter()
            message: FromChild = work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the module did not do it
            message = Fault(f"The child failed: {type(error).__name__}: {error}"[:500])
        rest = memoryview(ENCODER.encode(message))
        while rest:
            rest = rest[os.write(pipe, rest) :]
    finally:
        os._exit(0)


def main() -> None:
    """Serve the process that started this one."""
    cage.limit_descriptors()
    os.umask(0o077)
    # Nothing that prints or reads by accident may get between the frames.
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    gc.collect()
    gc.freeze()
    Zygote(Path(sys.argv[1]), int(sys.argv[2]), requests, answers).serve()


if __name__ == "__main__":
    main()
