"""The scheduler: what must happen as time passes. Any number may run; one of them leads.

Everything here only repeats what a transaction that failed to come would have done, so a
scheduler may die at any point. It may also sleep at any point: each step asks first whether another
scheduler leads by now, and a step that began before that is held by the locks of its rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import structlog

from gstd.blobs.store import Blobs
from gstd.bus.bus import Bus, Hint
from gstd.database.connection import Connection, Database, DatabaseUnavailableError
from gstd.dispatch.indexing import Indexer
from gstd.events import audit
from gstd.events import service as events
from gstd.events.incidents import record
from gstd.kernel.clock import Clock
from gstd.kernel.settings import Policy
from gstd.ledger import service as ledger
from gstd.maintenance.leadership import Leadership, SupersededError
from gstd.protocol.checkpoint import LogKey
from gstd.tasks.advance import admit_delayed, expire_leases, expire_tasks, reconsider
from gstd.tasks.jobs import close_jobs, end_idle_jobs, expire_jobs, fill_jobs
from gstd.tasks.opening import open_children, reconsider_blocked, stop_jobs
from gstd.tasks.supersede import supersede_stale
from gstd.verification.runs import abandon_runs

log = structlog.get_logger()

TICK_S = 1.0
AWAY_S = 0.5
"""How long to wait before the database is tried again."""

RECONCILE_EVERY = 10
"""Ticks between two looks at everything that is not final."""

QUIET_S = 5.0
"""How long a task must not have moved before the reconciler looks at it."""

VESTED_AT_ONCE = 1_000

T = TypeVar("T")
Work = Callable[[Connection, datetime], Awaitable[T]]


class Scheduler:
    """All periodic work of one process."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        bus: Bus,
        policy: Policy,
        clock: Clock,
        key: LogKey,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._bus = bus
        self._policy = policy
        self._clock = clock
        self._key = key
        self._leadership = Leadership(database, clock, policy.leader_lease_ms)
        self._indexer = Indexer(database, bus, clock)
        self._leads = False
        self._ticks = 0

    async def serve(self) -> None:
        """Work until cancelled, then let another process lead."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._loop("lead", Hint.TASKS, self._lead))
                group.create_task(self._loop("open", Hint.TASKS, self.open_children))
                group.create_task(self._loop("number", Hint.OUTBOX, self._number))
                group.create_task(self._loop("seal", None, self.seal_events))
                group.create_task(self._loop("index", None, self._keep_index))
        finally:
            with contextlib.suppress(DatabaseUnavailableError):
                await self._leadership.resign()

    async def _loop(
        self, name: str, wake: Hint | None, turn: Callable[[], Awaitable[None]]
    ) -> None:
        """Without ``wake`` there is one turn a tick, however much there is to do."""
        with self._bus.listener(wake) if wake else nullcontext(asyncio.Event()) as hint:
            while True:
                hint.clear()
                try:
                    await turn()
                except DatabaseUnavailableError:
                    await asyncio.sleep(AWAY_S)
                except Exception as error:  # noqa: BLE001 - one bad turn must not end the loop
                    await record(
                        self._database, error, place=f"scheduler.{name}", now=self._clock.now()
                    )
                    await asyncio.sleep(AWAY_S)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(hint.wait(), TICK_S)

    async def _lead(self) -> None:
        await self._at_leisure(self.lead)

    async def lead(self) -> None:
        """Do what is due if this scheduler leads, as long as it does."""
        self._leads = await self._leadership.lead() is not None
        if self._leads:
            with contextlib.suppress(SupersededError):
                await self.tick()

    async def open_children(self) -> None:
        """Open or end what waited for tasks that ended, and what waits for that, to the end."""
        policy, blobs = self._policy, self._blobs
        moved = False
        while True:
            news = await self._run(lambda conn, now: supersede_stale(conn, policy, now))
            news += await self._run(lambda conn, now: stop_jobs(conn, policy, now))
            news += await self._run(lambda conn, now: open_children(conn, blobs, policy, now))
            if not news:
                break
            moved = True
        if moved:
            await self._bus.publish(Hint.QUEUE, Hint.OUTBOX)

    async def _at_leisure(self, turn: Callable[[], Awaitable[None]]) -> None:
        """A turn, and a rest in proportion: hints come far more often than there is much to do."""
        start = time.monotonic()
        await turn()
        worked_s = time.monotonic() - start
        await asyncio.sleep(events.rest_after(worked_s, self._policy.background_percent))

    async def _number(self) -> None:
        await self._at_leisure(self.number_events)

    async def _keep_index(self) -> None:
        """By the leader, beside everything else: a long queue takes seconds."""
        if self._leads:
            await self._indexer.keep()

    async def number_events(self) -> None:
        """Number what is committed, and tell those who wait for events."""
        while moved := await self._run(lambda connection, _: events.number(connection)):
            await self._bus.publish(Hint.EVENTS)
            if moved < events.NUMBERED_AT_ONCE:
                return

    async def seal_events(self) -> None:
        """Seal what is numbered: a checkpoint for every batch."""
        limit = audit.SEALED_AT_ONCE
        while await self._run(lambda conn, now: audit.seal(conn, self._key, now, limit)) == limit:
            pass

    async def tick(self) -> None:
        """Everything that is due now, each kind in its own transaction.

        Raises ``SupersededError`` at the first step that finds another scheduler leading.
        """
        policy, blobs = self._policy, self._blobs
        expired = await self._step(lambda conn, now: expire_leases(conn, policy, now))
        expired += await self._step(lambda conn, now: expire_tasks(conn, policy, now))
        expired += await self._step(expire_jobs)
        expired += await self._step(lambda conn, now: end_idle_jobs(conn, policy, now))
        await self._step(lambda conn, now: abandon_runs(conn, policy, now))
        made = await self._step(admit_delayed)
        while filled := await self._step(lambda conn, now: fill_jobs(conn, blobs, policy, now)):
            made += filled
        vested = await self._step(lambda conn, now: _vest(conn, policy, now))
        closed = await self._step(_close)
        if self._ticks % RECONCILE_EVERY == 0:
            await self.reconcile()
            await self._step(lambda conn, _: ledger.fold(conn, policy.fold_limit))
        self._ticks += 1
        if expired or made:
            await self._bus.publish(Hint.QUEUE, Hint.REFEREE, Hint.OUTBOX)
        elif vested or closed:
            await self._bus.publish(Hint.OUTBOX)

    async def reconcile(self) -> None:
        """Advance every task that is not final and has not moved for a while.

        There may be many, so the lease is renewed on the way.
        """
        after: UUID | None = UUID(int=0)
        while after is not None:
            await self._leadership.renew()
            after = await self._reconsider(after)
        after = UUID(int=0)
        while after is not None:
            await self._leadership.renew()
            after = await self._reconsider_blocked(after)

    async def _reconsider(self, after: UUID) -> UUID | None:
        return await self._step(
            lambda conn, now: reconsider(conn, self._policy, now, after=after, quiet_s=QUIET_S)
        )

    async def _reconsider_blocked(self, after: UUID) -> UUID | None:
        return await self._step(
            lambda conn, now: reconsider_blocked(
                conn, self._blobs, self._policy, now, after=after, quiet_s=QUIET_S
            )
        )

    async def _step(self, work: Work[T]) -> T:
        """One transaction of the leader's work."""

        async def step(connection: Connection) -> T:
            await self._leadership.check(connection)
            return await work(connection, self._clock.now())

        return await self._database.run(step)

    async def _run(self, work: Work[int]) -> int:
        return await self._database.run(lambda conn: work(conn, self._clock.now()))


async def _vest(connection: Connection, policy: Policy, now: datetime) -> int:
    vested = await ledger.vest_due(
        connection, now, VESTED_AT_ONCE, restitution_bps=policy.restitution_bps
    )
    await events.append(
        connection,
        [
            events.Event(
                kind="earning.vested",
                accounts=(item.owner,),
                task_id=item.task_id,
                attempt_id=item.attempt_id,
                data={"amount_nano": str(item.amount)},
            )
            for item in vested
        ],
        now,
    )
    return len(vested)


async def _close(connection: Connection, now: datetime) -> int:
    return len(await close_jobs(connection, now))
