"""Processor seconds of processes, from ``/proc``."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

_PROC = Path("/proc")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int | None) -> float:
    """What a process and all below it have computed so far, those that ended included."""
    if pid is None:
        return 0.0
    children: dict[int, list[int]] = defaultdict(list)
    spent: dict[int, float] = {}
    for entry in os.listdir(_PROC):  # noqa: PTH208 - thousands of names, no need for paths
        if not entry.isdigit():
            continue
        try:
            stat = (_PROC / entry / "stat").read_text()
        except OSError:
            continue
        fields = stat.rpartition(")")[2].split()
        children[int(fields[1])].append(int(entry))
        spent[int(entry)] = sum(map(int, fields[11:15])) * _TICK_S
    waiting, total = [pid], 0.0
    while waiting:
        one = waiting.pop()
        total += spent.get(one, 0.0)
        waiting += children[one]
    return total
