"""Append to the outbox, number what is committed, read the log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from gstd.database.connection import Connection, to_struct, to_structs
from gstd.database.sql import load_queries
from gstd.protocol.people import EventPage, EventView

_sql = load_queries("gstd.events")

NUMBERED_AT_ONCE = 5_000
LONGEST_REST_S = 0.25


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, and the accounts that may read of it."""

    kind: str
    accounts: tuple[UUID, ...]
    job_id: UUID | None = None
    task_id: UUID | None = None
    attempt_id: UUID | None = None
    data: dict[str, Any] = {}


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How far the log is: its last position, events without one yet, errors kept for operators."""

    head: int
    unnumbered: int
    errors: int


async def append(connection: Connection, events: Sequence[Event], at: datetime) -> None:
    """Add events to the running transaction: they exist if and only if it commits."""
    if events:
        await connection.execute(_sql["append"], events, at)


async def number(connection: Connection) -> int:
    """Move events of finished transactions into the log; returns how many were moved.

    Returns 0 at once while another process holds the log's head.
    """
    head = await connection.fetchval(_sql["take_head"])
    if head is None:
        return 0
    moved: int = await connection.fetchval(_sql["move_finished"], head, NUMBERED_AT_ONCE)
    return moved


def rest_after(worked_s: float, percent: int) -> float:
    """How long the numbering rests so that it works for at most that share of its time.

    A busy system is numbered in few large batches, which cost it less than many small ones. Nobody
    waits longer than ``LONGEST_REST_S`` for it, even if that makes the share larger.
    """
    return min(worked_s * (100 - percent) / percent, LONGEST_REST_S)


async def read(
    connection: Connection,
    *,
    after: int,
    account_id: UUID | None,
    job_id: UUID | None = None,
    limit: int = 500,
) -> EventPage:
    """Events after a position, of one account or (``None``) of everybody.

    The page's position is that of the last event, or of the log's head when nothing is missing.
    """
    head: int = await connection.fetchval(_sql["position"])
    rows = await connection.fetch(_sql["read"], after, account_id, job_id, limit)
    items = to_structs(rows, EventView)
    complete = len(items) < limit
    last = items[-1].position if items else after
    return EventPage(items=items, position=max(head, last) if complete else last)


async def standing(connection: Connection) -> Standing:
    """Where the log stands now."""
    row = await connection.fetchrow(_sql["standing"])
    assert row is not None, "the migrations made the log's head"
    return to_struct(row, Standing)
