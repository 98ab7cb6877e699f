"""Balances and the history of money."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import IO
from uuid import UUID

import msgspec

from gstd.protocol.money import (
    BalancesAt,
    Direction,
    Part,
    StatementPage,
    StatementRow,
    Total,
    TransferKind,
)
from gstd.protocol.people import CreditRequest, WalletView
from gstd.protocol.types import Asset
from gstd.sdk.room import Room, download, get, make
from gstd.sdk.transport import QueryValue


class StatementFilters(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows of a statement. ``since`` is included, ``until`` is not; both need a time zone.

    ``job_id`` is one of your own jobs; ``task_id`` selects what moved because of a task.
    """

    asset: Asset | None = None
    part: Part | None = None
    kind: TransferKind | None = None
    direction: Direction | None = None
    since: datetime | None = None
    until: datetime | None = None
    task_id: UUID | None = None
    job_id: UUID | None = None

    def query(self) -> dict[str, QueryValue]:
        """The filters as parameters of the routes."""
        return {
            "asset": self.asset,
            "part": self.part,
            "kind": self.kind,
            "direction": self.direction,
            "since": None if self.since is None else self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
            "task_id": None if self.task_id is None else str(self.task_id),
            "job_id": None if self.job_id is None else str(self.job_id),
        }


EVERYTHING = StatementFilters()


class Money(Room):
    """What an account has, and how it came to be."""

    async def wallet(self) -> WalletView:
        """The account's balances."""
        return await self._transport.fetch(WalletView, get("/wallet"))

    async def credit(
        self, account_id: UUID, amount_nano: int, *, idempotency_key: str | None = None
    ) -> WalletView:
        """Give an account test credits. Admins only, development mode only."""
        request = CreditRequest(account_id=account_id, amount_nano=str(amount_nano))
        call = make("/test-credits", request, idempotency_key)
        return await self._transport.fetch(WalletView, call)

    async def balances_at(self, at: datetime | None = None) -> BalancesAt:
        """The account's balances at a time, which is included; else now."""
        call = get("/wallet/balances", at=None if at is None else at.isoformat())
        return await self._transport.fetch(BalancesAt, call)

    async def totals(
        self,
        *,
        asset: Asset | None = None,
        part: Part | None = None,
        kind: TransferKind | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Total]:
        """What moved in and out, by asset, part and kind."""
        filters = StatementFilters(asset=asset, part=part, kind=kind, since=since, until=until)
        call = get("/wallet/totals", **filters.query())
        return await self._transport.fetch(list[Total], call)

    async def statement(
        self,
        filters: StatementFilters = EVERYTHING,
        *,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> StatementPage:
        """A page of what every transfer did to the wallet, newest first."""
        call = get("/wallet/statement", **filters.query(), cursor=cursor, limit=limit)
        return await self._transport.fetch(StatementPage, call)

    async def statement_rows(
        self, filters: StatementFilters = EVERYTHING
    ) -> AsyncIterator[StatementRow]:
        """All rows of the statement, newest first."""
        cursor: str | None = None
        while True:
            page = await self.statement(filters, cursor=cursor, limit=500)
            for row in page.items:
                yield row
            cursor = page.next
            if cursor is None:
                return

    async def statement_csv(
        self,
        to: IO[bytes],
        filters: StatementFilters = EVERYTHING,
        *,
        on_progress: Callable[[int], object] | None = None,
    ) -> int:
        """Write the statement as CSV; returns its length. ``on_progress`` hears of the bytes."""
        call = download("/wallet/statement.csv", **filters.query())
        return await self._transport.download(call, to, on_progress)
