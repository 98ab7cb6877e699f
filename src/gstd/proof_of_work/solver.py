"""The solver over hashlib: one thread, stoppable between slices."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

SLICE = 1 << 14
"""Nonces between two looks at ``should_stop``: about 15 ms."""


class SolvingStoppedError(Exception):
    """The caller asked the solver to stop."""


def solve(
    prefix: str, bits: int, count: int, should_stop: Callable[[], bool] = lambda: False
) -> list[str]:
    """``count`` nonces in ascending order, each with ``bits`` leading zero bits.

    Raises ``SolvingStoppedError`` soon after ``should_stop`` says so. Blocks: run it in a thread.
    """
    state = hashlib.sha256(prefix.encode("ascii"))
    limit = 1 << (256 - bits)
    found: list[str] = []
    nonce = 0
    while len(found) < count:
        if should_stop():
            raise SolvingStoppedError
        for value in range(nonce, nonce + SLICE):
            text = f"{value:016x}"
            attempt = state.copy()
            attempt.update(text.encode("ascii"))
            if int.from_bytes(attempt.digest(), "big") < limit:
                found.append(text)
                if len(found) == count:
                    break
        nonce += SLICE
    return found
