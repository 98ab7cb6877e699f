"""Hurts a platform at moments of its work that a seed decides."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

from tests.chaos.engine import Engine

Strike = Callable[[], Awaitable[None]]


class Monkey:
    """Every kind of strike equally often and some more, in an order and at times of its own."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.struck: Counter[str] = Counter()
        self._random = chance = random.Random(seed)  # noqa: S311 - a choice of deeds
        self._kinds: dict[str, Strike] = {
            "api": lambda: engine.kill_one(engine.apis, chance),
            "scheduler": lambda: engine.kill_one(engine.schedulers, chance),
            "referee": lambda: engine.kill_one(engine.referees, chance),
            "worker": lambda: engine.kill_one(engine.workers, chance),
            "frozen leader": engine.freeze_leader,
            "postgres": engine.kill_postgres,
            "valkey": engine.kill_valkey,
            "flush": engine.flush_valkey,
        }

    def plan(self, rounds: int, work: int) -> Iterator[tuple[int, str]]:
        """How much of the work is done when each strike comes, and its kind."""
        kinds = [*self._kinds] * rounds + self._random.choices([*self._kinds], k=2 * rounds)
        self._random.shuffle(kinds)
        moments = sorted(self._random.choices(range(work * 9 // 10), k=len(kinds)))
        return zip(moments, kinds, strict=True)

    async def strike(self, kind: str) -> None:
        """Do it and count it."""
        await self._kinds[kind]()
        self.struck[kind] += 1
