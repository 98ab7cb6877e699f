"""Keeps the queue's index in Valkey like the rows: after each commit, and all of it now and then.

Rows are read after they are committed. A hint that is lost is made good by the next
reconciliation; until then a stale entry costs a look at its row, and a missing one waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from uuid import UUID

import structlog

from gstd.bus.bus import Bus
from gstd.bus.queue_index import LAST_KEY, IndexUnavailableError, Place, Span
from gstd.database.connection import Database
from gstd.database.sql import load_queries
from gstd.kernel.clock import Clock

log = structlog.get_logger()
_sql = load_queries("gstd.dispatch")

PAGE = 5_000
RECONCILE_S = 30.0
"""How often everything is compared; less often where that takes more than a tenth of the time."""

REMEMBERED = 100_000
"""Tasks whose hint waits for Valkey to come back."""

BEFORE_ALL = Place(UUID(int=0), -1, -1, 0)


class Indexer:
    """Writes the index of one platform. Without Valkey it does nothing."""

    def __init__(self, database: Database, bus: Bus, clock: Clock) -> None:
        self.index = bus.queue_index(database.name)
        self._database = database
        self._clock = clock
        self._is_shared = bus.is_shared
        self._pending: set[UUID] = set()
        self._writing = asyncio.Lock()
        self._reconcile_at = 0.0

    def follow(self) -> None:
        """From now on follow what this process commits."""
        if self._is_shared:
            self._database.tell(self.refresh)

    async def refresh(self, tasks: Iterable[UUID]) -> None:
        """Let the index say of these tasks what their rows say.

        One at a time writes for all who wait, so no older reading overtakes a newer one.
        """
        self._pending.update(tasks)
        async with self._writing:
            mine, self._pending = self._pending, set()
            try:
                await self._copy(mine)
            except IndexUnavailableError:
                if len(mine) < REMEMBERED:
                    self._pending |= mine

    async def keep(self) -> None:
        """What the leader does every tick: rebuild a lost index, compare a complete one."""
        if not self._is_shared:
            return
        try:
            if not await self.index.is_complete():
                await self.rebuild()
            elif time.monotonic() >= self._reconcile_at:
                await self.reconcile()
        except IndexUnavailableError:
            pass

    async def rebuild(self) -> bool:
        """Write the index anew; whether it is complete now."""
        token = await self.index.begin()
        mended = await self.reconcile()
        is_complete = await self.index.finish(token)
        log.info("queue_index_rebuilt", tasks=mended, complete=is_complete)
        return is_complete

    async def reconcile(self) -> int:
        """Compare the index with the rows, page by page; returns how many tasks it mended."""
        start = time.monotonic()
        await self.refresh(())
        mended, after, seen = 0, BEFORE_ALL, set[int]()
        while True:
            page = await self._page(after)
            mended += await self._compare(page, _spans(page, after))
            seen |= {place.class_id for place in page}
            if len(page) < PAGE:
                break
            after = page[-1]
        empty = await self.index.known_classes() - seen
        mended += await self._compare([], [Span(class_id, 0, LAST_KEY) for class_id in empty])
        took = time.monotonic() - start
        self._reconcile_at = time.monotonic() + max(RECONCILE_S, 10 * took)
        return mended

    async def _compare(self, page: Sequence[Place], spans: Sequence[Span]) -> int:
        """Mend what of these parts of classes differs from the page that lies in them."""
        found: dict[UUID, Place] = {}
        for unit in await self.index.within(spans):
            before = found.get(unit.task_id)
            count = before.wanted + 1 if before else 1
            found[unit.task_id] = Place(unit.task_id, unit.class_id, unit.order_key, count)
        wrong = [place for place in page if found.pop(place.task_id, None) != place]
        await self.index.put(wrong)
        await self._copy(found)
        return len(wrong) + len(found)

    async def _copy(self, tasks: Collection[UUID]) -> None:
        """Copy rows. What goes is read once more: another process may have put it back."""
        while tasks:
            places = await self._places(tasks)
            await self.index.put(places)
            gone = [place.task_id for place in places if not place.wanted]
            tasks = [place.task_id for place in await self._places(gone) if place.wanted]

    async def _places(self, tasks: Collection[UUID]) -> list[Place]:
        if not tasks:
            return []
        async with self._database.connection() as connection:
            rows = await connection.fetch(_sql["places"], list(tasks), self._clock.now())
        return [Place(*row) for row in rows]

    async def _page(self, after: Place) -> list[Place]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                _sql["ready_page"],
                after.class_id,
                after.order_key,
                after.task_id,
                self._clock.now(),
                PAGE,
            )
        return [Place(*row) for row in rows]


def _spans(page: Sequence[Place], after: Place) -> list[Span]:
    """The parts of classes from the last page to the end of this one."""
    classes = {place.class_id for place in page} | ({after.class_id} - {BEFORE_ALL.class_id})
    is_cut = len(page) == PAGE
    return [
        Span(
            class_id,
            after.order_key if class_id == after.class_id else 0,
            page[-1].order_key if is_cut and class_id == page[-1].class_id else LAST_KEY,
        )
        for class_id in sorted(classes)
    ]
