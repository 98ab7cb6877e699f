"""Who gets which offer: pure rules over the queue's head and the devices that wait."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from gstd.accounts.model import DeviceActor
from gstd.dispatch.queue import Candidate, Meeting
from gstd.protocol.work import Offer, OffersRequest


class Asker(msgspec.Struct, eq=False, kw_only=True):
    """A device that waits for offers."""

    device: DeviceActor
    request: OffersRequest
    answer: asyncio.Future[list[Offer]]
    idle: str = "no task is waiting"

    def fits(self, candidate: Candidate) -> str | None:
        """``None`` when the device may run the task, else why not."""
        if candidate.profile != self.request.profile:
            return "need another execution profile"
        if candidate.limits.memory_bytes > self.request.memory_bytes:
            return "need more memory"
        return None

    def settle(self, offers: list[Offer]) -> None:
        """Answer, unless the device has its answer or is gone."""
        if not self.answer.done():
            self.answer.set_result(offers)


def match(
    candidates: Sequence[Candidate], askers: Sequence[Asker], barred: set[Meeting]
) -> list[tuple[Candidate, Asker]]:
    """Tasks in queue order, each to the fitting device with the fewest so far."""
    matches: list[tuple[Candidate, Asker]] = []
    given: dict[Asker, int] = defaultdict(int)
    accounts: set[Meeting] = set()
    misfits: dict[Asker, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for candidate in candidates:
        fitting = []
        for asker in askers:
            why_not = asker.fits(candidate) or _met_before(candidate, asker, barred)
            if why_not is not None:
                misfits[asker][why_not] += 1
            elif (candidate.task_id, asker.device.account_id) not in accounts:
                fitting.append(asker)
        fitting = [asker for asker in fitting if given[asker] < asker.request.free]
        free = max(0, candidate.wanted - candidate.shown)
        for asker in sorted(fitting, key=lambda asker: given[asker])[:free]:
            pair = (candidate.task_id, asker.device.account_id)
            if pair not in accounts:
                accounts.add(pair)
                given[asker] += 1
                matches.append((candidate, asker))
    for asker in askers:
        asker.idle = _idle_words(len(candidates), misfits[asker])
    return matches


def _met_before(candidate: Candidate, asker: Asker, barred: set[Meeting]) -> str | None:
    device = asker.device
    keys = {(candidate.task_id, device.account_id), (candidate.task_id, device.device_id)}
    return "were tried by this account or device" if keys & barred else None


def _idle_words(tasks: int, misfits: dict[str, int]) -> str:
    if tasks == 0:
        return "no task is waiting"
    if not misfits:
        return f"{tasks} tasks are waiting, all of them shown to other devices"
    reasons = ", ".join(f"{count} {why}" for why, count in misfits.items())
    return f"{tasks} tasks are waiting: {reasons}"
