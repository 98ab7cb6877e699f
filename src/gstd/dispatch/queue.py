"""The queue's head, read from PostgreSQL.

``Queue`` is the seam for an ordered index in Valkey: an index answers ``head`` from its sorted set
and leaves the claim's guarded update to drop what is stale.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

import msgspec

from gstd.database.connection import Connection, to_structs
from gstd.database.sql import load_queries
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
    shown: int = 0


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
