"""Smooth weighted round robin: the order nginx documents, and shares that follow the weights."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gstd.dispatch.balance import REMEMBERED, RoundRobin


def test_the_documented_order() -> None:
    turns: RoundRobin[str] = RoundRobin()
    assert "".join(turns.pick({"a": 5, "b": 1, "c": 1}) for _ in range(7)) == "aabacaa"


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=12))
def test_a_whole_round_gives_everybody_exactly_its_weight(weights: list[int]) -> None:
    turns: RoundRobin[int] = RoundRobin()
    table = dict(enumerate(weights))
    won = Counter(turns.pick(table) for _ in range(sum(weights)))
    assert won == table


def test_shares_of_10_000_tasks_are_within_a_twentieth_of_trust() -> None:
    trust = {f"device {n}": 100 + 7919 * n % 901 for n in range(20)}
    turns: RoundRobin[str] = RoundRobin()
    won = Counter(turns.pick(trust) for _ in range(10_000))
    for device, weight in trust.items():
        fair = 10_000 * weight / sum(trust.values())
        assert abs(won[device] - fair) <= 0.05 * fair


@given(st.lists(st.sets(st.integers(0, 9), min_size=1), min_size=1, max_size=200))
def test_credits_always_sum_to_nothing(rounds: list[set[int]]) -> None:
    turns: RoundRobin[int] = RoundRobin()
    for fitting in rounds:
        assert turns.pick(dict.fromkeys(fitting, 3)) in fitting
    assert sum(turns._credit.values()) == 0


def test_devices_that_left_are_forgotten() -> None:
    turns: RoundRobin[int] = RoundRobin()
    for device in range(REMEMBERED + 100):
        turns.pick({device: 1})
    assert len(turns._credit) == REMEMBERED
