"""The referee's queue: one row per piece of work, taken under a lease, recorded in batches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from gstd.database.connection import Connection, to_structs
from gstd.database.sql import load_queries
from gstd.kernel.settings import Policy
from gstd.protocol.execution import Limits, TaskInput
from gstd.tasks.advance import advance
from gstd.tasks.model import Result, RunState
from gstd.verification.results import Work

_sql = load_queries("gstd.verification")
_decode_input = msgspec.msgpack.Decoder(TaskInput).decode


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

    def task_input(self) -> TaskInput:
        """What the module reads."""
        return _decode_input(self.input)

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


class Finished(msgspec.Struct, frozen=True):
    """A run and what it gave."""

    run: Run
    result: Result


class Failed(msgspec.Struct, frozen=True):
    """A run and why it gave nothing."""

    run: Run
    error: str


def _lease_end(policy: Policy, now: datetime) -> datetime:
    return now + timedelta(milliseconds=policy.referee_lease_ms)


async def take_runs(connection: Connection, count: int, policy: Policy, now: datetime) -> list[Run]:
    """Take up to ``count`` runs that wait or whose referee died, oldest first."""
    lease_end = _lease_end(policy, now)
    rows = await connection.fetch(_sql["take_runs"], now, lease_end, count, policy.referee_tries)
    return to_structs(rows, Run)


async def abandon_runs(connection: Connection, policy: Policy, now: datetime) -> int:
    """End runs that killed every referee that took them; the reconciler judges their tasks."""
    return len(await connection.fetch(_sql["abandon_runs"], now, policy.referee_tries))


async def keep_runs(
    connection: Connection, runs: Sequence[Run], policy: Policy, now: datetime
) -> None:
    """Extend the leases of runs that are under way."""
    await _lock(connection, runs)
    await connection.execute(_sql["keep_runs"], *_tokens(runs), _lease_end(policy, now))


async def return_runs(connection: Connection, runs: Sequence[Run]) -> None:
    """Put runs back that were taken and not run, as if they had never been taken."""
    await _lock(connection, runs)
    await connection.execute(_sql["return_runs"], *_tokens(runs))


async def record_runs(
    connection: Connection, ends: Sequence[Finished | Failed], policy: Policy, now: datetime
) -> None:
    """Record how runs ended. A referee whose lease was lost changes nothing.

    A failed run goes back to the queue until its tries are spent.
    """
    await _lock(connection, [end.run for end in ends])
    finished = [end for end in ends if isinstance(end, Finished)]
    failed = [end for end in ends if isinstance(end, Failed)]
    if finished:
        await connection.execute(
            _sql["finish_runs"],
            *_tokens([end.run for end in finished]),
            [end.result.result_hash for end in finished],
            [end.result.status for end in finished],
            [end.result.exit_code for end in finished],
            [end.result.fuel for end in finished],
            [end.result.output_hash for end in finished],
            [end.result.output_bytes for end in finished],
            now,
        )
    if failed:
        errors = [end.error for end in failed]
        await connection.execute(
            _sql["fail_runs"],
            *_tokens([end.run for end in failed]),
            errors,
            policy.referee_tries,
            now,
        )


async def judge_waiting(
    connection: Connection, runs: Sequence[UUID], policy: Policy, now: datetime
) -> int:
    """Advance every task that waits for one of these runs; returns how many moved.

    Comes in a transaction after the one that recorded them, because tasks are locked before
    runs: see ``ask_referee``.
    """
    rows = await connection.fetch(_sql["tasks_waiting_for"], runs)
    return len(await advance(connection, [row["id"] for row in rows], policy, now))


async def _lock(connection: Connection, runs: Sequence[Run]) -> None:
    await connection.execute(_sql["lock_runs"], [run.id for run in runs])


def _tokens(runs: Sequence[Run]) -> tuple[list[UUID], list[int]]:
    return [run.id for run in runs], [run.tries for run in runs]


async def open_runs(connection: Connection) -> dict[RunState, int]:
    """How many runs wait for the referee, and how many it has under way."""
    rows = await connection.fetch(_sql["count_open_runs"])
    counted = {RunState(row["state"]): row["runs"] for row in rows}
    return {state: counted.get(state, 0) for state in (RunState.QUEUED, RunState.RUNNING)}
