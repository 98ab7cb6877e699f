"""The static key against a plain model: levels, deadlines, age, shares; and what starves by it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gstd.kernel.settings import Policy
from gstd.protocol.execution import Limits
from gstd.tasks.order import (
    PLACES,
    TIME_MASK,
    faded_lead,
    lead_after,
    longest_run_ms,
    ms_since_epoch,
    order_key,
    task_keys,
    virtual_deadline,
    virtual_ms_of,
)

POLICY = Policy()
NOW = datetime(2026, 6, 1, tzinfo=UTC)
LEVELS = st.integers(0, 3)
TIMES = st.integers(0, TIME_MASK)
SHORT = Limits(fuel=POLICY.slow_fuel_per_ms * 1_000)


@given(st.lists(st.tuples(LEVELS, TIMES, st.integers(0, PLACES - 1))))
def test_keys_sort_like_level_time_and_place(tasks: list[tuple[int, int, int]]) -> None:
    assert sorted(tasks, key=lambda task: order_key(*task)) == sorted(tasks)


@given(LEVELS, TIMES, st.integers(0, 10_000))
def test_a_double_holds_every_key_and_the_time_comes_back(
    level: int, time: int, place: int
) -> None:
    key = order_key(level, time, place)
    assert int(float(key)) == key < 2**53
    assert virtual_ms_of(key) == time


@given(
    st.sampled_from(POLICY.priority_bands_ms),
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    st.integers(1, 60_000),
)
def test_earlier_deadlines_and_older_tasks_come_first_within_the_band(
    band: tuple[int, int], start: int, one: int, other: int, run_ms: int
) -> None:
    low, high = band
    sooner, later = sorted((one, other))
    first = virtual_deadline(start, sooner, run_ms, band)
    assert start + low <= first <= virtual_deadline(start, later, run_ms, band) <= start + high
    assert first <= virtual_deadline(start + 1, sooner, run_ms, band)


@given(st.integers(1, 300), st.integers(0, 10**6), LEVELS)
def test_tasks_made_together_keep_their_order(count: int, lead_ms: int, level: int) -> None:
    keys = _keys(level=level, count=count, lead_ms=lead_ms)
    assert keys == sorted(set(keys))


def test_a_small_requester_comes_within_a_few_turns_of_a_large_one() -> None:
    crowd = _keys(count=1000)
    [one] = _keys(count=1, now=NOW + timedelta(seconds=1))
    before = sum(key < one for key in crowd)
    assert before <= POLICY.fair_share_slots + 1


def test_equal_requesters_with_full_queues_take_turns() -> None:
    """Two requesters make chunk after chunk; whoever was handed out more is dated later."""
    leads = {"a": 0, "b": 0}
    queue: list[tuple[int, str]] = []
    served = {"a": 0, "b": 0}
    for _ in range(20):
        for name, lead_ms in list(leads.items()):
            if sum(owner == name for _, owner in queue) < 50:
                queue += [(key, name) for key in _keys(count=100, lead_ms=lead_ms)]
                leads[name] += lead_after(100, SHORT, POLICY)
        queue.sort()
        for _, name in queue[:60]:
            served[name] += 1
        del queue[:60]
    assert abs(served["a"] - served["b"]) <= 60


@given(st.integers(0, 10**9), st.integers(0, 10**7), st.integers(0, 10**7))
def test_a_lead_only_fades(lead_ms: int, sooner: int, later: int) -> None:
    first, last = sorted((sooner, later))
    assert 0 <= faded_lead(lead_ms, last, 600_000) <= faded_lead(lead_ms, first, 600_000) <= lead_ms


def test_half_of_a_long_lead_is_forgiven_in_a_half_life() -> None:
    assert faded_lead(10_000_000, 600_000, 600_000) == (10_000_000 - 600_000) // 2


def test_the_wall_clock_bounds_what_fuel_would_take() -> None:
    assert longest_run_ms(SHORT, POLICY) == 1_000
    assert longest_run_ms(Limits(fuel=10**15, wall_ms=2_000), POLICY) == 2_000
    assert longest_run_ms(Limits(fuel=1), POLICY) == 1


def _keys(*, count: int, level: int = 2, lead_ms: int = 0, now: datetime = NOW) -> list[int]:
    return task_keys(
        level=level,
        count=count,
        lead_ms=lead_ms,
        deadline=NOW + timedelta(days=30),
        limits=SHORT,
        policy=POLICY,
        now=now,
    )


def test_times_count_from_2025() -> None:
    assert ms_since_epoch(datetime(2025, 1, 1, 0, 0, 1, tzinfo=UTC)) == 1_000
