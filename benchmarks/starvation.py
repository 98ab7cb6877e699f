"""How long tasks of each priority wait when more comes than can be done, by the rule of the queue.

Simulated hours of ten devices with the queue's real keys and turns, beside rules that others use.
No time of this machine is measured: the same seed gives the same table everywhere.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import msgspec

from gstd.cli.output import out, table
from gstd.dispatch.pops import in_turn
from gstd.kernel.settings import Policy
from gstd.protocol.execution import Limits
from gstd.protocol.types import Priority
from gstd.tasks.order import EPOCH, task_keys

POLICY = Policy()
LEVELS = tuple(Priority)
DEVICES = 10
LOAD = 1.1
MEAN_WORK_MS = 1_000
MEAN_SLACK_MS = 600_000
NEVER = 30 * 24 * 3_600_000
FLOOD = (0.30, 0.60, 0.06, 0.04)
"""Shares of critical, high, normal and low: the two urgent levels alone fill the devices."""

MIXED = (0.10, 0.20, 0.40, 0.30)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A task that comes; times in milliseconds. ``order_key`` is its place in our queue."""

    order_key: int
    task_id: UUID
    at: int
    level: int
    deadline: int
    work: int


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule did to one level: longest wait of what began, share that never began."""

    rule: str
    mix: str
    level: Priority
    tasks: int
    longest_wait_s: float
    unserved: float
    late: float
    """Share of the tasks with a deadline that began too late to meet it."""


Rank = Callable[[Arrival], tuple[int, ...]]


@dataclass(slots=True)
class Ranked:
    """A queue that always takes the smallest rank."""

    rank: Rank
    _heap: list[tuple[tuple[int, ...], UUID, Arrival]] = field(default_factory=list)

    def push(self, task: Arrival) -> None:
        heapq.heappush(self._heap, (self.rank(task), task.task_id, task))

    def pop(self, _: int) -> Arrival | None:
        return heapq.heappop(self._heap)[2] if self._heap else None


@dataclass(slots=True)
class OurQueue:
    """The marketplace's queue: levels, virtual deadlines, and every so often the most overdue."""

    _levels: list[list[tuple[int, UUID, Arrival]]] = field(
        default_factory=lambda: [[] for _ in LEVELS]
    )
    _popped: int = 0

    def push(self, task: Arrival) -> None:
        heapq.heappush(self._levels[task.level], (task.order_key, task.task_id, task))

    def pop(self, now: int) -> Arrival | None:
        heads = [level[0][2] for level in self._levels if level]
        chosen = next(in_turn(heads, self._popped, POLICY.overdue_every, now), None)
        if chosen is not None:
            self._popped += 1
            heapq.heappop(self._levels[chosen.level])
        return chosen


RULES: dict[str, Callable[[], Ranked | OurQueue]] = {
    "earliest deadline first": lambda: Ranked(lambda task: (task.deadline, task.at)),
    "strict levels, then deadline": lambda: Ranked(
        lambda task: (task.level, task.deadline, task.at)
    ),
    "first come first served": lambda: Ranked(lambda task: (task.at,)),
    "ours": OurQueue,
}


def arrivals(mix: tuple[float, ...], hours: float, seed: int = 1) -> Iterator[Arrival]:
    """A Poisson stream of tasks with exponential work, half of them with deadlines."""
    chance = random.Random(seed)  # noqa: S311 - a simulation
    at = 0.0
    number = 0
    while at < hours * 3_600_000:
        at += chance.expovariate(LOAD * DEVICES / MEAN_WORK_MS)
        level = chance.choices(range(len(LEVELS)), mix)[0]
        slack = chance.expovariate(1 / MEAN_SLACK_MS) if chance.random() < 0.5 else NEVER
        work = max(1, round(chance.expovariate(1 / MEAN_WORK_MS)))
        deadline = round(at + work + slack)
        number += 1
        yield Arrival(
            _key(round(at), level, deadline), UUID(int=number), round(at), level, deadline, work
        )


def _key(at: int, level: int, deadline: int) -> int:
    """The key that a single task of a requester without other work gets."""
    [key] = task_keys(
        level=level,
        count=1,
        lead_ms=0,
        deadline=EPOCH + timedelta(milliseconds=deadline),
        limits=Limits(fuel=MEAN_WORK_MS * POLICY.slow_fuel_per_ms),
        policy=POLICY,
        now=EPOCH + timedelta(milliseconds=at),
    )
    return key


def simulate(rule: str, mix: tuple[float, ...], hours: float) -> list[Waiting]:
    """What a rule does to each level in so many hours."""
    queue = RULES[rule]()
    tasks = list(arrivals(mix, hours))
    free = [0] * DEVICES
    began: dict[UUID, int] = {}
    coming = iter(tasks)
    following = next(coming, None)
    end = round(hours * 3_600_000)
    while (now := heapq.heappop(free)) < end:
        while following is not None and following.at <= now:
            queue.push(following)
            following = next(coming, None)
        task = queue.pop(now)
        if task is None:
            heapq.heappush(free, end if following is None else max(now + 1, following.at))
            continue
        began[task.task_id] = now
        heapq.heappush(free, now + task.work)
    name = "flood" if mix is FLOOD else "mixed"
    return [_waiting(rule, name, level, tasks, began) for level in range(len(LEVELS))]


def _waiting(
    rule: str, mix: str, level: int, tasks: list[Arrival], began: dict[UUID, int]
) -> Waiting:
    own = [task for task in tasks if task.level == level]
    waits = [began[task.task_id] - task.at for task in own if task.task_id in began]
    urgent = [task for task in own if task.deadline - task.at < NEVER]
    late = [task for task in urgent if began.get(task.task_id, NEVER) + task.work > task.deadline]
    return Waiting(
        rule=rule,
        mix=mix,
        level=LEVELS[level],
        tasks=len(own),
        longest_wait_s=round(max(waits, default=0) / 1000, 1),
        unserved=round(1 - len(waits) / max(1, len(own)), 3),
        late=round(len(late) / max(1, len(urgent)), 3),
    )


def measure(hours: float = 4) -> list[Waiting]:
    """Every rule on both mixes."""
    return [row for mix in (FLOOD, MIXED) for rule in RULES for row in simulate(rule, mix, hours)]


def show(rows: list[Waiting]) -> None:
    """Print the table: per level the longest wait and the share that never began."""
    for mix in ("flood", "mixed"):
        shown = table(
            f"{mix}: longest wait in s / never began, ten devices at load {LOAD}, 4 hours",
            "rule",
            *(f"#{level}" for level in LEVELS),
        )
        for rule in RULES:
            own = [row for row in rows if (row.rule, row.mix) == (rule, mix)]
            shown.add_row(rule, *(f"{row.longest_wait_s:,.0f} / {row.unserved:.0%}" for row in own))
        out.print(shown)


if __name__ == "__main__":
    found = measure()
    if "--json" in sys.argv:
        print(msgspec.json.encode(found).decode())
    else:
        show(found)
