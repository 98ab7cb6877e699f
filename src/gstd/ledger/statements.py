"""Statements: what every transfer did to an owner, row by row. Nothing here writes."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from gstd.database.connection import Connection, to_struct
from gstd.database.sql import load_queries
from gstd.events.audit import positions
from gstd.kernel.errors import GstdError, InvalidInputError
from gstd.ledger.filters import Filters
from gstd.protocol.money import Direction, Part, StatementPage, StatementRow, TransferKind
from gstd.protocol.types import Asset

_sql = load_queries("gstd.ledger")

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 500
_BATCH: Final = 1000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_WORDS: Final = {
    "fee": "platform fee",
    "referee": "re-execution",
    "restitution": "restitution",
    "suspense": "deposits without an owner",
    "issued": "test credits",
    "chain": "the chain",
}


class BadCursorError(GstdError):
    """The cursor is not one that a statement gave."""

    code = "bad_cursor"
    status = 400
    hint = "Pass `next` of the page before unchanged, or no cursor for the newest rows."


class _Leg(msgspec.Struct, frozen=True):
    """One side of a transfer: 0 is what it took from, 1 what it gave to. Its order and its key."""

    at: datetime
    id: int
    leg: int


_CURSOR: Final = struct.Struct(">qqB")
_NEWEST: Final = (None, 0, 0)


async def page(
    connection: Connection,
    owner: UUID,
    filters: Filters,
    *,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> StatementPage:
    """A page of an owner's rows, newest first. Its cost does not grow with the account."""
    filters.check()
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInputError(
            f"`limit` is {limit}", hint=f"A page has 1 to {MAX_LIMIT} rows; go on with `cursor`."
        )
    below = _NEWEST if cursor is None else _decoded(cursor)
    if filters.job_id is not None:
        await _must_own(connection, owner, filters.job_id)
    legs = await _legs(connection, owner, filters, below, limit + 1)
    shown, is_last = legs[:limit], len(legs) <= limit
    rows = await _rows(connection, shown)
    places = await positions(connection, [row.transfer_id for row in rows])
    return StatementPage(
        items=[msgspec.structs.replace(row, position=places.get(row.transfer_id)) for row in rows],
        next=None if is_last else _encoded(shown[-1]),
    )


async def stream(
    connection: Connection, owner: UUID, filters: Filters
) -> AsyncIterator[list[StatementRow]]:
    """All rows in the order of a statement, in batches. Needs a transaction."""
    filters.check()
    if filters.job_id is not None or filters.task_id is not None:
        cursor = None
        while True:
            found = await page(connection, owner, filters, cursor=cursor, limit=MAX_LIMIT)
            yield found.items
            cursor = found.next
            if cursor is None:
                return
    portal = await connection.cursor(
        _sql["history_all_legs"], owner, *filters.selection(), filters.since, filters.until
    )
    while batch := await portal.fetch(_BATCH):
        yield await _rows(connection, [to_struct(row, _Leg) for row in batch])


async def _legs(
    connection: Connection,
    owner: UUID,
    filters: Filters,
    below: tuple[datetime | None, int, int],
    limit: int,
) -> list[_Leg]:
    at, transfer_id, leg = below
    if filters.until is not None and (at is None or filters.until <= at):
        at, transfer_id, leg = filters.until, 0, 0  # ids begin at 1
    name = "history_legs" if filters.task_id is None else "history_legs_of_task"
    rows = await connection.fetch(
        _sql[name],
        owner,
        *filters.selection(),
        filters.since,
        at,
        filters.task_id or filters.job_id,
        transfer_id,
        leg,
        limit,
    )
    return [to_struct(row, _Leg) for row in rows]


async def _rows(connection: Connection, legs: Sequence[_Leg]) -> list[StatementRow]:
    found = await connection.fetch(
        _sql["history_details"], [leg.id for leg in legs], [leg.leg for leg in legs]
    )
    return [_row(dict(row.items())) for row in found]


def _row(row: dict[str, Any]) -> StatementRow:
    comes_in = row["leg"] == 1
    after = row["after"]
    return StatementRow(
        transfer_id=row["id"],
        at=row["at"],
        kind=TransferKind(row["kind"]),
        part=Part(row["part"]),
        direction=Direction.IN if comes_in else Direction.OUT,
        amount_nano=str(row["amount"] if comes_in else -row["amount"]),
        balance_after_nano=None if after is None else str(after),
        asset=Asset(row["asset"]),
        counterparty=_counterparty(row),
        job_id=row["job_id"],
        task_id=row["task_id"],
        attempt_id=row["attempt_id"],
    )


def _counterparty(row: dict[str, Any]) -> str:
    other: str = row["other"]
    if other == "escrow":
        return f"escrow of job {row['other_job_id']}"
    if other in _WORDS:
        return _WORDS[other]
    if row["other_is_own"]:
        return f"own {other}"
    return "a worker's earnings" if other == "held" else "another account"


async def _must_own(connection: Connection, owner: UUID, job_id: UUID) -> None:
    if not await connection.fetchval(_sql["history_owns_job"], job_id, owner):
        raise InvalidInputError(
            f"{job_id} is no job of this account",
            hint="Select what you earned from others' jobs by task, kind or time.",
        )


def _encoded(leg: _Leg) -> str:
    data = _CURSOR.pack((leg.at - _EPOCH) // _MICROSECOND, leg.id, leg.leg)
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(cursor: str) -> tuple[datetime, int, int]:
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        at_us, transfer_id, leg = _CURSOR.unpack(data)
        at = _EPOCH + timedelta(microseconds=at_us)
    except (binascii.Error, struct.error, ValueError, OverflowError):
        raise BadCursorError from None
    if leg not in (0, 1) or not 0 <= transfer_id < 2**62:
        raise BadCursorError
    return at, transfer_id, leg
