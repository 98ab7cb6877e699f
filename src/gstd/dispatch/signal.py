"""Measures what the autoscale signal is made of: one statement, and the bus for presence."""

from __future__ import annotations

from datetime import datetime, timedelta

from gstd.bus.bus import Bus
from gstd.database.connection import Connection, Database, to_struct
from gstd.database.sql import load_queries
from gstd.dispatch.autoscale import Load, signal_of
from gstd.kernel.settings import Policy
from gstd.proof_of_work.difficulty import SLOW_HASHES_PER_MS
from gstd.protocol.autoscale import AutoscaleSignal
from gstd.protocol.work import MAX_WAIT_MS

_sql = load_queries("gstd.dispatch")

COUNTED = 50_000
"""Longer queues are counted as this long: more slots than any pool has follow from it already."""

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


async def autoscale_signal(
    database: Database, bus: Bus, policy: Policy, now: datetime
) -> AutoscaleSignal:
    """How many slots the work needs now, and why."""
    online = await bus.seen_since(int(now.timestamp() * 1000) - ONLINE_WITHIN_MS)
    async with database.connection() as connection:
        load = await measure(connection, policy, now)
    return signal_of(load, online, policy)
