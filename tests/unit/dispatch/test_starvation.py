"""A flood of urgent work: what must not wait does not, and what can wait still gets its turn."""

from __future__ import annotations

from benchmarks.starvation import FLOOD, MEAN_WORK_MS, MIXED, simulate
from gstd.protocol.types import Priority

HOURS = 4


def test_urgent_work_is_prompt_and_nothing_starves() -> None:
    rows = {row.level: row for row in simulate("ours", FLOOD, HOURS)}
    assert rows[Priority.CRITICAL].longest_wait_s < 5 * MEAN_WORK_MS / 1000
    assert rows[Priority.CRITICAL].unserved < 0.001
    assert all(row.unserved < 0.8 for row in rows.values())


def test_strict_levels_would_starve_the_lowest() -> None:
    rows = {row.level: row for row in simulate("strict levels, then deadline", FLOOD, HOURS)}
    assert rows[Priority.LOW].unserved > 0.9


def test_among_mixed_work_higher_levels_wait_less() -> None:
    waits = [row.longest_wait_s for row in simulate("ours", MIXED, HOURS)]
    assert waits == sorted(waits)
