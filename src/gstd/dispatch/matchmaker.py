"""Offers: one look at the queue for all devices that wait in this process.

Offers write nothing to the database. A soft hold keeps one task from being shown to many devices
at once; it ends by itself, and losing it costs at most a lost race.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
import structlog

from gstd.accounts.model import DeviceActor
from gstd.bus.bus import Bus, Hint
from gstd.database.connection import Database
from gstd.dispatch.asking import note_asking
from gstd.dispatch.eligibility import conditions_of
from gstd.dispatch.matching import Asker, Balance, room_for
from gstd.dispatch.queue import Candidate, Queue, SqlQueue, met_before, running_on
from gstd.events.incidents import record
from gstd.kernel.clock import Clock
from gstd.kernel.errors import GstdError
from gstd.kernel.ids import new_id
from gstd.kernel.settings import Policy
from gstd.proof_of_work.challenge import Challenge
from gstd.proof_of_work.difficulty import Difficulty, difficulty_for, offer_life_s, solving_time_ms
from gstd.protocol.work import Offer, OffersRequest, OffersResponse

log = structlog.get_logger()

POLL_S = 1.0
"""How often waiting devices look without a hint: for retries that become due, and lost hints."""

LOOK_AHEAD = 64
"""Tasks beyond the free slots that one look considers."""


def challenge_key(secret: bytes) -> bytes:
    """The key of all challenges, derived from the platform's secret."""
    return hmac.new(secret, b"gstd-pow-key-v1", hashlib.sha256).digest()


class Matchmaker:
    """Answers the devices that wait in this process. Use as ``async with maker.running():``."""

    def __init__(
        self, database: Database, bus: Bus, policy: Policy, clock: Clock, secret: bytes
    ) -> None:
        self._database = database
        self._bus = bus
        self._policy = policy
        self._clock = clock
        self._key = challenge_key(secret)
        self._queue: Queue = SqlQueue()
        self._balance = Balance()
        self._askers: list[Asker] = []
        self._news = asyncio.Event()
        self._shown: dict[UUID, datetime] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look at the queue while the block runs; waiting devices are answered at its end."""
        looking = asyncio.create_task(self._look_for_ever())
        try:
            yield
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking
            for asker in self._askers:
                asker.settle([])

    async def offers(self, device: DeviceActor, request: OffersRequest) -> OffersResponse:
        """Offers for the device's free slots, at the latest after ``wait_ms``."""
        loop = asyncio.get_running_loop()
        asker = Asker(
            device=device,
            request=request,
            conditions=conditions_of(device, request, self._policy),
            answer=loop.create_future(),
        )
        self._askers.append(asker)
        self._news.set()
        try:
            await note_asking(self._bus, device.device_id, request, self._clock.now())
            # One look always happens, so even a device that does not wait learns why it idles.
            async with asyncio.timeout(max(request.wait_ms / 1000, POLL_S)):
                offers = await asker.answer
        except TimeoutError:
            offers = []
        finally:
            if asker in self._askers:
                self._askers.remove(asker)
        return OffersResponse(offers=offers, idle=None if offers else asker.idle)

    async def _look_for_ever(self) -> None:
        with self._bus.listener(Hint.QUEUE) as hint:
            while True:
                if not self._askers:
                    await self._news.wait()
                self._news.clear()
                hint.clear()
                try:
                    await self._look()
                except GstdError as error:
                    log.warning("offers_paused", code=error.code, detail=error.detail)
                except Exception as error:  # noqa: BLE001 - one bad look must not end all others
                    await record(
                        self._database, error, place="matchmaker.look", now=self._clock.now()
                    )
                await _first_of(self._news, hint, POLL_S)

    async def _look(self) -> None:
        """Match everybody who waits against the head of the queue."""
        askers = list(self._askers)
        if not askers:
            return
        now = self._clock.now()
        async with self._database.connection() as connection:
            candidates = await self._queue.head(connection, self._depth(askers, now), now)
            barred = await met_before(
                connection,
                [candidate.task_id for candidate in candidates],
                [asker.device.account_id for asker in askers],
                now - timedelta(milliseconds=self._policy.same_device_after_ms),
            )
            running = await running_on(
                connection, [asker.device.device_id for asker in askers], self._policy, now
            )
        candidates = await self._with_shown(candidates)
        room = room_for(askers, running, now)
        chosen = await self._hold(self._balance.match(candidates, askers, barred, room, now))
        for asker in askers:
            offers = [self._offer(asker, candidate, now) for candidate in chosen[asker]]
            if offers or asker.request.wait_ms == 0:
                asker.settle(offers)

    def _depth(self, askers: Sequence[Asker], now: datetime) -> int:
        """How far to look: past everything that this process has shown lately."""
        self._shown = {task: until for task, until in self._shown.items() if until > now}
        free = sum(asker.request.free for asker in askers)
        return LOOK_AHEAD + 2 * free + len(self._shown)

    async def _with_shown(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """What others solve already must not take a slot from what nobody has seen."""
        shown = await self._bus.held([str(candidate.task_id) for candidate in candidates])
        return [
            msgspec.structs.replace(candidate, shown=count)
            for candidate, count in zip(candidates, shown, strict=True)
        ]

    async def _hold(
        self, matches: Sequence[tuple[Candidate, Asker]]
    ) -> dict[Asker, list[Candidate]]:
        """The matches whose task was not shown to others meanwhile.

        A hold lasts as long as solving takes, not as long as the offer lives: a device that is
        gone, or barred meanwhile, keeps a task from others for that short time only.
        """
        keys = [(str(candidate.task_id), candidate.wanted) for candidate, _ in matches]
        times = [solving_time_ms(_difficulty(candidate)) for candidate, _ in matches]
        held = await self._bus.hold(keys, max(times, default=0))
        chosen: dict[Asker, list[Candidate]] = defaultdict(list)
        for (candidate, asker), is_held in zip(matches, held, strict=True):
            if is_held:
                chosen[asker].append(candidate)
        return chosen

    def _offer(self, asker: Asker, candidate: Candidate, now: datetime) -> Offer:
        difficulty = _difficulty(candidate)
        expires_at = int(now.timestamp()) + offer_life_s(difficulty)
        challenge = Challenge(
            offer_id=new_id(),
            task_id=candidate.task_id,
            worker=asker.device.public_key,
            bits=difficulty.bits,
            count=difficulty.count,
            expires_at=expires_at,
        )
        held_until = now + timedelta(milliseconds=solving_time_ms(difficulty))
        self._shown[candidate.task_id] = held_until
        return Offer(
            offer_id=challenge.offer_id,
            task_id=candidate.task_id,
            job_id=candidate.job_id,
            reward_nano=str(candidate.reward),
            asset=candidate.asset,
            module_hash=candidate.module_hash.hex(),
            limits=candidate.limits,
            prefix=challenge.prefix(self._key),
            bits=challenge.bits,
            count=challenge.count,
            expires_at=expires_at,
        )


def _difficulty(candidate: Candidate) -> Difficulty:
    return difficulty_for(candidate.reward, candidate.limits.wall_ms)


async def _first_of(news: asyncio.Event, hint: asyncio.Event, timeout_s: float) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in (news, hint)]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
