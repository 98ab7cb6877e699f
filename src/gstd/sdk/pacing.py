"""How long to wait between tries, and how long to go on trying."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import msgspec


class Backoff:
    """Pauses with full jitter: each is drawn from zero to a bound that doubles up to a limit."""

    def __init__(
        self, first_s: float, longest_s: float, draw: Callable[[], float] = random.random
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._draw = draw
        self._bound_s = first_s

    def next_s(self) -> float:
        """The next pause, in seconds."""
        pause_s = self._draw() * self._bound_s
        self._bound_s = min(2 * self._bound_s, self._longest_s)
        return pause_s

    def reset(self) -> None:
        """Begin again with short pauses, after a success."""
        self._bound_s = self._first_s


class Pacing(msgspec.Struct, frozen=True, kw_only=True):
    """A call is repeated for ``retry_for_s`` after its first failure, then the failure is raised.

    ``sleep``, ``monotonic`` and ``draw`` (uniform in [0, 1)) are there for tests.
    """

    retry_for_s: float = 10.0
    first_pause_s: float = 0.1
    longest_pause_s: float = 2.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = random.random

    def backoff(self, *, first_s: float | None = None, longest_s: float | None = None) -> Backoff:
        """A new sequence of pauses."""
        return Backoff(
            self.first_pause_s if first_s is None else first_s,
            self.longest_pause_s if longest_s is None else longest_s,
            self.draw,
        )


DEFAULT_PACING = Pacing()
