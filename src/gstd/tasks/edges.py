"""Edges of posted jobs: what they name is looked up and written down by family and index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from uuid import UUID

import msgspec

from gstd.database.connection import Connection
from gstd.kernel.settings import Policy
from gstd.protocol.graphs import Shape, TaskRef
from gstd.protocol.jobs import JobRequest
from gstd.tasks.errors import InvalidJobError, ParentNotFoundError
from gstd.tasks.graph import check_graph, parents_of
from gstd.tasks.store import sql


class Posted(msgspec.Struct, frozen=True):
    """A job of a request under the id it will have."""

    id: UUID
    request: JobRequest
    tasks: int


class Parent(msgspec.Struct, frozen=True):
    """What may be waited for: the first job of a family, and how many tasks it has."""

    root: UUID
    tasks: int


class TaskEdge(msgspec.Struct, frozen=True):
    """A task waits for another one."""

    child: UUID
    child_index: int
    place: int
    parent: UUID
    parent_index: int


async def resolve(
    connection: Connection, owner: UUID, posted: Mapping[str, Posted], policy: Policy
) -> dict[str, Parent]:
    """Everything these jobs name in their edges.

    Raises ``GraphTooLargeError``, ``GraphCycleError``, ``ParentNotFoundError`` or
    ``InvalidJobError``.
    """
    check_graph({name: job.request for name, job in posted.items()}, policy)
    parents = {name: Parent(job.id, job.tasks) for name, job in posted.items()}
    outside = {name for job in posted.values() for name in _names(job.request)} - set(parents)
    if outside:
        ids = {name: _id_of(name) for name in outside}
        rows = await connection.fetch(sql["parent_jobs"], list(ids.values()), owner)
        found = {row["id"]: Parent(row["root"], row["task_count"]) for row in rows}
        for name, job_id in ids.items():
            if job_id not in found:
                raise ParentNotFoundError(f"you have no job {name}")
            parents[name] = found[job_id]
    for name, job in posted.items():
        _check_indexes(name, job, parents)
    return parents


async def connect(
    connection: Connection, posted: Mapping[str, Posted], parents: Mapping[str, Parent]
) -> None:
    """Write the edges of jobs that were just inserted, before any of their rows is made."""
    for name, job in posted.items():
        single = list(_task_edges(name, job, parents))
        shapes = [(parents[edge.job].root, edge.shape.value) for edge in job.request.after]
        shapes += [(parent, "some") for parent in dict.fromkeys(edge.parent for edge in single)]
        if shapes:
            await connection.execute(
                sql["insert_job_edges"],
                [job.id] * len(shapes),
                list(range(len(shapes))),
                [parent for parent, _ in shapes],
                [shape for _, shape in shapes],
            )
        if single:
            await connection.execute(
                sql["insert_task_edges"],
                [edge.child for edge in single],
                [edge.child_index for edge in single],
                [edge.place for edge in single],
                [edge.parent for edge in single],
                [edge.parent_index for edge in single],
            )


async def waiting_indexes(connection: Connection, root: UUID, indexes: Sequence[int]) -> set[int]:
    """At which of these indexes tasks of a family wait for something."""
    rows = await connection.fetch(sql["waiting_indexes"], root, indexes)
    return {row["index"] for row in rows}


async def tell_unmade(connection: Connection, jobs: Sequence[UUID]) -> None:
    """Let those that wait for rows of these jobs learn that they will never be made."""
    await connection.execute(sql["tell_unmade"], jobs)


def _names(request: JobRequest) -> Iterator[str]:
    yield from (edge.job for edge in request.after)
    for item in request.inputs or ():
        yield from (parent.job for parent in parents_of(item) if isinstance(parent, TaskRef))


def _id_of(name: str) -> UUID:
    try:
        return UUID(name)
    except ValueError:
        raise ParentNotFoundError(f"no job of this request is called {name!r}") from None


def _check_indexes(name: str, job: Posted, parents: Mapping[str, Parent]) -> None:
    """Raise ``InvalidJobError`` for edges to tasks that cannot exist."""
    for edge in job.request.after:
        theirs = parents[edge.job].tasks
        if edge.shape is Shape.ONE_TO_ONE and theirs != job.tasks:
            raise InvalidJobError(
                f"{name} has {job.tasks} tasks and {edge.job} {theirs}: one to one needs as many"
            )
    for index, item in enumerate(job.request.inputs or ()):
        for parent, at in _places(name, parents_of(item)):
            if at >= parents[parent].tasks:
                raise InvalidJobError(
                    f"{name}[{index}] waits for {parent}[{at}], which does not exist"
                )


def _places(name: str, refs: Iterable[int | TaskRef]) -> Iterator[tuple[str, int]]:
    """Names and indexes; a mere index is of the same job."""
    for ref in refs:
        yield (name, ref) if isinstance(ref, int) else (ref.job, ref.index)


def _task_edges(name: str, job: Posted, parents: Mapping[str, Parent]) -> Iterator[TaskEdge]:
    for index, item in enumerate(job.request.inputs or ()):
        for place, (parent, at) in enumerate(_places(name, parents_of(item))):
            yield TaskEdge(job.id, index, place, parents[parent].root, at)
