"""Offers: one look at the queue for all devices that wait in this process.

Offers write nothing to the database. A reservation keeps one task from being shown to many devices
at once; it ends by itself, and losing it costs at most a lost race.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from gstd.accounts.model import DeviceActor
from gstd.bus.bus import Bus, Hint
from gstd.bus.queue_index import IndexUnavailableError
from gstd.database.connection import Connection, Database
from gstd.dispatch.asking import note_asking
from gstd.dispatch.eligibility import conditions_of
from gstd.dispatch.indexing import Indexer
from gstd.dispatch.matching import Asker, Balance, room_for
from gstd.dispatch.needs import TaskClass
from gstd.dispatch.pops import in_turn
from gstd.dispatch.queue import (
    Candidate,
    IndexedQueue,
    Meeting,
    Queue,
    Shown,
    SqlQueue,
    met_before,
    running_on,
)
from gstd.events.incidents import record
from gstd.kernel.clock import Clock
from gstd.kernel.errors import GstdError
from gstd.kernel.ids import new_id
from gstd.kernel.settings import Policy
from gstd.proof_of_work.challenge import Challenge
from gstd.proof_of_work.difficulty import Difficulty, difficulty_for, offer_life_s, solving_time_ms
from gstd.protocol.work import Offer, OffersRequest, OffersResponse
from gstd.tasks.order import ms_since_epoch

log = structlog.get_logger()

POLL_S = 1.0
"""How often waiting devices look without a hint: for retries that become due, and lost hints."""

SERVED_AT_ONCE = 128
"""Free slots that one look serves; the next one follows at once."""

DEEPEST = 512
"""How many tasks of each level one look considers before it gives up on who has met them all."""


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
        self._rows = SqlQueue(bus)
        indexer = Indexer(database, bus, clock)
        self._index = IndexedQueue(indexer.index, indexer)
        self._balance = Balance()
        self._askers: list[Asker] = []
        self._news = asyncio.Event()
        self._popped = 0

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
        return OffersResponse(offers=offers, idle=None if offers else asker.idle())

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
        """Match everybody who waits against the heads of the queue."""
        if not self._askers:
            return
        try:
            await self._look_into(self._index)
        except IndexUnavailableError:
            await self._look_into(self._rows)

    async def _look_into(self, queue: Queue) -> None:
        askers, now = list(self._askers), self._clock.now()
        async with self._database.connection() as connection:
            classes = {needs.id: needs for needs in await queue.classes(connection)}
            devices = [asker.device.device_id for asker in askers]
            running = await running_on(connection, devices, self._policy, now)
            room = room_for(askers, running, now)
            waiting = tuple(classes.values())
            for asker in askers:
                asker.begin_look(waiting, has_room=room[asker] > 0)
            matches = await self._matches(connection, queue, classes, room, now)
        kept = await queue.reserve([_shown(candidate) for candidate, _ in matches])
        self._popped += sum(kept)
        chosen: dict[Asker, list[Candidate]] = defaultdict(list)
        lost: set[Asker] = set()
        for (candidate, asker), is_kept in zip(matches, kept, strict=True):
            if is_kept:
                chosen[asker].append(candidate)
            else:
                lost.add(asker)
        for asker in askers:
            offers = [self._offer(asker, candidate, now) for candidate in chosen[asker]]
            if offers or (asker.request.wait_ms == 0 and asker not in lost):
                asker.settle(offers)
        if lost or len(matches) >= SERVED_AT_ONCE:
            self._news.set()

    async def _matches(
        self,
        connection: Connection,
        queue: Queue,
        classes: Mapping[int, TaskClass],
        room: Mapping[Asker, int],
        now: datetime,
    ) -> list[tuple[Candidate, Asker]]:
        """Who gets what, looking deeper while somebody could be served by what comes later."""
        left = {
            asker: places
            for asker, places in room.items()
            if places and any(asker.class_misfit(needs) is None for needs in classes.values())
        }
        matches: list[tuple[Candidate, Asker]] = []
        seen: set[UUID] = set()
        served = depth = min(sum(left.values()), SERVED_AT_ONCE)
        while len(matches) < served:
            hungry = [asker for asker, places in left.items() if places]
            heads = await queue.heads(connection, _fitting(classes, hungry), depth, now)
            # At the last depth an account that has met everything there gets what comes after.
            cut = heads.cut if depth < DEEPEST else ()
            fresh = [task for task in heads.tasks if task.task_id not in seen]
            popped, every = self._popped + len(matches), self._policy.overdue_every
            in_order = list(in_turn(fresh, popped, every, ms_since_epoch(now), cut))
            barred = await self._barred(connection, in_order, hungry, now)
            more = self._balance.match(in_order, classes, hungry, barred, left, now)
            matches += more
            for _, asker in more:
                left[asker] -= 1
            if not cut:
                break
            seen |= {task.task_id for task in in_order}
            depth = min(4 * depth, DEEPEST)
        return matches

    async def _barred(
        self,
        connection: Connection,
        tasks: Sequence[Candidate],
        askers: Iterable[Asker],
        now: datetime,
    ) -> set[Meeting]:
        return await met_before(
            connection,
            [task.task_id for task in tasks],
            [asker.device.account_id for asker in askers],
            now - timedelta(milliseconds=self._policy.same_device_after_ms),
        )

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


def _fitting(classes: Mapping[int, TaskClass], askers: Sequence[Asker]) -> list[int]:
    """The classes that somebody fits."""
    return [
        class_id
        for class_id, needs in classes.items()
        if any(asker.class_misfit(needs) is None for asker in askers)
    ]


def _shown(candidate: Candidate) -> Shown:
    """A reservation lasts as long as solving takes, not as long as the offer lives.

    A device that is gone, or barred meanwhile, keeps a task from others for that short time only.
    """
    return Shown(candidate, solving_time_ms(_difficulty(candidate)))


async def _first_of(news: asyncio.Event, hint: asyncio.Event, timeout_s: float) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in (news, hint)]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
