"""Proofs of work for offers, solved in a thread that can be stopped."""

from __future__ import annotations

import asyncio
import threading

from gstd.proof_of_work.difficulty import MAX_WORK
from gstd.proof_of_work.solver import solve
from gstd.protocol.work import ClaimItem, Offer

ACCEPTABLE_WORK = 4 * MAX_WORK
"""More hashes than any honest platform asks for. Offers beyond it are left alone."""


def is_acceptable(offer: Offer) -> bool:
    """Whether solving the offer ends in reasonable time."""
    return (
        0 < offer.count <= 64
        and 0 <= offer.bits < 64
        and offer.count << offer.bits <= (ACCEPTABLE_WORK)
    )


def claim_of(offer: Offer, nonces: list[str]) -> ClaimItem:
    """The claim of a solved offer: the offer's own words back, with the nonces."""
    return ClaimItem(
        offer_id=offer.offer_id,
        task_id=offer.task_id,
        bits=offer.bits,
        count=offer.count,
        expires_at=offer.expires_at,
        nonces=nonces,
    )


class Solver:
    """Solves one offer at a time; hashing holds the interpreter, so more threads gain nothing."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    def stop(self) -> None:
        """End the work in the thread within some 15 ms, for good."""
        self._stop.set()

    async def claim(self, offer: Offer) -> ClaimItem:
        """The claim of an offer. Raises ``SolvingStoppedError`` after ``stop``."""
        nonces = await asyncio.to_thread(
            solve, offer.prefix, offer.bits, offer.count, self._stop.is_set
        )
        return claim_of(offer, nonces)
