"""Finds work for free slots: asks for offers, solves their proofs, claims them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from gstd.protocol.work import Claimed, ClaimItem, Offer, OffersRequest
from gstd.sdk.device import DeviceClient
from gstd.sdk.errors import SdkError
from gstd.sdk.pacing import Pacing
from gstd.worker.attempts import Attempt, Board
from gstd.worker.errors import is_fatal
from gstd.worker.proofs import Solver, is_acceptable
from gstd.worker.status import Reporter

ASK_AT_ONCE = 16
"""Offers asked for in one call: more would wait for each other's proofs and expire."""

CLAIM_EVERY_S = 1.0
"""Solved offers are claimed at the latest after so much solving, together otherwise."""

_LONGEST_REST_S = 30.0
_QUICK_S = 0.5
"""An answer without offers that comes sooner is not asked for again at once."""


class Solved(msgspec.Struct, frozen=True):
    """An offer and the claim that carries its proof."""

    offer: Offer
    item: ClaimItem


class Finder:
    """The worker's search for work. ``begin`` gets every attempt that was claimed."""

    def __init__(
        self,
        client: DeviceClient,
        board: Board,
        reporter: Reporter,
        request: OffersRequest,
        begin: Callable[[Attempt], None],
        pacing: Pacing,
    ) -> None:
        self._client = client
        self._board = board
        self._reporter = reporter
        self._request = request
        self._begin = begin
        self._pacing = pacing
        self._solver = Solver()
        self._claiming: set[asyncio.Task[int]] = set()
        self._vain = pacing.backoff(first_s=0.2)
        self._faults = pacing.backoff(first_s=1.0, longest_s=_LONGEST_REST_S)
        self._rest_s = 0.0

    async def run(self) -> None:
        """Search for ever. Raises ``ApiError`` when the device may not work any more."""
        while True:
            free = await self._board.free_slots()
            await self._rest()
            try:
                found = await self._search(free)
            except SdkError as error:
                if is_fatal(error):
                    raise
                self._reporter.trouble(error)
                found = False
            if found:
                self._vain.reset()
            else:
                await self._pacing.sleep(self._vain.next_s())

    def ran(self, *, well: bool) -> None:
        """Tell how an attempt went: a machine that fails runs takes longer and longer rests."""
        if well:
            self._faults.reset()
            self._rest_s = 0.0
        else:
            self._rest_s = self._faults.next_s()

    async def stop(self, patience_s: float) -> None:
        """After ``run`` was cancelled: end the solving, and learn what was claimed last."""
        self._solver.stop()
        claiming = list(self._claiming)
        if claiming:
            await asyncio.wait(claiming, timeout=patience_s)
        for claim in claiming:
            claim.cancel()
        await asyncio.gather(*claiming, return_exceptions=True)

    async def _rest(self) -> None:
        rest_s, self._rest_s = self._rest_s, 0.0
        if rest_s:
            await self._pacing.sleep(rest_s)

    async def _search(self, free: int) -> bool:
        """One round; false when it was in vain and too quick to be repeated at once."""
        started = self._pacing.monotonic()
        request = msgspec.structs.replace(self._request, free=min(free, ASK_AT_ONCE))
        answer = await self._client.offers(request)
        offers = [offer for offer in answer.offers[:free] if is_acceptable(offer)]
        if offers:
            return await self._win(offers) > 0
        self._reporter.idle(answer.idle or "the platform has no offers")
        return self._pacing.monotonic() - started >= max(request.wait_ms / 2000, _QUICK_S)

    async def _win(self, offers: Sequence[Offer]) -> int:
        """Solve and claim; returns how many attempts that gave."""
        won = 0
        solved: list[Solved] = []
        since = self._pacing.monotonic()
        for offer in offers:
            solved.append(Solved(offer, await self._solver.claim(offer)))
            if self._pacing.monotonic() - since >= CLAIM_EVERY_S:
                won += await self._claim(solved)
                solved, since = [], self._pacing.monotonic()
        return won + (await self._claim(solved) if solved else 0)

    async def _claim(self, solved: list[Solved]) -> int:
        """A claim is never abandoned half-way: what it gave must be run or given back."""
        claiming = asyncio.create_task(self._claim_all(solved))
        self._claiming.add(claiming)
        claiming.add_done_callback(self._claiming.discard)
        return await asyncio.shield(claiming)

    async def _claim_all(self, solved: list[Solved]) -> int:
        sent_at = self._pacing.monotonic()
        outcomes = await self._client.claims([one.item for one in solved])
        won = 0
        for one, outcome in zip(solved, outcomes, strict=True):
            if isinstance(outcome, Claimed):
                self._begin(Attempt(one.offer, outcome, sent_at))
                won += 1
            else:
                self._reporter.missed(outcome)
        return won
