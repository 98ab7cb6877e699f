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
from gstd.dispatch.needs import TaskClass
from gstd.dispatch.queue import NOTHING, Candidate, Meeting, Running
from gstd.protocol.work import Offer, OffersRequest

MANY = 5
"""Fewer devices say nothing about where a fault lies."""


class Asker(msgspec.Struct, eq=False, kw_only=True):
    """A device that waits for offers."""

    device: DeviceActor
    request: OffersRequest
    answer: asyncio.Future[list[Offer]]
    waiting: Sequence[TaskClass] = ()
    """What was ready at the last look, whether it fits or not."""

    has_room: bool = True
    has_met: bool = False
    """Whether the last look left out tasks that this account or device has tried."""

    def fits(self, needs: TaskClass) -> str | None:
        """``None`` when the device may run such tasks, else why not."""
        if needs.profile != self.request.profile:
            return "need another execution profile"
        if needs.memory_bytes > self.request.memory_bytes:
            return "need more memory"
        return None

    def idle(self) -> str:
        """Why there is nothing for this device."""
        if not self.has_room:
            return "resting: it holds as many tasks as it may, or has failed too often lately"
        if not self.waiting:
            return "no task is waiting"
        reasons = [why for needs in self.waiting if (why := self.fits(needs)) is not None]
        if self.has_met:
            reasons.append("were tried by this account or device")
        elif len(reasons) < len(self.waiting):
            reasons.append("are shown to other devices")
        return "tasks are waiting: " + ", ".join(f"some {why}" for why in dict.fromkeys(reasons))

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
    ) -> list[tuple[Candidate, Asker]]:
        """Tasks in queue order, each to a fitting device that has room, by weighted turns.

        ``room`` is how many more tasks each device may take.
        """
        left = dict(room)
        matches: list[tuple[Candidate, Asker]] = []
        for candidate in candidates:
            if not any(left.values()):
                break
            fitting = _fitting(candidate, classes[candidate.class_id], askers, barred, left)
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


def _fitting(
    candidate: Candidate,
    needs: TaskClass,
    askers: Sequence[Asker],
    barred: set[Meeting],
    left: Mapping[Asker, int],
) -> list[Asker]:
    """Who has room and may run the task; notes who may not because it has tried."""
    fitting = []
    for asker in askers:
        if left[asker] == 0 or asker.fits(needs) is not None:
            continue
        if _met_before(candidate, asker, barred):
            asker.has_met = True
        else:
            fitting.append(asker)
    return fitting


def _met_before(candidate: Candidate, asker: Asker, barred: set[Meeting]) -> bool:
    device = asker.device
    keys = {(candidate.task_id, device.account_id), (candidate.task_id, device.device_id)}
    return bool(keys & barred)
