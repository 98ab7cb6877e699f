"""Who gets which offer: pure rules over the queue's head and the devices that wait."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from gstd.accounts.health import Circuit
from gstd.accounts.model import DeviceActor
from gstd.dispatch.balance import RoundRobin
from gstd.dispatch.eligibility import Conditions, Rule, class_misfit, task_misfit
from gstd.dispatch.needs import TaskClass
from gstd.dispatch.queue import NOTHING, Candidate, Meeting, Running
from gstd.protocol.work import Offer, OffersRequest

MANY = 5
"""Fewer devices say nothing about where a fault lies."""


class Asker(msgspec.Struct, eq=False, kw_only=True):
    """A device that waits for offers."""

    device: DeviceActor
    request: OffersRequest
    conditions: Conditions
    answer: asyncio.Future[list[Offer]]
    idle: str = "no task is waiting"
    verdicts: dict[int, Rule | None] = {}
    """What was found of classes; a device's conditions hold as long as it waits."""

    def class_misfit(self, needs: TaskClass) -> Rule | None:
        """``None`` when the device may run tasks of the class, else the first rule against it."""
        if needs.id not in self.verdicts:
            self.verdicts[needs.id] = class_misfit(needs, self.conditions)
        return self.verdicts[needs.id]

    def misfit(
        self, candidate: Candidate, needs: TaskClass, barred: set[Meeting], now: datetime
    ) -> Rule | None:
        """``None`` when the device may run this task of the class, else the first rule against."""
        return self.class_misfit(needs) or task_misfit(
            needs,
            self.conditions,
            deadline=candidate.deadline,
            tried=_met_before(candidate, self.device, barred),
            now=now,
        )

    def settle(self, offers: list[Offer]) -> None:
        """Answer, unless the device has its answer or is gone."""
        if not self.answer.done():
            self.answer.set_result(offers)


class Balance:
    """Shares work among the devices of one process by trust, as far as each may take more."""

    def __init__(self) -> None:
        self._turns: RoundRobin[UUID] = RoundRobin()

    def match(
        self,
        candidates: Sequence[Candidate],
        askers: Sequence[Asker],
        barred: set[Meeting],
        room: Mapping[Asker, int],
        now: datetime,
    ) -> list[tuple[Candidate, Asker]]:
        """Tasks in queue order, each to a fitting device that has room, by weighted turns.

        ``room`` is how many more tasks each device may take. Sets what idle devices are told.
        """
        left = dict(room)
        matches: list[tuple[Candidate, Asker]] = []
        misfits: dict[Asker, dict[Rule, int]] = defaultdict(lambda: defaultdict(int))
        for candidate in candidates:
            fitting = _fitting(candidate, askers, barred, misfits, now)
            for asker in self._choose(candidate, fitting, left):
                left[asker] -= 1
                matches.append((candidate, asker))
        for asker in askers:
            asker.idle = _idle_words(len(candidates), misfits[asker], room[asker])
        return matches

    def _choose(
        self, candidate: Candidate, fitting: Sequence[Asker], left: Mapping[Asker, int]
    ) -> list[Asker]:
        """As many devices as the task still wants to be shown to, each of another account."""
        chosen: list[Asker] = []
        for _ in range(max(0, candidate.wanted - candidate.shown)):
            taken = {asker.device.account_id for asker in chosen}
            free = {
                asker.device.device_id: asker
                for asker in fitting
                if left[asker] > 0 and asker.device.account_id not in taken
            }
            if not free:
                break
            weights = {key: max(1, asker.device.trust) for key, asker in free.items()}
            chosen.append(free[self._turns.pick(weights)])
        return chosen


def room_for(
    askers: Sequence[Asker], running: Mapping[UUID, Running], now: datetime
) -> dict[Asker, int]:
    """How many more tasks each device may take: its free slots, its quota, its circuit.

    A device that has let a heartbeat go by gets nothing until it is heard again. When more than
    half of many who ask are out, the fault is hardly theirs, and each may try one.
    """
    out = [asker for asker in askers if asker.device.circuit(now) is Circuit.OPEN]
    is_panic = len(askers) >= MANY and 2 * len(out) > len(askers)
    room = {}
    for asker in askers:
        held = running.get(asker.device.device_id, NOTHING)
        capacity = asker.device.capacity(held.attempts, now, is_panic=is_panic)
        room[asker] = 0 if held.is_silent else min(asker.request.free, capacity)
    return room


def _fitting(
    candidate: Candidate,
    askers: Sequence[Asker],
    barred: set[Meeting],
    misfits: dict[Asker, dict[Rule, int]],
    now: datetime,
) -> list[Asker]:
    """Who may run the task; notes why the others may not."""
    fitting = []
    needs = candidate.needs
    for asker in askers:
        why_not = asker.misfit(candidate, needs, barred, now)
        if why_not is None:
            fitting.append(asker)
        else:
            misfits[asker][why_not] += 1
    return fitting


def _met_before(candidate: Candidate, device: DeviceActor, barred: set[Meeting]) -> bool:
    keys = {(candidate.task_id, device.account_id), (candidate.task_id, device.device_id)}
    return bool(keys & barred)


def _idle_words(tasks: int, misfits: dict[Rule, int], room: int) -> str:
    if room == 0:
        return "resting: it holds as many tasks as it may, or has failed too often lately"
    if tasks == 0:
        return "no task is waiting"
    waiting = "1 task is waiting" if tasks == 1 else f"{tasks} tasks are waiting"
    if not misfits:
        return f"{waiting}, shown to other devices just now"
    return f"{waiting}: " + ", ".join(rule.of_tasks(count) for rule, count in misfits.items())
