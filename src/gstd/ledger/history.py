"""The history of money: statements, totals, balances of the past, exports. Nothing here writes."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from gstd.database.connection import Connection, to_struct
from gstd.database.sql import load_queries
from gstd.events.audit import positions
from gstd.kernel.errors import GstdError, InvalidInputError
from gstd.ledger.journal import AccountLine, JournalWriter, TransferLine
from gstd.protocol.money import (
    BalanceAt,
    Direction,
    Part,
    StatementPage,
    StatementRow,
    Total,
    TransferKind,
)
from gstd.protocol.types import Asset

_sql = load_queries("gstd.ledger")

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 500
_BATCH: Final = 1000
_YEARS: Final = range(1970, 9000)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)

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


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows: everything that is not given is not asked.

    ``since`` is included, ``until`` is not. ``job_id`` must be a job of the owner and selects what
    moved through its escrow; ``task_id`` selects whatever moved because of a task.
    """

    asset: Asset | None = None
    part: Part | None = None
    kinds: tuple[TransferKind, ...] = ()
    direction: Direction | None = None
    since: datetime | None = None
    until: datetime | None = None
    task_id: UUID | None = None
    job_id: UUID | None = None

    def check(self) -> None:
        """Raises ``InvalidInputError`` for times that cannot be meant."""
        _check_time("since", self.since)
        _check_time("until", self.until)
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise InvalidInputError(
                "`since` is not before `until`",
                hint="`since` is the first moment wanted, `until` the first one no longer wanted.",
            )
        if self.task_id is not None and self.job_id is not None:
            raise InvalidInputError(
                "`task_id` and `job_id` are given", hint="A task has one job: give the task alone."
            )


class _Leg(msgspec.Struct, frozen=True):
    """One side of a transfer: 0 is what it took from, 1 what it gave to. Its order and its key."""

    at: datetime
    id: int
    leg: int


_CURSOR: Final = struct.Struct(">qqB")
_NEWEST: Final = (None, 0, 0)


async def statement(
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
    page = legs[:limit]
    more = len(legs) > limit
    rows = await _rows(connection, page)
    places = await positions(connection, [row.transfer_id for row in rows])
    return StatementPage(
        items=[msgspec.structs.replace(row, position=places.get(row.transfer_id)) for row in rows],
        next=_encoded(page[-1]) if more else None,
    )


async def stream(
    connection: Connection, owner: UUID, filters: Filters
) -> AsyncIterator[list[StatementRow]]:
    """All rows in the order of a statement, in batches. Needs a transaction."""
    filters.check()
    if filters.job_id is not None or filters.task_id is not None:
        cursor = None
        while True:
            page = await statement(connection, owner, filters, cursor=cursor, limit=MAX_LIMIT)
            yield page.items
            cursor = page.next
            if cursor is None:
                return
    portal = await connection.cursor(
        _sql["history_all_legs"], owner, *_selection(filters), filters.since, filters.until
    )
    while batch := await portal.fetch(_BATCH):
        yield await _rows(connection, [to_struct(row, _Leg) for row in batch])


async def totals(connection: Connection, owner: UUID, filters: Filters) -> list[Total]:
    """What moved in and out, by asset, part and kind. Filters of task, job and direction are no
    filters of totals.
    """
    filters.check()
    if filters.task_id is not None or filters.job_id is not None or filters.direction is not None:
        raise InvalidInputError(
            "totals are by asset, part, kind and time", hint="Add up a statement instead."
        )
    days, edges = _cut(filters.since, filters.until)
    asset, part, kinds, _ = _selection(filters)
    rows = await connection.fetch(
        _sql["history_sums"],
        owner,
        asset,
        part,
        kinds,
        *(days or (None, None)),
        days is not None,
        [since for since, _ in edges],
        [until for _, until in edges],
    )
    return [
        Total(
            asset=Asset(row["asset"]),
            part=Part(row["part"]),
            kind=TransferKind(row["kind"]),
            in_nano=row["paid_in"],
            out_nano=row["paid_out"],
            transfers=row["transfers"],
        )
        for row in rows
    ]


async def balances_at(connection: Connection, owner: UUID, at: datetime) -> list[BalanceAt]:
    """What an owner had, exactly: the sum of all transfers up to ``at``, ``at`` included."""
    _check_time("at", at)
    sums: dict[Asset, dict[Part, int]] = {}
    for total in await totals(connection, owner, Filters(until=at + _MICROSECOND)):
        parts = sums.setdefault(total.asset, dict.fromkeys(Part, 0))
        parts[total.part] += int(total.in_nano) - int(total.out_nano)
    return [
        BalanceAt(
            asset=asset,
            **{f"{part.value}_nano": str(nano) for part, nano in parts.items()},
            total_nano=str(sum(parts.values())),
        )
        for asset, parts in sums.items()
    ]


async def export_lines(connection: Connection) -> AsyncIterator[str]:
    """The whole ledger as a journal of hledger, in pieces of many lines.

    Needs a transaction of one snapshot (REPEATABLE READ).
    """
    writer = JournalWriter()
    accounts = await connection.fetch(_sql["history_accounts"])
    yield writer.head() + "".join(writer.account(to_struct(row, AccountLine)) for row in accounts)
    portal = await connection.cursor(_sql["history_transfers"])
    while batch := await portal.fetch(_BATCH):
        yield "".join(writer.entry(to_struct(row, TransferLine)) for row in batch)


def _selection(
    filters: Filters,
) -> tuple[str | None, str | None, list[str] | None, int | None]:
    leg = None if filters.direction is None else int(filters.direction is Direction.IN)
    return filters.asset, filters.part, list(filters.kinds) or None, leg


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
        *_selection(filters),
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


def _check_time(name: str, value: datetime | None) -> None:
    if value is None:
        return
    if value.tzinfo is None:
        raise InvalidInputError(
            f"`{name}` has no time zone", hint="Write it like 2026-05-01T12:00:00Z."
        )
    if value.year not in _YEARS:
        raise InvalidInputError(
            f"`{name}` is in the year {value.year}",
            hint=f"Give a time between the years {_YEARS.start} and {_YEARS.stop}.",
        )


def _cut(
    since: datetime | None, until: datetime | None
) -> tuple[tuple[date | None, date | None] | None, list[tuple[datetime, datetime]]]:
    """The whole days of UTC between two times, if any, and what is left at the ends."""
    first = None if since is None else _midnight(since.astimezone(UTC) + _DAY - _MICROSECOND)
    end = None if until is None else _midnight(until.astimezone(UTC))
    if since and until and first and end and first >= end:
        return None, [(since, until)]
    edges = []
    if since and first and since < first:
        edges.append((since, first))
    if until and end and end < until:
        edges.append((end, until))
    return (first and first.date(), end and end.date()), edges


def _midnight(at: datetime) -> datetime:
    return datetime.combine(at.date(), time(), UTC)


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
