"""The referee: runs work again in the platform's own sandbox, each piece of work once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from gstd.blobs.store import Blobs
from gstd.bus.bus import Bus, Hint
from gstd.database.connection import Connection, Database, DatabaseUnavailableError
from gstd.kernel.clock import Clock
from gstd.kernel.errors import GstdError
from gstd.kernel.settings import Policy
from gstd.sandbox.runner import Sandbox
from gstd.verification.results import result_of
from gstd.verification.runs import (
    Failed,
    Finished,
    Run,
    judge_waiting,
    keep_runs,
    record_runs,
    return_runs,
    take_runs,
)

log = structlog.get_logger()
T = TypeVar("T")

IDLE_S = 1.0
"""How long an idle referee waits for a hint before it looks again."""

AWAY_S = 0.5
"""How long it waits while the database is away."""


class Referee:
    """Runs the queue in ``slots`` children at a time until it is cancelled.

    What ends while an earlier record is being written is recorded together in the next one.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        bus: Bus,
        sandbox: Sandbox,
        policy: Policy,
        clock: Clock,
        slots: int,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._bus = bus
        self._sandbox = sandbox
        self._policy = policy
        self._clock = clock
        self._slots = slots
        self._waiting: asyncio.Queue[Run] = asyncio.Queue(maxsize=slots)
        self._ended: asyncio.Queue[Finished | Failed] = asyncio.Queue()
        self._held: set[Run] = set()
        """What is not recorded. A run may be among them twice: taken anew after its lease ended."""

    async def serve(self) -> None:
        """Take, run and record until cancelled; then give back what is not recorded."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._take())
                group.create_task(self._beat())
                group.create_task(self._record())
                for _ in range(self._slots):
                    group.create_task(self._run())
        finally:
            with contextlib.suppress(GstdError):
                held = list(self._held)
                await self._database.run(lambda connection: return_runs(connection, held))

    async def _take(self) -> None:
        with self._bus.listener(Hint.REFEREE) as hint:
            while True:
                hint.clear()
                runs = await self._patiently(
                    lambda connection: take_runs(
                        connection, self._slots, self._policy, self._clock.now()
                    )
                )
                self._held.update(runs)
                for run in runs:
                    await self._waiting.put(run)
                if not runs:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(hint.wait(), IDLE_S)

    async def _beat(self) -> None:
        """Keep what is held, a third of the lease at a time."""
        while True:
            await asyncio.sleep(self._policy.referee_lease_ms / 3000)
            if self._held:
                await self._patiently(self._keep)

    async def _keep(self, connection: Connection) -> None:
        runs = list(self._held)
        await keep_runs(connection, runs, self._policy, self._clock.now())

    async def _run(self) -> None:
        while True:
            run = await self._waiting.get()
            self._ended.put_nowait(await self._execute(run))

    async def _execute(self, run: Run) -> Finished | Failed:
        try:
            module = await self._blobs.get(run.metered_hash)
            outcome = await self._sandbox.run(module, run.task_input(), run.limits)
            await self._blobs.put(outcome.stdout)
        except GstdError as error:
            log.warning("referee_run_failed", run=str(run.id), code=error.code, detail=error.detail)
            return Failed(run, f"{error.code}: {error.detail}")
        return Finished(run, result_of(run.work(), outcome))

    async def _record(self) -> None:
        while True:
            ends = [await self._ended.get()]
            while not self._ended.empty():
                ends.append(self._ended.get_nowait())
            await self._record_batch(ends)

    async def _record_batch(self, ends: list[Finished | Failed]) -> None:
        runs = [end.run for end in ends]
        ids = [run.id for run in runs]
        await self._patiently(
            lambda connection: record_runs(connection, ends, self._policy, self._clock.now())
        )
        self._held.difference_update(runs)
        await self._patiently(
            lambda connection: judge_waiting(connection, ids, self._policy, self._clock.now())
        )
        await self._bus.publish(Hint.OUTBOX, Hint.QUEUE, Hint.TASKS)

    async def _patiently(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run in a transaction of its own, however long the database is away."""
        while True:
            try:
                return await self._database.run(work)
            except DatabaseUnavailableError:
                await asyncio.sleep(AWAY_S)
