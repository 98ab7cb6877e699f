"""The queue's heads: from PostgreSQL, which knows, or from the index in Valkey, which is quick.

Both answer the same questions. The index may be gone at any moment: then its calls raise
``IndexUnavailableError`` and the same question goes to PostgreSQL.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Protocol
from uuid import UUID

import msgspec

from gstd.bus.bus import Bus
from gstd.bus.queue_index import Lane, QueueIndex, Unit
from gstd.database.connection import Connection, Row, to_structs
from gstd.database.sql import load_queries
from gstd.dispatch.indexing import Indexer
from gstd.dispatch.needs import TaskClass
from gstd.kernel.settings import Policy
from gstd.protocol.execution import Limits
from gstd.protocol.types import Asset
from gstd.tasks.order import LEVEL_SHIFT

_sql = load_queries("gstd.dispatch")

STALE_ROUNDS = 8
"""How often one look clears away stale heads of the index before it takes what it has."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A task at the head of the queue; ``shown`` counts devices that solve an offer of it."""

    task_id: UUID
    job_id: UUID
    class_id: int
    order_key: int
    wanted: int
    reward: int
    asset: Asset
    module_hash: bytes
    limits: Limits
    profile: str
    deadline: datetime
    shown: int = 0


class Heads(msgspec.Struct, frozen=True):
    """The first tasks of every priority level, and the levels of which there are more."""

    tasks: list[Candidate]
    cut: frozenset[int]


class Shown(msgspec.Struct, frozen=True):
    """A task that a device is about to be shown, and for how long others shall not be."""

    task: Candidate
    ms: int


Meeting = tuple[UUID, UUID]
"""A task, and an account or device that must not get it."""


class Queue(Protocol):
    """Knows which tasks are ready and in which order."""

    async def classes(self, connection: Connection) -> list[TaskClass]:
        """What tasks that are ready need."""

    async def heads(
        self, connection: Connection, classes: Collection[int], depth: int, now: datetime
    ) -> Heads:
        """The first ``depth`` tasks of each level in these classes that may be claimed now."""

    async def reserve(self, shown: Sequence[Shown]) -> list[bool]:
        """For each: whether it was still free and is now kept from others for a while."""


class Needs:
    """What classes need, read once: a class never changes."""

    def __init__(self) -> None:
        self._known: dict[int, TaskClass] = {}

    async def of(self, connection: Connection, ids: Collection[int]) -> list[TaskClass]:
        """The classes of these ids."""
        missing = [class_id for class_id in ids if class_id not in self._known]
        if missing:
            rows = await connection.fetch(_sql["needs"], missing)
            self._known |= {found.id: found for found in to_structs(rows, TaskClass)}
        return [self._known[class_id] for class_id in ids if class_id in self._known]


class SqlQueue:
    """The queue as its rows have it. Soft holds keep shown tasks from others."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._needs = Needs()

    async def classes(self, connection: Connection) -> list[TaskClass]:
        rows = await connection.fetch(_sql["ready_classes"])
        return await self._needs.of(connection, [row["class_id"] for row in rows])

    async def heads(
        self, connection: Connection, classes: Collection[int], depth: int, now: datetime
    ) -> Heads:
        rows = await connection.fetch(_sql["heads"], list(classes), depth, now)
        free, cut = first_of_each_level(_lanes(rows), depth)
        tasks = await _candidates(connection, list(free), now)
        counts = await self._bus.held([str(task.task_id) for task in tasks])
        return Heads(
            [
                msgspec.structs.replace(task, shown=count)
                for task, count in zip(tasks, counts, strict=True)
                if count < task.wanted
            ],
            cut,
        )

    async def reserve(self, shown: Sequence[Shown]) -> list[bool]:
        places = [(str(one.task.task_id), one.task.wanted) for one in shown]
        return await self._bus.hold(places, max((one.ms for one in shown), default=0))


class IndexedQueue:
    """The queue as the index has it, each head looked up in its row before it counts."""

    def __init__(self, index: QueueIndex, indexer: Indexer) -> None:
        self._index = index
        self._indexer = indexer
        self._needs = Needs()

    async def classes(self, connection: Connection) -> list[TaskClass]:
        return await self._needs.of(connection, await self._index.classes())

    async def heads(
        self, connection: Connection, classes: Collection[int], depth: int, now: datetime
    ) -> Heads:
        for _ in range(STALE_ROUNDS):
            free, cut = first_of_each_level(await self._index.heads(classes, depth), depth)
            rows = await _candidates(connection, list(free), now)
            tasks = [
                msgspec.structs.replace(row, wanted=min(row.wanted, free[row.task_id].count))
                for row in rows
                if row.order_key == free[row.task_id].order_key
            ]
            stale = set(free) - {task.task_id for task in tasks}
            if not stale:
                break
            await self._indexer.refresh(stale)
        return Heads(tasks, cut)

    async def reserve(self, shown: Sequence[Shown]) -> list[bool]:
        return await self._index.reserve(
            [(one.task.class_id, one.task.task_id, one.ms) for one in shown]
        )


class Free(msgspec.Struct):
    """The place of a task, and how many units it has there."""

    order_key: int
    count: int = 0


def first_of_each_level(
    lanes: Iterable[Lane], depth: int
) -> tuple[dict[UUID, Free], frozenset[int]]:
    """The tasks of the first ``depth`` units of each level, and the levels of which there are more.

    A lane that is cut says nothing of what comes after its last unit, so there the level ends.
    """
    levels: dict[int, list[Unit]] = defaultdict(list)
    ends: dict[int, int] = {}
    for lane in lanes:
        level = lane.units[0].order_key >> LEVEL_SHIFT if lane.units else 0
        levels[level] += lane.units
        if lane.is_cut:
            last = lane.units[-1].order_key
            ends[level] = min(last, ends.get(level, last))
    free: dict[UUID, Free] = {}
    for level, units in levels.items():
        units.sort(key=lambda unit: (unit.order_key, unit.task_id))
        for unit in units[:depth]:
            if unit.order_key <= ends.get(level, unit.order_key):
                free.setdefault(unit.task_id, Free(unit.order_key)).count += 1
    full = {level for level, units in levels.items() if len(units) >= depth}
    return free, frozenset(full | set(ends))


def _lanes(rows: Iterable[Row]) -> list[Lane]:
    """Rows of ``heads`` by class and level."""
    lanes = []
    facts = [dict(row.items()) for row in rows]
    for _, group in groupby(facts, key=lambda row: (row["level"], row["class_id"])):
        some = list(group)
        units = [Unit(row["task_id"], row["class_id"], row["order_key"]) for row in some]
        lanes.append(Lane(units, is_cut=len(units) == some[0]["most"]))
    return lanes


async def _candidates(
    connection: Connection, ids: Sequence[UUID], now: datetime
) -> list[Candidate]:
    """Those of the tasks that may be claimed now, in order."""
    if not ids:
        return []
    return to_structs(await connection.fetch(_sql["candidates"], ids, now), Candidate)


async def met_before(
    connection: Connection,
    tasks: Sequence[UUID],
    accounts: Sequence[UUID],
    failed_since: datetime,
) -> set[Meeting]:
    """Which of the tasks which of the accounts, or their devices, must not get.

    An account that holds one or whose result was wrong never gets it again; a device that failed
    at one after ``failed_since`` leaves it to others for now.
    """
    rows = await connection.fetch(_sql["earlier_attempts"], tasks, accounts, failed_since)
    return {
        (row["task_id"], row["account_id"] if row["bars_account"] else row["device_id"])
        for row in rows
    }


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What a device holds: how many attempts, and whether a heartbeat of one is overdue."""

    attempts: int
    is_silent: bool


NOTHING = Running(attempts=0, is_silent=False)


async def running_on(
    connection: Connection, devices: Sequence[UUID], policy: Policy, now: datetime
) -> dict[UUID, Running]:
    """What these devices hold now; those that hold nothing are missing.

    A device beats three times per lease: one with less than a third of it left has missed a beat.
    """
    overdue = now + timedelta(milliseconds=policy.lease_ms // 3)
    rows = await connection.fetch(_sql["running_on"], devices, overdue)
    return {
        row["device_id"]: Running(attempts=row["attempts"], is_silent=row["is_silent"])
        for row in rows
    }
