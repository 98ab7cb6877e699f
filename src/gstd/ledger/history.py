"""The history of money: totals, balances of the past, the export. Nothing here writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID

from gstd.database.connection import Connection, to_struct
from gstd.database.sql import load_queries
from gstd.kernel.errors import InvalidInputError
from gstd.ledger.filters import Filters, check_time
from gstd.ledger.journal import AccountLine, JournalWriter, TransferLine
from gstd.protocol.money import BalanceAt, Part, Total, TransferKind
from gstd.protocol.types import Asset

_sql = load_queries("gstd.ledger")

_BATCH: Final = 1000
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)


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
    asset, part, kinds, _ = filters.selection()
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
    check_time("at", at)
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
