"""Nano are divided without loss, within one nano of the exact share, and the same for everyone."""

from __future__ import annotations

import os
import random
from fractions import Fraction
from itertools import pairwise
from uuid import UUID

import pytest

from gstd.ledger.shares import scaled, split

SCALE = int(os.environ.get("GSTD_TEST_SCALE", "1"))
A, B, C = (UUID(int=number) for number in (1, 2, 3))


def amount(dice: random.Random) -> int:
    """From one nano to 10^18, small ones as likely as large ones."""
    return dice.randint(1, 10 ** dice.randint(0, 18))


def test_a_split_is_exact_fair_stable_and_monotone() -> None:
    dice = random.Random(1)  # noqa: S311 - cases, not secrets
    for _ in range(50_000 * SCALE):
        total, count = amount(dice), dice.randint(1, 6)
        top = 10 ** dice.choice((1, 1, 3, 12))
        weights = [dice.randint(0, top) for _ in range(count)]
        weights[dice.randrange(count)] += 1
        keys = [UUID(int=dice.getrandbits(128)) for _ in range(count)]
        shares = split(total, weights, keys)
        whole = sum(weights)
        assert sum(shares) == total
        for share, weight in zip(shares, weights, strict=True):
            assert abs(share * whole - total * weight) < whole  # less than one nano away
        order = dice.sample(range(count), count)
        assert split(total, [weights[i] for i in order], [keys[i] for i in order]) == [
            shares[i] for i in order
        ]
        ranked = sorted(zip(weights, shares, strict=True))
        for (light, less), (heavy, more) in pairwise(ranked):
            assert less <= more or (light == heavy and less == more + 1)


def test_a_heavier_weight_never_gets_less_of_the_same_total() -> None:
    dice = random.Random(2)  # noqa: S311 - cases, not secrets
    for _ in range(20_000 * SCALE):
        total, count = amount(dice), dice.randint(2, 5)
        weights = [dice.randint(1, 100) for _ in range(count)]
        keys = [UUID(int=dice.getrandbits(128)) for _ in range(count)]
        before = split(total, weights, keys)
        weights[0] += dice.randint(1, 100)
        assert split(total, weights, keys)[0] >= before[0]


def test_a_part_of_a_reward_is_rounded_down_and_its_fee_up() -> None:
    dice = random.Random(3)  # noqa: S311 - cases, not secrets
    for _ in range(30_000 * SCALE):
        reward, fee, denominator = amount(dice), dice.choice((0, amount(dice))), amount(dice)
        numerator = dice.randint(0, denominator)
        part, part_fee = scaled(reward, fee, numerator, denominator)
        assert 0 <= Fraction(reward * numerator, denominator) - part < 1
        assert 0 <= part_fee - Fraction(fee * part, reward) < 1
        assert part_fee <= fee
        assert part > 0 or part_fee == 0
        more = scaled(reward, fee, dice.randint(numerator, denominator), denominator)
        assert more >= (part, part_fee)
        assert scaled(reward, fee, denominator, denominator) == (reward, fee)


def test_equal_remainders_go_to_the_lowest_keys() -> None:
    assert split(2, [1, 1, 1], [C, A, B]) == [0, 1, 1]
    assert split(10, [3, 3, 1], [A, B, C]) == [4, 4, 2]
    assert split(0, [1, 2], [A, B]) == [0, 0]


@pytest.mark.parametrize(
    ("total", "weights", "keys"),
    [
        (-1, [1], [A]),
        (1, [-1, 2], [A, B]),
        (1, [0, 0], [A, B]),
        (1, [], []),
        (1, [1, 1], [A]),
        (1, [1, 1], [A, A]),
    ],
)
def test_a_split_without_sense_is_refused(total: int, weights: list[int], keys: list[UUID]) -> None:
    with pytest.raises(ValueError, match=r"."):
        split(total, weights, keys)


@pytest.mark.parametrize(
    "case", [(0, 1, 1, 1), (1, -1, 1, 1), (1, 1, 2, 1), (1, 1, -1, 1), (1, 1, 0, 0)]
)
def test_a_part_without_sense_is_refused(case: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"."):
        scaled(*case)
