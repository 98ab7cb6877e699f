"""Measures what the autoscale signal is made of: one statement, and the bus for presence."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta

from gstd.bus.bus import Bus
from gstd.database.connection import Connection, Database, to_struct
from gstd.database.sql import load_queries
from gstd.dispatch.autoscale import Load, signal_of
from gstd.kernel.clock import Clock
from gstd.kernel.settings import Policy
from gstd.proof_of_work.difficulty import SLOW_HASHES_PER_MS
from gstd.protocol.autoscale import AutoscaleSignal
from gstd.protocol.work import MAX_WAIT_MS

_sql = load_queries("gstd.dispatch")

COUNTED = 20_000
"""Rows beyond it are not counted, so that one look has a price that does not grow."""

FRESH_S = 1.0
"""How old a signal may be: every account may ask, and nobody follows it faster."""

ATTEMPTS_LATELY = 200
"""The mean service time is that of so many attempts, the last submitted ones."""

HASHES_PER_S = 1_000 * SLOW_HASHES_PER_MS
"""How fast a slot is taken to solve its proof of work: until the claim it is busy, too."""

ONLINE_WITHIN_MS = 2 * MAX_WAIT_MS
"""An idle device asks again when its long poll ends; one that missed two of them is gone."""


async def measure(connection: Connection, policy: Policy, now: datetime) -> Load:
    """The load at this moment. Reads only what waits, runs or ended last, never a whole table."""
    since = now - timedelta(seconds=policy.autoscale_arrivals_s)
    row = await connection.fetchrow(
        _sql["autoscale_load"], now, since, COUNTED, ATTEMPTS_LATELY, HASHES_PER_S
    )
    assert row is not None
    return to_struct(row, Load)


class Signal:
    """The autoscale signal as one process tells it, measured once a second however many ask."""

    def __init__(self, database: Database, bus: Bus, policy: Policy, clock: Clock) -> None:
        self._database = database
        self._bus = bus
        self._policy = policy
        self._clock = clock
        self._measuring = asyncio.Lock()
        self._last: AutoscaleSignal | None = None
        self._stale_at = 0.0

    async def read(self) -> AutoscaleSignal:
        """How many slots the work needs, and why; at most ``FRESH_S`` old."""
        async with self._measuring:
            if self._last is None or time.monotonic() >= self._stale_at:
                self._last = await self._measure()
                self._stale_at = time.monotonic() + FRESH_S
            return self._last

    async def _measure(self) -> AutoscaleSignal:
        now = self._clock.now()
        online = await self._bus.seen_since(int(now.timestamp() * 1000) - ONLINE_WITHIN_MS)
        async with self._database.connection() as connection:
            load = await measure(connection, self._policy, now)
        return signal_of(load, online, self._policy)
