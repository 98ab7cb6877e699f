"""The referee: runs work again in the platform's own sandbox, each piece of work once."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
import structlog

from gstd.blobs.store import Blobs
from gstd.bus.bus import Bus, Hint
from gstd.database.connection import Connection, Database, to_structs
from gstd.database.sql import load_queries
from gstd.kernel.clock import Clock
from gstd.kernel.errors import GstdError
from gstd.kernel.settings import Policy
from gstd.protocol.execution import Limits, Outcome, TaskInput
from gstd.sandbox.runner import Sandbox
from gstd.tasks.advance import advance
from gstd.tasks.model import Result
from gstd.verification.results import Work, result_of

log = structlog.get_logger()
_sql = load_queries("gstd.verification")
_decode_input = msgspec.msgpack.Decoder(TaskInput).decode

IDLE_S = 1.0
"""How long an idle referee waits for a hint before it looks again."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run taken from the queue; ``tries`` is its fencing token."""

    id: UUID
    tries: int
    asked_by: UUID
    module_hash: bytes
    metered_hash: bytes
    profile: str
    input_hash: bytes
    input: bytes
    limits: Limits

    def work(self) -> Work:
        """What is run, in the words that results are hashed by."""
        return Work(
            attempt_id=self.id,
            task_id=self.asked_by,
            revision=0,
            module_hash=self.module_hash,
            metered_hash=self.metered_hash,
            profile=self.profile,
            input_hash=self.input_hash,
            limits=self.limits,
        )


async def take_runs(connection: Connection, count: int, policy: Policy, now: datetime) -> list[Run]:
    """Take up to ``count`` runs that wait or whose referee died, oldest first."""
    lease_until = now + timedelta(milliseconds=policy.referee_lease_ms)
    rows = await connection.fetch(_sql["take_runs"], now, lease_until, count)
    return to_structs(rows, Run)


async def finish_run(connection: Connection, run: Run, result: Result, now: datetime) -> None:
    """Record what a run gave. A referee whose lease was lost changes nothing."""
    await connection.execute(
        _sql["finish_run"],
        run.id,
        run.tries,
        result.result_hash,
        result.status,
        result.exit_code,
        result.fuel,
        result.output_hash,
        result.output_bytes,
        now,
    )


async def fail_run(
    connection: Connection, run: Run, error: str, policy: Policy, now: datetime
) -> None:
    """Put a run back, or end it after too many tries."""
    await connection.execute(_sql["fail_run"], run.id, run.tries, error, policy.referee_tries, now)


async def judge_waiting(connection: Connection, run_id: UUID, policy: Policy, now: datetime) -> int:
    """Advance every task that waits for this run; returns how many moved."""
    rows = await connection.fetch(_sql["tasks_waiting_for"], run_id)
    return len(await advance(connection, [row["id"] for row in rows], policy, now))


class Referee:
    """Runs the queue in ``slots`` children at a time until it is cancelled."""

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

    async def serve(self) -> None:
        """Take and run until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._slots):
                group.create_task(self._serve_slot())

    async def _serve_slot(self) -> None:
        with self._bus.listener(Hint.REFEREE) as hint:
            while True:
                try:
                    if await self.run_once():
                        continue
                except GstdError as error:
                    log.warning("referee_paused", code=error.code, detail=error.detail)
                try:
                    await asyncio.wait_for(hint.wait(), IDLE_S)
                except TimeoutError:
                    continue
                finally:
                    hint.clear()

    async def run_once(self) -> bool:
        """Take and run one piece of work; False when there was none."""
        runs = await self._database.run(
            lambda connection: take_runs(connection, 1, self._policy, self._clock.now())
        )
        for run in runs:
            await self._run(run)
        return bool(runs)

    async def _run(self, run: Run) -> None:
        try:
            outcome = await self._execute(run)
        except GstdError as error:
            message = f"{error.code}: {error.detail}"
            log.warning("referee_run_failed", run=str(run.id), error=message)
            await self._database.run(
                lambda connection: fail_run(
                    connection, run, message, self._policy, self._clock.now()
                )
            )
        else:
            await self._blobs.put(outcome.stdout)
            result = result_of(run.work(), outcome)
            await self._database.run(
                lambda connection: finish_run(connection, run, result, self._clock.now())
            )
        # The run is committed before tasks are locked: see ``ask_referee``.
        await self._database.run(
            lambda connection: judge_waiting(connection, run.id, self._policy, self._clock.now())
        )
        await self._bus.publish(Hint.OUTBOX, Hint.QUEUE, Hint.TASKS)

    async def _execute(self, run: Run) -> Outcome:
        module = await self._blobs.get(run.metered_hash)
        return await self._sandbox.run(module, _decode_input(run.input), run.limits)
