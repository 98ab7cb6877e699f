"""Difficulty: how much work a claim asks for, growing with the square root of the reward."""

from __future__ import annotations

from math import isqrt

import msgspec

MIN_WORK = 1 << 14
MAX_WORK = 1 << 22
BASE_WORK = 1 << 17
BASE_REWARD_NANO = 100_000_000
"""0.1 GSTD asks for ``BASE_WORK`` hashes."""

SLOW_HASHES_PER_MS = 1_000
"""A slow device: proofs must not cost it more than a tenth of the task's time limit."""


class Difficulty(msgspec.Struct, frozen=True):
    """``count`` nonces with ``bits`` zero bits each: ``count * 2**bits`` hashes on average."""

    bits: int
    count: int

    @property
    def work(self) -> int:
        """Expected hashes."""
        return self.count << self.bits


def difficulty_for(reward_nano: int, wall_ms: int) -> Difficulty:
    """``W = clamp(2^17 * sqrt(reward / 0.1 GSTD), 2^14, 2^22)``, monotone in the reward.

    Many easy nonces instead of one hard one keep the time to solve predictable: 8 to 16 of them.
    """
    work = isqrt(BASE_WORK * BASE_WORK * reward_nano // BASE_REWARD_NANO)
    ceiling = min(MAX_WORK, max(MIN_WORK, wall_ms * SLOW_HASHES_PER_MS // 10))
    work = min(max(work, MIN_WORK), ceiling)
    bits = ((work + 15) // 16 - 1).bit_length()
    return Difficulty(bits=bits, count=max(1, (work + (1 << bits >> 1)) >> bits))


def solving_time_ms(difficulty: Difficulty) -> int:
    """Milliseconds in which a slow device has solved it, most probably; at least two seconds."""
    return max(3 * difficulty.work // 500, 2_000)


def offer_life_s(difficulty: Difficulty) -> int:
    """Seconds an offer lives: eight times the work at half a megahash per second, 15 to 300."""
    return min(max(8 * difficulty.work // 500_000, 15), 300)
