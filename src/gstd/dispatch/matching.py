"""Who gets which offer: pure rules over the queue's head and the devices that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
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
    waiting: Sequence[TaskClass] = ()
    """What was ready at the last look, whether it fits or not."""

    has_room: bool = True
    misfits: set[Rule] = set()
    """What kept single tasks of fitting classes from this device at the last look."""

    verdicts: dict[int, Rule | None] = {}
    """What was found of classes; a device's conditions hold as long as it waits."""

    def begin_look(self, waiting: Sequence[TaskClass], *, has_room: bool) -> None:
        """Forget what the last look found."""
        self.waiting, self.has_room, self.misfits = waiting, has_room, set()

    def class_misfit(self, needs: TaskClass) -> Rule | None:
        """``None`` when the device may run tasks of the class, else the first rule against it."""
        if needs.id not in self.verdicts:
            self.verdicts[needs.id] = class_misfit(needs, self.conditions)
        return self.verdicts[needs.id]

    def may_run(
        self, candidate: Candidate, needs: TaskClass, barred: set[Meeting], now: datetime
    ) -> bool:
        """Whether this task of the class is for the device; remembers why not."""
        if self.class_misfit(needs) is not None:
            return False
        tried = _met_before(candidate, self.device, barred)
        misfit = task_misfit(
            needs, self.conditions, deadline=candidate.deadline, tried=tried, now=now
        )
        if misfit is not None:
            self.misfits.add(misfit)
        return misfit is None

    def idle(self) -> str:
        """Why there is nothing for this device."""
        if not self.has_room:
            return "resting: it holds as many tasks as it may, or has failed too often lately"
        if not self.waiting:
            return "no task is waiting"
        found = [self.class_misfit(needs) for needs in self.waiting]
        rules = dict.fromkeys(rule for rule in (*found, *self.misfits) if rule is not None)
        reasons = [rule.of_some() for rule in rules]
        if None in found and not self.misfits:
            reasons.append("some are shown to other devices")
        return "tasks are waiting: " + ", ".join(reasons)

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
        candidates: Iterable[Candidate],
        classes: Mapping[int, TaskClass],
        askers: Sequence[Asker],
        barred: set[Meeting],
        room: Mapping[Asker, int],
        now: datetime,
    ) -> list[tuple[Candidate, Asker]]:
        """Tasks in queue order, each to a fitting device that has room, by weighted turns.

        ``room`` is how many more tasks each device may take.
        """
        left = dict(room)
        matches: list[tuple[Candidate, Asker]] = []
        for candidate in candidates:
            if not any(left.values()):
                break
            needs = classes[candidate.class_id]
            fitting = [
                asker
                for asker in askers
                if left[asker] and asker.may_run(candidate, needs, barred, now)
            ]
            for asker in self._choose(candidate, fitting, left):
                left[asker] -= 1
                matches.append((candidate, asker))
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


def _met_before(candidate: Candidate, device: DeviceActor, barred: set[Meeting]) -> bool:
    keys = {(candidate.task_id, device.account_id), (candidate.task_id, device.device_id)}
    return bool(keys & barred)
