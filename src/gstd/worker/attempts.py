"""The attempts a worker holds: slots, leases, phases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from enum import StrEnum
from uuid import UUID

from gstd.protocol.work import Claimed, Offer


class Phase(StrEnum):
    """How far an attempt is. Only a running one is worth ending early."""

    RUNNING = "running"
    SUBMITTING = "submitting"
    RELEASING = "releasing"


class Attempt:
    """One claimed task. ``lease_until`` is a moment of the pacing's monotonic clock."""

    def __init__(self, offer: Offer, claimed: Claimed, claimed_at: float) -> None:
        self.claimed = claimed
        self.id = claimed.attempt_id
        self.job_id = offer.job_id
        self.reward_nano = int(offer.reward_nano)
        self.asset = offer.asset
        self.lease_s = claimed.lease_ms / 1000
        self.lease_until = claimed_at + self.lease_s
        self.phase = Phase.RUNNING
        self.lost: str | None = None
        self.task: asyncio.Task[None] | None = None

    def extend(self, sent_at: float, lease_ms: int) -> None:
        """The platform granted the lease anew after ``sent_at``."""
        self.lease_s = lease_ms / 1000
        self.lease_until = max(self.lease_until, sent_at + self.lease_s)

    def lose(self, why: str) -> None:
        """End the run at once: the attempt is not ours any more."""
        if self.lost is None and self.phase is Phase.RUNNING:
            self.lost = why
            if self.task is not None:
                self.task.cancel()


class Board:
    """All attempts of a worker with ``slots`` places."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._attempts: dict[UUID, Attempt] = {}
        self._changed = asyncio.Event()

    def __iter__(self) -> Iterator[Attempt]:
        return iter(list(self._attempts.values()))

    def __len__(self) -> int:
        return len(self._attempts)

    def add(self, attempt: Attempt) -> bool:
        """Hold an attempt; false when it is held already, because a claim was answered twice."""
        if attempt.id in self._attempts:
            return False
        self._attempts[attempt.id] = attempt
        self._changed.set()
        return True

    def remove(self, attempt: Attempt) -> None:
        """Free the attempt's slot."""
        del self._attempts[attempt.id]
        self._changed.set()

    async def free_slots(self) -> int:
        """How many slots are free, waiting for the first."""
        while len(self) >= self._slots:
            await self._change()
        return self._slots - len(self)

    async def occupied(self) -> None:
        """Wait until there is an attempt."""
        while not self._attempts:
            await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
