"""Difficulty follows the reward; the solver is complete, ordered and can be stopped."""

from __future__ import annotations

import hashlib
from math import isqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gstd.proof_of_work.challenge import leading_zero_bits
from gstd.proof_of_work.difficulty import (
    MAX_WORK,
    MIN_WORK,
    Difficulty,
    difficulty_for,
    offer_life_s,
)
from gstd.proof_of_work.solver import SLICE, SolvingStoppedError, solve

GSTD = 1_000_000_000
MINUTE_MS = 60_000
rewards = st.integers(1, 10**6 * GSTD)
walls = st.integers(100, MINUTE_MS)


@pytest.mark.parametrize(
    ("reward", "bits", "count"),
    [
        (GSTD // 100, 12, 10),
        (GSTD // 10, 13, 16),
        (GSTD, 15, 13),
        (10 * GSTD, 17, 10),
        (50 * GSTD, 18, 11),
        (102 * GSTD + GSTD // 2, 18, 16),
        (100_000 * GSTD, 18, 16),
        (1, 10, 16),
    ],
)
def test_the_published_table_holds(reward: int, bits: int, count: int) -> None:
    assert difficulty_for(reward, MINUTE_MS) == Difficulty(bits, count)


@given(rewards, rewards, walls)
def test_a_higher_reward_never_asks_for_less_work(one: int, other: int, wall_ms: int) -> None:
    low, high = sorted((one, other))
    assert difficulty_for(low, wall_ms).work <= difficulty_for(high, wall_ms).work


@given(rewards, walls)
def test_work_stays_near_the_formula_and_within_its_bounds(reward: int, wall_ms: int) -> None:
    difficulty = difficulty_for(reward, wall_ms)
    ceiling = min(MAX_WORK, max(MIN_WORK, wall_ms * 100))
    wanted = min(max(isqrt((1 << 34) * reward // (GSTD // 10)), MIN_WORK), ceiling)
    assert 8 <= difficulty.count <= 16
    assert abs(difficulty.work - wanted) <= wanted * 0.0625
    assert difficulty.bits * difficulty.count >= 64


@given(rewards, walls)
def test_offers_live_between_a_quarter_and_five_minutes(reward: int, wall_ms: int) -> None:
    assert 15 <= offer_life_s(difficulty_for(reward, wall_ms)) <= 300


@given(st.text("0123456789abcdef", min_size=1, max_size=200), st.integers(0, 6), st.integers(1, 6))
def test_solutions_are_the_first_valid_nonces_in_ascending_order(
    prefix: str, bits: int, count: int
) -> None:
    nonces = solve(prefix, bits, count)
    values = [int(nonce, 16) for nonce in nonces]
    valid = [
        value
        for value in range(values[-1] + 1)
        if leading_zero_bits(hashlib.sha256(f"{prefix}{value:016x}".encode()).digest()) >= bits
    ]
    assert values == valid
    assert all(len(nonce) == 16 for nonce in nonces)
    assert len(nonces) == count


def test_the_solver_goes_on_into_the_next_slice() -> None:
    assert int(solve("prefix", 0, SLICE + 2)[-1], 16) == SLICE + 1


def test_the_solver_stops_when_asked_between_two_slices() -> None:
    looks = 0

    def should_stop() -> bool:
        nonlocal looks
        looks += 1
        return looks == 3

    with pytest.raises(SolvingStoppedError):
        solve("prefix", 255, 1, should_stop)
    assert looks == 3
