"""Smooth weighted round robin: who of the fitting devices gets the next task.

The algorithm of nginx (commit 27e9498): every candidate's credit grows by its weight, the largest
credit wins and pays the sum of the weights. With weights 5, 1, 1 the order is a a b a c a a, so
nobody gets its share in bursts.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

REMEMBERED = 10_000
"""Credits kept at most; those of devices that have not come for longest are forgotten first."""


class RoundRobin(Generic[K]):
    """The credits of one process. They live on between turns, so shares hold over time."""

    def __init__(self) -> None:
        self._credit: dict[K, int] = {}

    def pick(self, weights: Mapping[K, int]) -> K:
        """The winner among at least one candidate; weights are positive."""
        for key, weight in weights.items():
            assert weight > 0, "a weight is positive"
            self._credit[key] = self._credit.pop(key, 0) + weight
        winner = max(weights, key=lambda key: self._credit[key])
        self._credit[winner] -= sum(weights.values())
        self._forget()
        return winner

    def _forget(self) -> None:
        while len(self._credit) > REMEMBERED:
            del self._credit[next(iter(self._credit))]
