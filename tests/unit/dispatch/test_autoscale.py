"""The autoscale rule and the pool that follows it: enough slots, no more, and no flapping."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gstd.dispatch.autoscale import Load, Pool, desired_slots, signal_of, workers_for
from gstd.kernel.settings import Policy

POLICY = Policy()
WINDOW_S = 60.0

rates = st.just(0.0) | st.floats(1e-6, 1e4)
services = st.floats(0.001, 600)
counts = st.integers(0, 10**6)
needs = st.lists(st.integers(0, 40), min_size=1, max_size=60)


def slots(arrival_per_s: float, service_s: float, backlog: int = 0, running: int = 0) -> int:
    return desired_slots(
        arrival_per_s=arrival_per_s,
        service_s=service_s,
        backlog=backlog,
        running=running,
        policy=POLICY,
    )


def load(
    backlog: int = 0, arrived: int = 0, service_s: float | None = 1.0, running: int = 0
) -> Load:
    return Load(backlog=backlog, arrived=arrived, service_s=service_s, running=running)


# The rule


@pytest.mark.parametrize(
    ("arrival_per_s", "service_s", "backlog", "running", "expected"),
    [
        (0, 5, 0, 0, 0),
        (7, 1, 0, 0, 10),  # Little: 7 busy slots, 70 % of 10
        (0, 3, 100, 0, 10),  # 300 s of work in 30 s
        (7, 1, 600, 0, 20),  # the larger one counts
        (0, 0.01, 1, 0, 1),
        (0, 5, 0, 3, 3),  # what runs keeps its slots
        (1e6, 60, 0, 0, 10_000),
        (0, 60, 10**9, 20_000, 10_000),
    ],
)
def test_the_rule(
    arrival_per_s: float, service_s: float, backlog: int, running: int, expected: int
) -> None:
    assert slots(arrival_per_s, service_s, backlog, running) == expected


@given(rates, services, counts, counts)
def test_slots_keep_up_and_work_off_unless_they_are_clamped(
    arrival_per_s: float, service_s: float, backlog: int, running: int
) -> None:
    found = slots(arrival_per_s, service_s, backlog, running)
    assert 0 <= found <= POLICY.autoscale_max_slots
    if found < POLICY.autoscale_max_slots:
        assert found * 0.7 >= arrival_per_s * service_s * (1 - 1e-9)
        assert found * POLICY.autoscale_target_wait_s >= backlog * service_s * (1 - 1e-9)
        assert found >= running
    assert (found == 0) == (arrival_per_s == backlog == running == 0)


@given(rates, services, counts, st.floats(1, 10))
def test_more_work_never_needs_fewer_slots(
    arrival_per_s: float, service_s: float, backlog: int, factor: float
) -> None:
    base = slots(arrival_per_s, service_s, backlog)
    assert slots(arrival_per_s * factor, service_s, backlog) >= base
    assert slots(arrival_per_s, service_s * factor, backlog) >= base
    assert slots(arrival_per_s, service_s, math.ceil(backlog * factor)) >= base


# The signal


def test_the_signal_says_why_in_words() -> None:
    signal = signal_of(load(backlog=90, arrived=240, service_s=2.0, running=3), 4, POLICY)
    assert (signal.desired_slots, signal.arrival_per_s, signal.expected_wait_s) == (6, 2.0, 45.0)
    assert signal.words == (
        "90 attempts wait, 3 run, 2 arrive per second and take 2 s each: 6 slots are needed"
    )


def test_before_anything_was_submitted_a_setting_stands_for_the_service_time() -> None:
    signal = signal_of(load(backlog=6, service_s=None), 0, POLICY)
    assert (signal.service_s, signal.desired_slots) == (5.0, 1)


def test_without_devices_nobody_knows_how_long_work_waits() -> None:
    assert signal_of(load(backlog=1), 0, POLICY).expected_wait_s is None
    assert signal_of(load(), 0, POLICY).expected_wait_s == 0.0
    assert "no slots are needed" in signal_of(load(), 9, POLICY).words


@pytest.mark.parametrize(
    ("desired", "per_worker", "share", "workers"),
    [
        (0, 4, 1.0, 0),
        (1, 4, 1.0, 1),
        (8, 4, 1.0, 2),
        (9, 4, 1.0, 3),
        (9, 4, 0.5, 2),
        (3, 1, 0.1, 1),
    ],
)
def test_workers_give_their_share_of_the_slots(
    desired: int, per_worker: int, share: float, workers: int
) -> None:
    assert workers_for(desired, slots=per_worker, share=share) == workers


# The pool


def pool(minimum: int = 0, maximum: int = 20, step: int = 4) -> Pool:
    return Pool(minimum=minimum, maximum=maximum, step=step, window_s=WINDOW_S)


def sizes(follower: Pool, recommendations: list[int], every_s: float = 10.0) -> list[int]:
    return [
        follower.decide(needed, tick * every_s).workers
        for tick, needed in enumerate(recommendations)
    ]


def test_a_pool_grows_at_once_a_step_at_a_time() -> None:
    assert sizes(pool(), [10, 10, 10, 10]) == [4, 8, 10, 10]


def test_it_shrinks_only_after_a_whole_window_and_to_what_that_window_needed() -> None:
    assert sizes(pool(step=20), [9, 3, 2, 5, 1, 1, 1, 1, 1, 1, 1]) == (
        [9, 9, 9, 9, 9, 9, 5, 5, 5, 1, 1]
    )


def test_it_goes_to_zero_only_where_the_minimum_allows_it() -> None:
    assert sizes(pool(), [1] + [0] * 7)[-2:] == [0, 0]
    assert sizes(pool(minimum=1), [1] + [0] * 7)[-2:] == [1, 1]


def test_waves_keep_the_workers_of_the_highest_one() -> None:
    found = sizes(pool(step=20), [8, 0, 0, 8, 0, 0] * 10)
    assert found == [8] * 60


@pytest.mark.parametrize(
    ("recommendations", "words"),
    [
        ([3], "growing from 0 to 3: 3 needed now"),
        ([3, 1], "staying at 3: 3 were needed within 60 s"),
        ([3, 3], "staying at 3: 3 needed now"),
        ([30, 30, 30, 30, 30, 30], "staying at 20, the maximum: 30 needed now"),
        ([1, 0, 0, 0, 0, 0, 0], "shrinking from 1 to 0: at most 0 needed for 60 s"),
        ([0], "staying at 0: 0 needed now"),
    ],
)
def test_every_decision_has_its_reason(recommendations: list[int], words: str) -> None:
    follower = pool()
    said = [follower.decide(n, tick * 10.0).words for tick, n in enumerate(recommendations)]
    assert said[-1] == words


@given(needs, st.integers(0, 3), st.integers(1, 20), st.integers(1, 6), st.floats(0.5, 30))
def test_a_pool_stays_within_its_limits_and_never_flaps(
    recommendations: list[int], minimum: int, above: int, step: int, every_s: float
) -> None:
    maximum = minimum + above
    found = sizes(pool(minimum, maximum, step), recommendations, every_s)
    grew_at = -math.inf
    before = minimum
    for tick, (needed, workers) in enumerate(zip(recommendations, found, strict=True)):
        now_s = tick * every_s
        assert minimum <= workers <= maximum
        assert abs(workers - before) <= step
        wanted = min(max(needed, minimum), maximum)
        if workers > before:
            assert wanted >= workers
            grew_at = now_s
        elif workers < before:
            assert now_s - grew_at >= WINDOW_S  # what started lately is not stopped
            window = [
                min(max(earlier, minimum), maximum)
                for at, earlier in enumerate(recommendations[: tick + 1])
                if at * every_s > now_s - WINDOW_S
            ]
            assert workers >= max(window)
        else:
            assert wanted <= before  # it never stays below what is needed
        before = workers


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 6))
def test_a_steady_need_is_met_and_kept(first: int, then: int, step: int) -> None:
    found = sizes(pool(maximum=40, step=step), [first] * 50 + [then] * 60)
    assert found[49] == first
    assert found[-1] == then
    later = found[50:]
    assert later in (sorted(later), sorted(later, reverse=True))  # one way, not to and fro


@pytest.mark.parametrize(
    ("minimum", "maximum", "step"), [(-1, 2, 1), (3, 2, 1), (0, 0, 1), (0, 1, 0)]
)
def test_a_pool_that_cannot_be_is_refused(minimum: int, maximum: int, step: int) -> None:
    with pytest.raises(ValueError, match="a pool needs"):
        pool(minimum, maximum, step)
