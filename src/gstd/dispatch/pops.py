"""Which task is next among the heads of the queue: a pure rule.

Normally the smallest key. Every so many tasks it is the most overdue head of any level instead, so
that no level starves however much there is above it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Protocol, TypeVar
from uuid import UUID

from gstd.tasks.order import LEVEL_SHIFT, virtual_ms_of

LEVELS = 4


class Keyed(Protocol):
    """Something with a place in the queue."""

    @property
    def order_key(self) -> int: ...

    @property
    def task_id(self) -> UUID: ...


K = TypeVar("K", bound=Keyed)


def in_turn(
    heads: Iterable[K], popped: int, every: int, now_ms: int, cut: Collection[int] = ()
) -> Iterator[K]:
    """The heads in the order in which they are handed out, after ``popped`` others.

    Every ``every``-th one is the head with the smallest virtual deadline among the heads of the
    levels that are due at ``now_ms`` (milliseconds since the order's epoch), if there is one.
    Of levels that are ``cut`` there is more than the heads tell: where one runs out, so does what
    can be said.
    """
    levels: list[deque[K]] = [deque() for _ in range(LEVELS)]
    for head in sorted(heads, key=lambda head: (head.order_key, head.task_id)):
        levels[head.order_key >> LEVEL_SHIFT].append(head)
    while all(levels[level] for level in cut):
        waiting = [level for level in levels if level]
        if not waiting:
            return
        popped += 1
        due = [level for level in waiting if virtual_ms_of(level[0].order_key) <= now_ms]
        if popped % every == 0 and due:
            chosen = min(due, key=lambda level: virtual_ms_of(level[0].order_key))
        else:
            chosen = waiting[0]
        yield chosen.popleft()
