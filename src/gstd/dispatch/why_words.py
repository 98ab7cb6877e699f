"""The sentences of ``why``: pure, from facts and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from uuid import UUID

import msgspec

from gstd.accounts.health import Circuit
from gstd.accounts.model import DeviceActor
from gstd.dispatch.asking import Asking
from gstd.dispatch.eligibility import Rule
from gstd.protocol.matching import RuleCount


class Standing(Enum):
    """What a device does that no rule keeps from a task, for one and for many."""

    WAITING = ("eligible and waiting for work", "eligible and waiting for work")
    BUSY = ("eligible and busy", "eligible and busy")
    RESTING = ("eligible but resting after failures", "eligible but resting after failures")
    QUIET = ("eligible but not asking just now", "eligible but not asking just now")
    SILENT = ("has not asked for work lately", "have not asked for work lately")

    def of_devices(self, count: int) -> str:
        """What a requester is told of this many devices."""
        return f"{count} {self.value[0 if count == 1 else 1]}"


class TaskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A task as far as its state needs explaining."""

    id: UUID
    class_id: int
    state: str
    reason: str
    delayed: bool
    available_at: datetime
    deadline: datetime
    order_key: int
    running: int
    running_until: datetime | None
    run_state: str | None
    run_until: datetime | None
    runs_ahead: int


def device_counts(counts: Mapping[Rule | Standing, int]) -> list[RuleCount]:
    """Counts of devices, the largest first."""
    return [
        RuleCount(rule=rule.name.lower(), count=count, words=rule.of_devices(count))
        for rule, count in sorted(counts.items(), key=lambda item: -item[1])
    ]


def task_counts(counts: Mapping[Rule, int]) -> list[RuleCount]:
    """Counts of tasks, the largest first."""
    return [
        RuleCount(rule=rule.name.lower(), count=count, words=rule.of_tasks(count))
        for rule, count in sorted(counts.items(), key=lambda item: -item[1])
    ]


def of_state(task: TaskFacts) -> tuple[str, datetime | None]:
    """What a task waits for that cannot be claimed now, and until when."""
    if task.state == "queued":
        return f"{task.reason}, from {_time(task.available_at)} on", task.available_at
    if task.state == "blocked":
        words = f"waits for the tasks it depends on, at most until {_time(task.deadline)}"
        return words, task.deadline
    if task.state == "running" and task.running_until is not None:
        where = _many(task.running, "device", "devices")
        until = _time(task.running_until)
        return f"running on {where}, which must submit before {until}", task.running_until
    if task.state == "verifying":
        return _of_verifying(task)
    return f"{task.state}: {task.reason}. Nothing more happens to it", None


def _of_verifying(task: TaskFacts) -> tuple[str, datetime | None]:
    if task.run_state == "running" and task.run_until is not None:
        until = _time(task.run_until)
        return f"the referee is running it again, until {until} or longer", task.run_until
    if task.run_state == "queued":
        ahead = _many(task.runs_ahead, "run comes", "runs come")
        return f"{task.reason}; {ahead} first. Nothing cancels or expires it meanwhile", None
    return f"{task.reason}. Nothing cancels or expires it meanwhile", None


def of_ready(
    task: TaskFacts,
    misfits: Sequence[RuleCount],
    fits: Sequence[RuleCount],
    ahead: int | None,
    expected_start_s: int | None,
) -> str:
    """Which of the devices that are online could take a task, and when one will."""
    deadline = f"it expires {_time(task.deadline)}"
    online = sum(item.count for item in [*misfits, *fits])
    if online == 0:
        return f"{task.reason}: no device is online; {deadline}"
    counts = ", ".join(item.words for item in [*misfits, *fits])
    if not fits:
        start = f"none of them can have it; {deadline}"
    elif expected_start_s is not None:
        start = f"expected start in about {expected_start_s} s (a guess)"
    else:
        start = "when it starts is unknown: they have taken nothing for a while"
    before = f"{_many(ahead, 'task comes', 'tasks come')} first; " if ahead else ""
    return f"{_many(online, 'device', 'devices')} online: {counts}; {before}{start}"


def of_device(
    device: DeviceActor,
    asking: Asking | None,
    *,
    is_online: bool,
    seen_at: datetime | None,
    running: int,
    now: datetime,
) -> str | None:
    """What keeps a device from all work; ``None`` when it asks and has room."""
    if device.state == "suspended":
        return "suspended: too many of its results were proved wrong"
    if device.state != "active":
        return f"{device.state} by its owner"
    if not is_online:
        seen = f"last heard of {_time(seen_at)}" if seen_at else "never heard of lately"
        return f"offline: {seen}. Start it with `gstd worker start`"
    if device.circuit(now) is Circuit.OPEN and device.ejected_until is not None:
        return (
            f"resting until {_time(device.ejected_until)}: "
            f"{_many(device.failures, 'attempt', 'attempts')} failed in a row"
        )
    if asking is None or not asking.is_waiting(now):
        if running:
            return f"no free slot: it runs {_many(running, 'task', 'tasks')} and asks for no more"
        return "online, but it has not asked for work just now"
    if device.capacity(running, now) == 0:
        return f"it runs {_many(running, 'task', 'tasks')}, as many as it may at a time"
    return None


def of_tasks(tasks: int, fitting: int, misfits: Sequence[RuleCount]) -> str:
    """What is ready for a device that asks for work."""
    if tasks == 0:
        return "no task is ready"
    ready = f"{_many(tasks, 'task is', 'tasks are')} ready"
    others = ", ".join(item.words for item in misfits)
    if fitting == 0:
        return f"{ready}, none for this device: {others}"
    come = f"{fitting} may come to it in turn, unless its account has tried them"
    return f"{ready}: {come}" + (f"; {others}" if others else "")


def _many(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
