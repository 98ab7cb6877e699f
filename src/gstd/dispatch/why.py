"""Why a task does not start, and why a device gets nothing: counts, never others' data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from gstd.accounts import service as accounts
from gstd.accounts.errors import DeviceNotFoundError
from gstd.accounts.health import Circuit
from gstd.accounts.model import DeviceActor
from gstd.database.connection import Connection, to_struct, to_structs
from gstd.database.sql import load_queries
from gstd.dispatch import why_words
from gstd.dispatch.asking import ONLINE, Asking
from gstd.dispatch.eligibility import (
    Conditions,
    Rule,
    class_misfit,
    conditions_of,
    task_misfit,
)
from gstd.dispatch.needs import TaskClass
from gstd.dispatch.queue import NOTHING, met_before, running_on
from gstd.dispatch.why_words import Standing, TaskFacts
from gstd.kernel.settings import Policy
from gstd.protocol.matching import DeviceWhy, TaskWhy
from gstd.tasks.errors import TaskNotFoundError

_sql = load_queries("gstd.dispatch")

LOOK_BACK = timedelta(minutes=5)
"""How far back claims are counted to guess how fast devices take work."""

COMPARED = 50
"""Of so many fitting devices the classes are looked up that compete with a task."""

Online = Mapping[UUID, Asking | None]
"""The devices that are online, each with its last request for work."""


class ReadyClass(TaskClass, frozen=True, kw_only=True):
    """A class with tasks that may be claimed now."""

    tasks: int


class Fitting(msgspec.Struct, frozen=True):
    """An online device that may have a task."""

    id: UUID
    conditions: Conditions
    standing: Standing


async def task_why(
    connection: Connection,
    task_id: UUID,
    reader: UUID | None,
    online: Online,
    policy: Policy,
    now: datetime,
) -> TaskWhy:
    """Why a task is where it is. ``reader`` None reads everybody's.

    Raises ``TaskNotFoundError``.
    """
    row = await connection.fetchrow(_sql["task_to_explain"], task_id, reader)
    if row is None:
        raise TaskNotFoundError
    task = to_struct(row, TaskFacts)
    if task.state != "queued" or task.delayed:
        words, until = why_words.of_state(task)
        return TaskWhy(task_id=task_id, state=task.state, words=words, until=until)
    misfits, fitting = await _sort_devices(connection, task, online, policy, now)
    ahead = await _ahead(connection, task, fitting[:COMPARED]) if fitting else None
    start_s = await _expected_start_s(connection, fitting, ahead, now)
    lacking = why_words.device_counts(misfits)
    fits = why_words.device_counts(Counter(one.standing for one in fitting))
    return TaskWhy(
        task_id=task_id,
        state=task.state,
        words=why_words.of_ready(task, lacking, fits, ahead, start_s),
        until=task.deadline,
        online=sum(misfits.values()) + len(fitting),
        misfits=lacking,
        fits=fits,
        ahead=ahead,
        expected_start_s=start_s,
    )


async def _sort_devices(
    connection: Connection, task: TaskFacts, online: Online, policy: Policy, now: datetime
) -> tuple[Counter[Rule | Standing], list[Fitting]]:
    """How many devices the task is not for, and those that may have it."""
    actors = await accounts.device_actors(connection, list(online))
    devices = [device for device in actors if device.state == "active"]
    held = await running_on(connection, [one.device_id for one in devices], policy, now)
    failed_since = now - timedelta(milliseconds=policy.same_device_after_ms)
    owners = [device.account_id for device in devices]
    barred = await met_before(connection, [task.id], owners, failed_since)
    needs = to_struct(await _one(connection, "class", task.class_id), TaskClass)
    misfits: Counter[Rule | Standing] = Counter()
    fitting = []
    for device in devices:
        asking = online[device.device_id]
        if asking is None:
            misfits[Standing.SILENT] += 1
            continue
        conditions = conditions_of(device, asking.request, policy)
        tried = bool({(task.id, device.account_id), (task.id, device.device_id)} & barred)
        rule = class_misfit(needs, conditions) or task_misfit(
            needs, conditions, deadline=task.deadline, tried=tried, now=now
        )
        if rule is not None:
            misfits[rule] += 1
            continue
        running = held.get(device.device_id, NOTHING).attempts
        standing = standing_of(device, asking, running, now)
        fitting.append(Fitting(device.device_id, conditions, standing))
    return misfits, fitting


def standing_of(device: DeviceActor, asking: Asking, running: int, now: datetime) -> Standing:
    """What a device that fits is doing."""
    if device.circuit(now) is Circuit.OPEN:
        return Standing.RESTING
    if asking.is_waiting(now) and device.capacity(running, now) > 0:
        return Standing.WAITING
    return Standing.BUSY if running else Standing.QUIET


async def _ahead(connection: Connection, task: TaskFacts, fitting: Sequence[Fitting]) -> int:
    """Tasks before this one that the fitting devices could take as well."""
    classes = to_structs(await connection.fetch(_sql["counted_classes"]), ReadyClass)
    competing = [
        needs.id
        for needs in classes
        if any(class_misfit(needs, one.conditions) is None for one in fitting)
    ]
    ahead: int = await connection.fetchval(_sql["count_ahead"], competing, task.order_key, task.id)
    return ahead


async def _expected_start_s(
    connection: Connection, fitting: Sequence[Fitting], ahead: int | None, now: datetime
) -> int | None:
    """Seconds until the task's turn at the rate of late; ``None`` if nobody can tell."""
    if ahead is None:
        return None
    if ahead < sum(one.standing is Standing.WAITING for one in fitting):
        return 1
    ids = [one.id for one in fitting]
    claims: int = await connection.fetchval(_sql["count_claims"], ids, now - LOOK_BACK)
    return round((ahead + 1) * LOOK_BACK.total_seconds() / claims) if claims else None


async def device_why(
    connection: Connection,
    device_id: UUID,
    owner: UUID | None,
    asking: Asking | None,
    seen_at: datetime | None,
    policy: Policy,
    now: datetime,
) -> DeviceWhy:
    """Why a device gets nothing, by its last request and when it was heard of.

    ``owner`` None reads everybody's.

    Raises ``DeviceNotFoundError``.
    """
    found = await accounts.device_actors(connection, [device_id], owner)
    if not found:
        raise DeviceNotFoundError
    [device] = found
    is_online = seen_at is not None and now - seen_at <= ONLINE
    held = await running_on(connection, [device_id], policy, now)
    running = held.get(device_id, NOTHING).attempts
    kept = why_words.of_device(
        device, asking, is_online=is_online, seen_at=seen_at, running=running, now=now
    )
    why = DeviceWhy(
        device_id=device_id,
        state=device.state,
        words=kept or "",
        online=is_online,
        last_seen_at=seen_at,
        running=running,
    )
    if asking is None or not is_online or device.state != "active":
        return why
    return await _with_tasks(connection, why, conditions_of(device, asking.request, policy))


async def _with_tasks(connection: Connection, why: DeviceWhy, conditions: Conditions) -> DeviceWhy:
    """With what is ready, and how much of it is for the device."""
    classes = to_structs(await connection.fetch(_sql["counted_classes"]), ReadyClass)
    misfits: Counter[Rule] = Counter()
    for needs in classes:
        rule = class_misfit(needs, conditions)
        if rule is not None:
            misfits[rule] += needs.tasks
    tasks = sum(needs.tasks for needs in classes)
    fitting = tasks - sum(misfits.values())
    counts = why_words.task_counts(misfits)
    words = "; ".join(filter(None, [why.words, why_words.of_tasks(tasks, fitting, counts)]))
    return msgspec.structs.replace(why, words=words, tasks=tasks, fitting=fitting, misfits=counts)


async def _one(connection: Connection, name: str, key: int) -> Mapping[str, object]:
    row = await connection.fetchrow(_sql[name], key)
    assert row is not None
    return dict(row)
