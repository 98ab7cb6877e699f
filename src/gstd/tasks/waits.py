"""What blocked tasks wait for, in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from uuid import UUID

from gstd.database.connection import Connection, to_structs
from gstd.protocol.graphs import ParentView
from gstd.tasks.store import sql


async def parents_of_job(connection: Connection, root: UUID) -> list[ParentView]:
    """The jobs that a family waits for, itself left out, in the order it reads them."""
    return to_structs(await connection.fetch(sql["parent_views"], root), ParentView)


async def reasons(connection: Connection, tasks: Sequence[UUID]) -> dict[UUID, str]:
    """What each of these tasks waits for, if it is blocked."""
    if not tasks:
        return {}
    parts: dict[UUID, list[str]] = defaultdict(list)
    for row in await connection.fetch(sql["task_waits"], tasks):
        parts[row["id"]].append(_words(row["left"], row["tasks"], row["parent"]))
    return {task: f"waits for {', '.join(words)}" for task, words in parts.items()}


def of_jobs(parents: Iterable[ParentView]) -> str:
    """The same of a job, or nothing if all it waits for is there."""
    words = [_words(item.left, item.tasks, item.job_id) for item in parents if item.left]
    return f"waits for {', '.join(words)}" if words else ""


def _words(left: int, tasks: int, job: UUID) -> str:
    return f"{left} of {tasks} task{'' if tasks == 1 else 's'} of job {job}"
