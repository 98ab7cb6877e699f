"""Which head is next, against a model that looks at everything for every pop."""

from __future__ import annotations

from uuid import UUID

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gstd.dispatch.pops import in_turn
from gstd.tasks.order import order_key, virtual_ms_of


class Head(msgspec.Struct, frozen=True):
    order_key: int
    task_id: UUID

    @property
    def level(self) -> int:
        return self.order_key >> 51

    @property
    def due_at(self) -> int:
        return virtual_ms_of(self.order_key)


def head(level: int, virtual_ms: int, number: int = 0) -> Head:
    return Head(order_key(level, virtual_ms, number), UUID(int=number))


def plain(heads: list[Head], popped: int, every: int, now_ms: int) -> list[Head]:
    """The rule read aloud: look at everything that is left, choose, remove."""
    left, order = list(heads), []
    while left:
        popped += 1
        by_key = sorted(left, key=lambda one: (one.order_key, one.task_id))
        chosen = by_key[0]
        if popped % every == 0:
            firsts = {one.level: one for one in reversed(by_key)}
            due = [one for one in firsts.values() if one.due_at <= now_ms]
            chosen = min(due, key=lambda one: (one.due_at, one.level), default=chosen)
        left.remove(chosen)
        order.append(chosen)
    return order


HEADS = st.lists(
    st.builds(head, st.integers(0, 3), st.integers(0, 40), st.integers(0, 9)),
    max_size=30,
    unique=True,
)


@given(HEADS, st.integers(0, 9), st.integers(1, 5), st.integers(0, 40))
def test_the_order_is_that_of_the_rule_read_aloud(
    heads: list[Head], popped: int, every: int, now_ms: int
) -> None:
    assert list(in_turn(heads, popped, every, now_ms)) == plain(heads, popped, every, now_ms)


@given(HEADS, st.integers(0, 9), st.integers(1, 5), st.integers(1, 6))
def test_what_is_cut_off_is_never_overtaken(
    heads: list[Head], popped: int, every: int, depth: int
) -> None:
    """Of each level only the first are known: the order is a beginning of the whole order."""
    known: list[Head] = []
    cut = set()
    for level in range(4):
        of_level = sorted(
            (one for one in heads if one.level == level),
            key=lambda one: (one.order_key, one.task_id),
        )
        known += of_level[:depth]
        if len(of_level) > depth:
            cut.add(level)
    found = list(in_turn(known, popped, every, 20, cut))
    assert found == plain(heads, popped, every, 20)[: len(found)]
    assert len(found) >= min(depth, len(heads))


def test_the_most_overdue_of_any_level_comes_every_fourth_time() -> None:
    flood = [head(0, 100 + place, place) for place in range(8)]
    low = head(3, 50, 99)
    order = list(in_turn([*flood, low], popped=0, every=4, now_ms=200))
    assert order == [*flood[:3], low, *flood[3:]]


def test_what_is_not_due_yet_waits_its_turn() -> None:
    urgent, low = [head(0, 100, place) for place in range(4)], head(3, 500, 99)
    assert list(in_turn([*urgent, low], popped=0, every=4, now_ms=200)) == [*urgent, low]


def test_the_count_goes_on_from_look_to_look() -> None:
    urgent, low = head(0, 100), head(3, 50, 9)
    assert next(in_turn([urgent, low], popped=2, every=4, now_ms=200)) == urgent
    assert next(in_turn([urgent, low], popped=3, every=4, now_ms=200)) == low


def test_no_level_starves_under_a_flood_of_higher_ones() -> None:
    """For as long as critical tasks keep coming, everything that is due is served in time."""
    waiting = [head(level, 10 * level, level) for level in (1, 2, 3)]
    served: list[Head] = []
    for turn in range(20):
        flood = head(0, 1_000 + turn, 100 + turn)
        left = [one for one in waiting if one not in served]
        served.append(next(in_turn([flood, *left], popped=turn, every=4, now_ms=2_000)))
    assert [one for one in served if one in waiting] == waiting
