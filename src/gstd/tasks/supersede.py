"""A result that others were built on is revised: they are superseded and run anew.

Their workers keep their pay. Restitution pays for the reruns, as far as it reaches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from gstd.database.connection import Connection, to_structs
from gstd.events.service import Event, append
from gstd.kernel.ids import new_id
from gstd.kernel.settings import Policy
from gstd.ledger import repair
from gstd.tasks import store
from gstd.tasks.advance import Move, write_moves
from gstd.tasks.model import (
    AttemptState,
    Decision,
    Step,
    Task,
    TaskState,
    Verdict,
    is_closing,
)
from gstd.tasks.store import sql

STALE_AT_ONCE = 200

UNFUNDED = "superseded: what it was built on was revised, and nothing pays for another run"
OVER = "superseded: what it was built on was revised after its job had ended"
AGAIN = "superseded: waits for what it was built on to be run again"


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A task that may have been built on a revised result."""

    id: UUID
    state: TaskState
    root: UUID
    index: int
    stale: bool
    has_results: bool
    task_lock: int
    left: int


async def supersede_descendants(
    connection: Connection, task_ids: Sequence[UUID], policy: Policy, now: datetime
) -> list[UUID]:
    """Supersede everything that was built on these tasks' results; returns what was superseded.

    Comes first in the transaction that revises them: it locks their descendants' jobs, then them
    and their descendants in order of id. A descendant goes back to waiting as its next revision;
    one whose results are being verified is judged and paid first (``supersede_stale``). One that
    was accepted needs its whole lock anew from restitution, or it has failed for good, and what
    restitution still had goes to its requester.
    """
    await _lock(connection, task_ids)
    return await _supersede(connection, await _ranges(connection, task_ids), [], policy, now)


async def supersede_stale(connection: Connection, policy: Policy, now: datetime) -> int:
    """Supersede what was being verified when its input was revised; returns how many."""
    rows = await connection.fetch(sql["stale_tasks"], STALE_AT_ONCE)
    ids = [row["id"] for row in rows]
    if not ids:
        return 0
    await _lock(connection, ids)
    await connection.execute(sql["not_stale"], ids)
    first = await connection.fetch(sql["built"], ids)
    await _supersede(connection, ([], [], []), to_structs(first, Built), policy, now)
    return len(ids)


Ranges = tuple[list[UUID], list[int], list[int]]


async def _ranges(connection: Connection, ids: Sequence[UUID]) -> Ranges:
    return _places(to_structs(await connection.fetch(sql["built"], ids), Built))


def _places(tasks: Sequence[Built]) -> Ranges:
    indexes = [task.index for task in tasks]
    return [task.root for task in tasks], indexes, indexes


async def _lock(connection: Connection, ids: Sequence[UUID]) -> None:
    """Lock everything that could be built on these: it may be opening just now."""
    every, ranges = set(ids), await _ranges(connection, ids)
    while ranges[0]:
        rows = await connection.fetch(sql["children_of"], *ranges, None)
        new = [row["id"] for row in rows if row["id"] not in every]
        every.update(new)
        ranges = await _ranges(connection, new)
    await connection.execute(sql["lock_jobs_of"], list(every))
    await connection.execute(sql["lock_any_tasks"], list(every))


async def _supersede(
    connection: Connection, ranges: Ranges, found: list[Built], policy: Policy, now: datetime
) -> list[UUID]:
    """Level by level: whoever read a result that is superseded is superseded too."""
    seen: dict[UUID, Built] = {}
    while found or ranges[0]:
        if ranges[0]:
            rows = await connection.fetch(sql["children_of"], *ranges, False)
            ids = [row["id"] for row in rows]
            found = to_structs(await connection.fetch(sql["built"], ids), Built)
        new = [task for task in found if task.id not in seen and _is_alive(task)]
        seen.update({task.id: task for task in new})
        ranges, found = _places([task for task in new if _was_read(task)]), []
    verifying = [task.id for task in seen.values() if not _was_read(task) and task.has_results]
    await connection.execute(sql["stale"], verifying)
    targets = [task for task in seen.values() if _was_read(task) or not task.has_results]
    await _reopen(connection, targets, policy, now)
    return list(seen)


def _is_alive(task: Built) -> bool:
    """What ended without a result has none to take back."""
    ended = task.state in (TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED)
    return not ended and not task.stale


def _was_read(task: Built) -> bool:
    return task.state is TaskState.ACCEPTED


async def _reopen(
    connection: Connection, targets: Sequence[Built], policy: Policy, now: datetime
) -> None:
    """Let tasks wait again as their next revision, where something pays for that."""
    ids = sorted(task.id for task in targets)
    if not ids:
        return
    tasks = to_structs(await connection.fetch(sql["any_tasks"], ids), Task)
    over = {task.id for task in tasks if task.state is TaskState.ACCEPTED and is_closing(task, now)}
    unpaid = await _unpaid(connection, [task for task in targets if task.id not in over], now)
    attempts = await store.attempts_of(connection, ids)
    moves = []
    for task in tasks:
        if task.id in over or task.id in unpaid:
            reason = OVER if task.id in over else UNFUNDED
            moves.append(Move(task, Step(state=TaskState.FAILED, reason=reason), None))
            continue
        dropped = tuple(
            Decision(attempt=item, state=AttemptState.CANCELLED, verdict=Verdict.TASK_ENDED)
            for item in attempts.get(task.id, [])
            if item.state is AttemptState.RUNNING
        )
        step = Step(state=TaskState.BLOCKED, reason=AGAIN, decisions=dropped)
        moves.append(Move(task, step, None))
    await write_moves(connection, moves, policy, now)
    again = [move.task.id for move in moves if not move.step.is_final]
    await connection.execute(sql["next_revision"], again)
    await connection.execute(sql["reopen_jobs"], again)
    await append(connection, list(_events(moves)), now)


async def _unpaid(connection: Connection, targets: Iterable[Built], now: datetime) -> set[UUID]:
    """Which of these restitution cannot pay for. What has its lock still needs nothing."""
    short = {task.id: task.task_lock - task.left for task in targets if task.left < task.task_lock}
    claims = [repair.Claim(new_id(), task_id, short[task_id]) for task_id in sorted(short)]
    paid = await repair.restitute(connection, claims, now) if claims else {}
    return {claim.task_id for claim in claims if paid.get(claim.ref, 0) < claim.amount}


def _events(moves: Sequence[Move]) -> Iterable[Event]:
    for move in moves:
        yield Event(
            kind="task.superseded",
            accounts=(move.task.owner,),
            job_id=move.task.job_id,
            task_id=move.task.id,
            data={"revision": move.task.revision, "reason": move.step.reason},
        )
