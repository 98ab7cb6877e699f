"""Runs modules for the rest of the program: the one door into the sandbox.

A run costs one forked child. Hostile modules end as an outcome or as an error; the calling
process never loads the engine and survives whatever they do.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from weakref import WeakValueDictionary

import structlog

from gstd.protocol.execution import Limits, Outcome, TaskInput
from gstd.sandbox.errors import (
    REFUSALS,
    HostFault,
    ModuleRefused,
    ModuleTooLarge,
    WallClockExceeded,
)
from gstd.sandbox.inspect import MAX_MODULE_BYTES
from gstd.sandbox.link import ZygoteLink
from gstd.sandbox.profile import PROFILE
from gstd.sandbox.walls import Walls
from gstd.sandbox.wire import (
    ENCODER,
    Answer,
    Compile,
    Compiled,
    Done,
    Fault,
    Job,
    NotCompiled,
    Refused,
    Run,
    WallClock,
)

__all__ = ["PROFILE", "Sandbox"]

log = structlog.get_logger()

_GRACE_SECONDS: Final = 30.0
"""How much later than its own deadlines the zygote may answer before it counts as stuck."""

COMPILE_CPU_SECONDS: Final = 20
"""A module that takes longer to compile is refused."""

_COMPILE_SECONDS: Final = 60.0
_HASH_INLINE_BYTES: Final = 1 << 20


class Sandbox:
    """Runs at most ``slots`` modules at a time; further calls wait for a free slot.

    ``cache_dir`` keeps compiled modules; it is made private to this user. A
    module that needs more than ``compile_cpu_seconds`` of processor time to compile is refused.
    Use as ``async with Sandbox(folder) as box:``.
    """

    def __init__(
        self,
        cache_dir: Path,
        slots: int = 1,
        *,
        compile_cpu_seconds: int = COMPILE_CPU_SECONDS,
    ) -> None:
        self._folder = cache_dir.absolute()
        self._slots = asyncio.Semaphore(slots)
        self._compile_cpu_seconds = compile_cpu_seconds
        self._link: ZygoteLink | None = None
        self._starting = asyncio.Lock()
        self._closed = False
        self._compiling: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __aenter__(self) -> Self:
        walls = (await self._connect()).walls
        if walls.missing:  # said once: a zygote that replaces a dead one finds the same kernel
            log.warning(
                "sandbox_cage_weak",
                missing=[wall.value for wall in walls.missing],
                text=walls.words,
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        async with self._starting:
            self._closed = True  # whoever still waits for a slot must not start another zygote
            if self._link is not None:
                await self._link.close()

    @property
    def zygote_pid(self) -> int | None:
        """Process id of the fork server, for supervision."""
        return None if self._link is None else self._link.pid

    @property
    def walls(self) -> Walls:
        """Which walls of the kernel stand around every module; none before the start."""
        return Walls(()) if self._link is None else self._link.walls

    async def run(self, module: bytes | Path, task: TaskInput, limits: Limits) -> Outcome:
        """Run a module on one input and tell how it ended.

        Raises ``ModuleRefused`` for a module that may not run, ``WallClockExceeded`` when
        ``limits.wall_ms`` passes, and ``HostFault`` when this machine fails. Compiling, which
        only a module's first run needs, does not count against the wall clock. Cancelling
        kills the child at once.
        """
        data, sha256 = await _identify(module)
        job = ENCODER.encode(Job(task.args, task.stdin, task.seed, limits))

        def request(request_id: int) -> Run:
            return Run(
                id=request_id,
                sha256=sha256,
                job=job,
                wall_ms=limits.wall_ms,
                memory_bytes=limits.memory_bytes,
                output_bytes=limits.output_bytes,
            )

        seconds = limits.wall_ms / 1000
        async with self._slots:
            answer = await self._ask(request, seconds)
            if isinstance(answer, NotCompiled):
                await self._compile(data, sha256)
                answer = await self._ask(request, seconds)
        if isinstance(answer, Done):
            return answer.outcome
        raise _error(answer)

    async def compile_check(self, data: bytes) -> None:
        """Inspect and compile a module, as the first run of it would.

        Raises ``ModuleDoesNotCompile`` or another ``ModuleRefused`` with the reason, and
        ``HostFault`` when this machine fails.
        """
        found, sha256 = await _identify(data)
        async with self._slots:
            await self._compile(found, sha256)

    async def _compile(self, data: bytes, sha256: str) -> None:
        lock = self._compiling.setdefault(sha256, asyncio.Lock())
        async with lock:  # whoever waited finds the artefact made and is answered at once
            answer = await self._ask(
                lambda request_id: Compile(id=request_id, sha256=sha256, module=data),
                _COMPILE_SECONDS,
            )
        if not isinstance(answer, Compiled):
            raise _error(answer)

    async def _ask(self, make: Callable[[int], Compile | Run], seconds: float) -> Answer:
        link = await self._connect()
        return await link.ask(make(link.next_id()), seconds + _GRACE_SECONDS)

    async def _connect(self) -> ZygoteLink:
        async with self._starting:
            if self._closed:
                raise HostFault("The sandbox is closed.")
            if self._link is None or self._link.dead:
                if self._link is not None:
                    await self._link.close()
                self._link = await ZygoteLink.start(self._folder, self._compile_cpu_seconds)
            return self._link


async def _identify(module: bytes | Path) -> tuple[bytes, str]:
    """A module's bytes and its SHA-256, without blocking the loop for large ones."""
    if isinstance(module, bytes) and len(module) <= _HASH_INLINE_BYTES:
        return module, hashlib.sha256(module).hexdigest()
    return await asyncio.to_thread(_read_and_hash, module)


def _read_and_hash(module: bytes | Path) -> tuple[bytes, str]:
    data = module if isinstance(module, bytes) else module.read_bytes()
    if len(data) > MAX_MODULE_BYTES:
        raise ModuleTooLarge(f"The module has {len(data)} bytes; at most {MAX_MODULE_BYTES} fit.")
    return data, hashlib.sha256(data).hexdigest()


def _error(answer: Answer) -> Exception:
    if isinstance(answer, Refused):
        return REFUSALS.get(answer.code, ModuleRefused)(answer.detail)
    if isinstance(answer, WallClock):
        return WallClockExceeded()
    return HostFault(answer.detail if isinstance(answer, Fault) else "The zygote is confused.")
