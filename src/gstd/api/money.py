"""The history of money: statements, totals, balances of the past, and exports. Only reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Router, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter
from litestar.response import Stream
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Receive, Send

from gstd.api import edge
from gstd.api.authentication import ActorDep, PlatformDep
from gstd.api.platform import Platform
from gstd.database.connection import Connection
from gstd.kernel.errors import GstdError
from gstd.ledger import history, statements
from gstd.ledger.csv_export import CsvWriter, gstd
from gstd.ledger.filters import Filters
from gstd.protocol.money import (
    BalancesAt,
    Direction,
    Part,
    StatementPage,
    StatementRow,
    Total,
    TransferKind,
)
from gstd.protocol.types import Asset, Role

MAX_DOWNLOADS = 4
"""At once and per process: each one holds a connection for as long as its client reads."""

STALL_S = 60.0
"""A client that takes nothing for so long is hung up on."""

CSV_COLUMNS = (
    "time",
    "kind",
    "part",
    "direction",
    "amount",
    "balance after",
    "asset",
    "counterparty",
    "job",
    "task",
    "attempt",
    "transfer",
)

Kinds = FromQuery[list[TransferKind] | None]
Lines = AsyncGenerator[str, None]


class TooManyDownloadsError(GstdError):
    """Too many downloads are running."""

    code = "too_many_downloads"
    status = 503
    hint = "Ask again in a minute."


async def provide_filters(
    asset: FromQuery[Asset | None] = None,
    part: FromQuery[Part | None] = None,
    kind: Kinds = None,
    direction: FromQuery[Direction | None] = None,
    since: FromQuery[datetime | None] = None,
    until: FromQuery[datetime | None] = None,
    task_id: FromQuery[UUID | None] = None,
    job_id: FromQuery[UUID | None] = None,
) -> Filters:
    """The filters of a statement, from the query."""
    return Filters(
        asset=asset,
        part=part,
        kinds=tuple(kind or ()),
        direction=direction,
        since=since,
        until=until,
        task_id=task_id,
        job_id=job_id,
    )


FiltersDep = NamedDependency[Filters]


@get("/wallet/statement", summary="My money, row by row", dependencies={"filters": provide_filters})
async def show_statement(
    actor: ActorDep,
    platform: PlatformDep,
    filters: FiltersDep,
    cursor: FromQuery[str | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=statements.MAX_LIMIT)] = statements.DEFAULT_LIMIT,
) -> StatementPage:
    """Newest first: what every transfer did to a part of the wallet.

    `kind` may be repeated. `since` is included, `until` is not. `job_id` is one of your own jobs
    and selects what moved through its escrow; `task_id` selects what moved because of a task.
    """
    return await edge.read(
        platform,
        lambda conn: statements.page(conn, actor.account_id, filters, cursor=cursor, limit=limit),
    )


@get(
    "/wallet/statement.csv",
    summary="My money as a table",
    media_type="text/csv",
    dependencies={"filters": provide_filters},
)
async def download_statement(
    request: Request[Any, Any, Any], actor: ActorDep, platform: PlatformDep, filters: FiltersDep
) -> Stream:
    """All rows of the statement as CSV, as they are at one moment. Amounts are in whole units."""
    return await _download(
        request,
        platform,
        lambda conn: _csv(statements.stream(conn, actor.account_id, filters)),
        "gstd-statement.csv",
        "text/csv",
    )


@get("/wallet/totals", summary="My money, summed up")
async def show_totals(
    actor: ActorDep,
    platform: PlatformDep,
    asset: FromQuery[Asset | None] = None,
    part: FromQuery[Part | None] = None,
    kind: Kinds = None,
    since: FromQuery[datetime | None] = None,
    until: FromQuery[datetime | None] = None,
) -> list[Total]:
    """What moved in and out, by asset, part and kind. `since` is included, `until` is not."""
    filters = Filters(asset=asset, part=part, kinds=tuple(kind or ()), since=since, until=until)
    return await edge.read(platform, lambda conn: history.totals(conn, actor.account_id, filters))


@get("/wallet/balances", summary="My balances at a time")
async def show_balances(
    actor: ActorDep, platform: PlatformDep, at: FromQuery[datetime | None] = None
) -> BalancesAt:
    """Exactly: the sum of all transfers up to `at`, which is included; now if it is left out."""
    when = platform.clock.now() if at is None else at
    return BalancesAt(
        account_id=actor.account_id,
        at=when,
        balances=await edge.read(
            platform, lambda conn: history.balances_at(conn, actor.account_id, when)
        ),
    )


@get(
    "/admin/ledger/export",
    summary="The whole ledger as a journal (admin)",
    tags=["admin"],
    media_type="text/plain",
)
async def export_ledger(
    request: Request[Any, Any, Any], actor: ActorDep, platform: PlatformDep
) -> Stream:
    """Every account and transfer, for `hledger check`, as they are at one moment."""
    actor.must_be(Role.ADMIN)
    return await _download(
        request, platform, history.export_lines, "gstd-ledger.journal", "text/plain"
    )


async def _csv(batches: AsyncIterator[list[StatementRow]]) -> AsyncIterator[str]:
    table = CsvWriter()
    # Refusals come before the first line, while they can still be answered.
    first: list[StatementRow] = await anext(batches, [])
    yield table.head(CSV_COLUMNS) + "".join(_csv_row(table, row) for row in first)
    async for rows in batches:
        yield "".join(_csv_row(table, row) for row in rows)


def _csv_row(table: CsvWriter, row: StatementRow) -> str:
    after = row.balance_after_nano
    ids = (row.job_id, row.task_id, row.attempt_id)
    return table.row(
        (
            row.at.isoformat(timespec="microseconds"),
            row.kind.value,
            row.part.value,
            row.direction.value,
            gstd(int(row.amount_nano)),
            None if after is None else gstd(int(after)),
            row.asset.value,
            row.counterparty,
            *(None if value is None else str(value) for value in ids),
            row.transfer_id,
        )
    )


async def _download(
    request: Request[Any, Any, Any],
    platform: Platform,
    lines: Callable[[Connection], AsyncIterator[str]],
    name: str,
    media_type: str,
) -> Stream:
    """The answer that streams ``lines``. What goes wrong before the first is still a problem."""
    source = _lines(request.app.state, platform, lines)
    first = await anext(source)
    return Download(
        _Begun(first, source),
        media_type=media_type,
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "X-Content-Type-Options": "nosniff",
        },
    )


async def _lines(
    state: State, platform: Platform, lines: Callable[[Connection], AsyncIterator[str]]
) -> Lines:
    """The lines, from a transaction of their own that is read-only and sees one moment."""
    running = state.get("downloads", 0)
    if running >= MAX_DOWNLOADS:
        raise TooManyDownloadsError
    state["downloads"] = running + 1
    try:
        async with platform.database.transaction() as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            async for piece in lines(connection):
                yield piece
    finally:
        state["downloads"] -= 1


class _Begun:
    """Lines whose first one is there already."""

    def __init__(self, first: str, source: Lines) -> None:
        self._first: str | None = first
        self._source = source

    def __aiter__(self) -> _Begun:
        return self

    async def __anext__(self) -> str:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await anext(self._source)

    async def aclose(self) -> None:
        await self._source.aclose()


class _AsgiDownload(ASGIStreamingResponse):
    """Ends its source when the client is gone.

    The framework's own leaves that to the garbage collector, with the transaction open.
    """

    async def send_body(self, send: Send, receive: Receive) -> None:
        source = self.iterator
        assert isinstance(source, _Begun)
        gone = asyncio.ensure_future(_hang_up(receive))
        try:
            async with aclosing(source):
                async for piece in source:
                    if gone.done():
                        return
                    body = piece.encode()
                    async with asyncio.timeout(STALL_S):
                        await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            return  # without its end the answer counts as broken off
        finally:
            gone.cancel()


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Download(Stream):
    """A streamed answer that lets go of what it holds as soon as it ends."""

    def to_asgi_response(self, *args: Any, **keywords: Any) -> ASGIStreamingResponse:
        plain = super().to_asgi_response(*args, **keywords)
        assert isinstance(self.iterator, _Begun)
        return _AsgiDownload(
            iterator=self.iterator,
            headers=[
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in plain.encode_headers()
            ],  # type: ignore[arg-type]
            media_type=self.media_type,
            status_code=plain.status_code,
        )


router = Router(
    "/",
    tags=["money"],
    route_handlers=[
        show_statement,
        download_statement,
        show_totals,
        show_balances,
        export_ledger,
    ],
)
