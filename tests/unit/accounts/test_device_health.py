"""The circuit breaker and the quota: how a device goes out, rests and comes back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gstd.accounts.health import Circuit, Health, cool_down
from gstd.kernel.settings import Policy

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy()


def out(health: Health, now: datetime = NOW, jitter: float = 1.0) -> Health:
    """After as many failures in a row as it takes."""
    return health.failed(POLICY.breaker_failures, now, POLICY, jitter)


def test_failures_in_a_row_open_the_circuit_and_a_success_between_them_does_not() -> None:
    health = Health(quota=64)
    for _ in range(POLICY.breaker_failures - 1):
        health = health.failed(1, NOW, POLICY, 1.0)
    assert health.circuit(NOW) is Circuit.CLOSED
    assert health.succeeded(1, POLICY).failed(1, NOW, POLICY, 1.0).circuit(NOW) is Circuit.CLOSED
    assert health.failed(1, NOW, POLICY, 1.0).circuit(NOW) is Circuit.OPEN


def test_after_the_cool_down_one_task_is_the_probe() -> None:
    health = out(Health(quota=64))
    assert health.capacity(0, NOW) == 0
    back = NOW + timedelta(milliseconds=POLICY.breaker_base_ms)
    assert health.circuit(back) is Circuit.HALF_OPEN
    assert (health.capacity(0, back), health.capacity(1, back)) == (1, 0)
    assert health.succeeded(1, POLICY).circuit(back) is Circuit.CLOSED


def test_a_failed_probe_rests_longer_each_time_up_to_the_longest() -> None:
    health, now = Health(quota=64), NOW
    health = out(health)
    rests = []
    for _ in range(200):
        assert health.ejected_until is not None
        rests.append(health.ejected_until - now)
        now = health.ejected_until
        health = health.failed(1, now, POLICY, 1.0)
    assert rests[:3] == [timedelta(milliseconds=POLICY.breaker_base_ms * n) for n in (1, 2, 3)]
    assert max(rests) == timedelta(milliseconds=POLICY.breaker_longest_ms)


def test_what_it_held_when_it_was_taken_out_does_not_count_twice() -> None:
    health = out(Health(quota=64))
    assert health.failed(10, NOW, POLICY, 1.0).ejected_until == health.ejected_until


def test_the_quota_halves_and_heals() -> None:
    health = Health(quota=64).failed(2, NOW, POLICY, 1.0)
    assert health.quota == 16
    assert health.succeeded(2, POLICY).quota == 64
    assert health.succeeded(100, POLICY).quota == POLICY.max_quota


def test_in_a_panic_an_open_circuit_lets_one_try() -> None:
    health = out(Health(quota=64))
    assert (health.capacity(0, NOW, is_panic=True), health.capacity(1, NOW, is_panic=True)) == (
        1,
        0,
    )


@given(st.integers(1, 1000), st.floats(0, 1))
def test_returns_are_spread_over_the_last_fifth(ejections: int, jitter: float) -> None:
    longest = min(POLICY.breaker_base_ms * ejections, POLICY.breaker_longest_ms)
    rest = cool_down(ejections, POLICY, jitter) / timedelta(milliseconds=1)
    assert longest * 0.8 - 1 <= rest <= longest + 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 100_000))))
def test_nothing_ever_leaves_its_bounds(history: list[tuple[bool, int, int]]) -> None:
    health, now = Health(quota=POLICY.first_quota), NOW
    for is_success, times, later_ms in history:
        now += timedelta(milliseconds=later_ms)
        if is_success:
            health = health.succeeded(times, POLICY)
        else:
            health = health.failed(times, now, POLICY, 0.5)
        assert 1 <= health.quota <= POLICY.max_quota
        assert health.ejections >= 0
        assert 0 <= health.capacity(0, now) <= health.quota
        if health.circuit(now) is Circuit.CLOSED:
            assert health.failures < POLICY.breaker_failures
