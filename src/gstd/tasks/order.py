"""The queue's order: a static key per task, so that nothing is ever rescored.

A task's key is its priority level, then its *virtual deadline*, then its place among tasks made in
the same millisecond. The virtual deadline is when the task starts to count (now, or later for a
requester whose use runs ahead of its share) plus a wait inside its level's band, the shorter the
nearer its real deadline is. Age needs no rescoring, because everybody ages alike.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gstd.kernel.settings import Policy
from gstd.protocol.execution import Limits
from gstd.protocol.types import Priority

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
"""From where keys count milliseconds; 41 bits of them last until 2094."""

PRIORITY_LEVELS = {level: number for number, level in enumerate(Priority)}
"""critical 0, high 1, normal 2, low 3."""

LEVEL_SHIFT = 51
TIME_SHIFT = 10
TIME_MASK = (1 << 41) - 1
PLACES = 1 << TIME_SHIFT

MILLISECOND = timedelta(milliseconds=1)


def order_key(level: int, virtual_ms: int, place: int) -> int:
    """The key, below 2^53 so that a double holds it: 2 bits level, 41 bits time, 10 bits place."""
    return level << LEVEL_SHIFT | (virtual_ms & TIME_MASK) << TIME_SHIFT | place % PLACES


def virtual_ms_of(key: int) -> int:
    """The virtual deadline in a key, in milliseconds since ``EPOCH``."""
    return key >> TIME_SHIFT & TIME_MASK


def ms_since_epoch(at: datetime) -> int:
    """Milliseconds since ``EPOCH``."""
    return (at - EPOCH) // MILLISECOND


def virtual_deadline(start_ms: int, deadline_ms: int, run_ms: int, band: tuple[int, int]) -> int:
    """``start + lo + (hi - lo) * s / (s + hi - lo)`` with the slack ``s`` before the last start.

    Grows with the start and with the deadline, and never leaves the level's band: an absurdly
    short deadline gains no more than the band's width.
    """
    low, high = band
    width = high - low
    slack = max(0, deadline_ms - run_ms - start_ms)
    return start_ms + low + (width * slack // (slack + width) if slack else 0)


def longest_run_ms(limits: Limits, policy: Policy) -> int:
    """How long a task may take: its fuel at the speed of a slow device, at most its wall clock."""
    return expected_run_ms(limits.fuel, limits.wall_ms, policy.slow_fuel_per_ms)


def expected_run_ms(fuel: int, wall_ms: int, fuel_per_ms: float) -> int:
    """How long a task may take at this speed, at most its wall clock."""
    return max(1, int(min(wall_ms, fuel / fuel_per_ms)))


def task_keys(
    *,
    level: int,
    count: int,
    lead_ms: int,
    deadline: datetime,
    limits: Limits,
    policy: Policy,
    now: datetime,
) -> list[int]:
    """Keys of tasks made together, each dated one share of a slot after the one before.

    ``lead_ms`` is how far their requester's use ran ahead before them.
    """
    run_ms = longest_run_ms(limits, policy)
    start_ms = ms_since_epoch(now) + lead_ms
    deadline_ms = ms_since_epoch(deadline)
    band = policy.priority_bands_ms[level]
    return [
        order_key(
            level,
            virtual_deadline(
                start_ms + place * run_ms // policy.fair_share_slots, deadline_ms, run_ms, band
            ),
            place,
        )
        for place in range(count)
    ]


def lead_after(count: int, limits: Limits, policy: Policy) -> int:
    """By how much making so many tasks moves a requester's use ahead, in milliseconds."""
    return count * longest_run_ms(limits, policy) // policy.fair_share_slots


def faded_lead(lead_ms: int, elapsed_ms: int, half_life_ms: int) -> int:
    """What is left of a lead: its share was used up meanwhile, and half is forgiven per half life.

    So whoever used what nobody else wanted is not punished for it for long.
    """
    left = max(0, lead_ms - max(0, elapsed_ms))
    return int(left * 0.5 ** (max(0, elapsed_ms) / half_life_ms))
