"""The rows of tasks, attempts and referee runs as the Structs of ``model``, and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from gstd.database.connection import Connection, to_structs
from gstd.database.notebook import note_queued
from gstd.database.sql import load_queries
from gstd.kernel.ids import new_id
from gstd.tasks.model import (
    Attempt,
    AttemptState,
    Decision,
    RefereeRun,
    Result,
    RunState,
    Step,
    Task,
    Verdict,
)

sql = load_queries("gstd.tasks")


async def lock_tasks(connection: Connection, task_ids: Sequence[UUID]) -> list[Task]:
    """The tasks of these that are not final, locked in order of id.

    They are read after they are locked: a lock that was waited for would show its job as it was
    before, and a cancelled job as open.
    """
    await connection.execute(sql["lock_tasks"], task_ids)
    return await locked_tasks(connection, task_ids)


async def locked_tasks(connection: Connection, task_ids: Sequence[UUID]) -> list[Task]:
    """The tasks of these that are not final. The running transaction has locked them before."""
    return to_structs(await connection.fetch(sql["locked_tasks"], task_ids), Task)


async def attempts_of(
    connection: Connection, task_ids: Sequence[UUID]
) -> dict[UUID, list[Attempt]]:
    """The attempts of each task's present revision, oldest first."""
    found: dict[UUID, list[Attempt]] = defaultdict(list)
    for row in await connection.fetch(sql["attempts_of"], task_ids):
        found[row["task_id"]].append(
            Attempt(
                id=row["id"],
                device_id=row["device_id"],
                account_id=row["account_id"],
                state=AttemptState(row["state"]),
                verdict=Verdict(row["verdict"]) if row["verdict"] else None,
                decided_at=row["decided_at"],
                result=_result(dict(row)),
                claimed_at=row["claimed_at"],
                submitted_at=row["submitted_at"],
            )
        )
    return found


async def runs_of(connection: Connection, task_ids: Sequence[UUID]) -> dict[UUID, RefereeRun]:
    """The referee's run of each task's work, where there is one."""
    return {
        row["task_id"]: RefereeRun(
            id=row["id"],
            state=RunState(row["state"]),
            asked_by=row["asked_by"],
            result=_result(dict(row)),
        )
        for row in await connection.fetch(sql["runs_of"], task_ids)
    }


async def ask_referee(connection: Connection, task_ids: Sequence[UUID], now: datetime) -> bool:
    """Have the work of these tasks run again. True when some of it is already known."""
    ids = [new_id() for _ in task_ids]
    rows = await connection.fetch(sql["ask_referee"], task_ids, ids, now)
    return any(row["state"] == RunState.DONE for row in rows)


async def write_steps(connection: Connection, steps: Mapping[UUID, Step], now: datetime) -> None:
    """Write the new states of tasks in one statement."""
    note_queued(steps)
    values = list(steps.values())
    results = [step.result for step in values]
    await connection.execute(
        sql["update_tasks"],
        list(steps),
        [step.state.value for step in values],
        [step.reason for step in values],
        [step.wanted for step in values],
        [step.retries for step in values],
        [step.available_at for step in values],
        [result and result.result_hash for result in results],
        [result and result.status for result in results],
        [result and result.exit_code for result in results],
        [result and result.fuel for result in results],
        [result and result.output_hash for result in results],
        [result and result.output_bytes for result in results],
        now,
        [step.is_proven for step in values],
    )


async def write_decisions(
    connection: Connection, decisions: Sequence[Decision], now: datetime
) -> None:
    """Write how attempts end in one statement."""
    if decisions:
        await connection.execute(
            sql["decide_attempts"],
            [decision.attempt.id for decision in decisions],
            [decision.state.value for decision in decisions],
            [decision.verdict.value for decision in decisions],
            now,
        )


def _result(row: Mapping[str, Any]) -> Result | None:
    if row["result_hash"] is None:
        return None
    return Result(
        result_hash=row["result_hash"],
        status=row["status"],
        exit_code=row["exit_code"],
        fuel=row["fuel"],
        output_hash=row["output_hash"],
        output_bytes=row["output_bytes"],
    )
