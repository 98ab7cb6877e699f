"""Dividing nano without losing any: pure arithmetic on integers."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID


def split(total: int, weights: Sequence[int], keys: Sequence[UUID]) -> list[int]:
    """Divide ``total`` in proportion to ``weights``, by largest remainder.

    Every share is rounded down; what is left over goes, one nano each, to the largest remainders,
    among equals to the lowest key. Keys differ, and at least one weight is above zero.
    """
    if total < 0 or any(weight < 0 for weight in weights):
        raise ValueError("a total and its weights are at least zero")
    if len(keys) != len(weights) or len(set(keys)) != len(keys):
        raise ValueError("every weight has a key of its own")
    whole = sum(weights)
    if whole == 0:
        raise ValueError("nobody has a weight")
    shares = [total * weight // whole for weight in weights]
    by_remainder = sorted(
        range(len(weights)), key=lambda i: (-(total * weights[i] % whole), keys[i])
    )
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def scaled(reward: int, fee: int, numerator: int, denominator: int) -> tuple[int, int]:
    """``numerator / denominator`` of a reward, rounded down, and the fee on that part.

    The fee part is in proportion to the reward part, rounded up, and never above ``fee``. No
    reward, no fee.
    """
    if reward <= 0 or fee < 0:
        raise ValueError("a reward is above zero and its fee not below")
    if not 0 <= numerator <= denominator or denominator == 0:
        raise ValueError("a part is between nothing and the whole")
    part = reward * numerator // denominator
    return part, min(fee, -(-fee * part // reward))
