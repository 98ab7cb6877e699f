"""The queue's head, read from PostgreSQL.

``Queue`` is the seam for an ordered index in Valkey: an index answers ``head`` from its sorted set
and leaves the claim's guarded update to drop what is stale.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import msgspec

from gstd.database.connection import Connection, to_structs
from gstd.database.sql import load_queries
from gstd.dispatch.needs import TaskClass
from gstd.kernel.settings import Policy
from gstd.protocol.execution import Limits
from gstd.protocol.types import Asset

_sql = load_queries("gstd.dispatch")


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A task at the head of the queue; ``shown`` counts devices that solve an offer of it."""

    task_id: UUID
    job_id: UUID
    wanted: int
    reward: int
    asset: Asset
    module_hash: bytes
    limits: Limits
    profile: str
    class_id: int
    min_trust: int
    pool_id: UUID | None
    deadline: datetime
    shown: int = 0

    @property
    def needs(self) -> TaskClass:
        """What the task needs of a device."""
        return TaskClass(
            id=self.class_id,
            profile=self.profile,
            module_hash=self.module_hash,
            memory_bytes=self.limits.memory_bytes,
            fuel=self.limits.fuel,
            wall_ms=self.limits.wall_ms,
            min_trust=self.min_trust,
            reward=self.reward,
            asset=self.asset,
            pool_id=self.pool_id,
        )


Meeting = tuple[UUID, UUID]
"""A task, and an account or device that must not get it."""


class Queue(Protocol):
    """Knows which tasks are next: by priority, then deadline, then age."""

    async def head(self, connection: Connection, limit: int, now: datetime) -> list[Candidate]: ...


class SqlQueue:
    """The queue as the partial index over wanted tasks has it."""

    async def head(self, connection: Connection, limit: int, now: datetime) -> list[Candidate]:
        """The first tasks that may be claimed now."""
        return to_structs(await connection.fetch(_sql["candidates"], now, limit), Candidate)


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
