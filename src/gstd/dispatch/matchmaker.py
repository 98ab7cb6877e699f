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
from gstd.database.connection import Connection, Database, to_structs
from gstd.database.sql import load_queries
from gstd.events.incidents import record
from gstd.kernel.clock import Clock
from gstd.kernel.errors import GstdError
from gstd.kernel.ids import new_id
from gstd.kernel.settings import Policy
from gstd.proof_of_work.challenge import Challenge
from gstd.proof_of_work.difficulty import difficulty_for, offer_life_s
from gstd.protocol.execution import Limits
from gstd.protocol.types import Asset
from gstd.protocol.work import Offer, OffersRequest, OffersResponse

log = structlog.get_logger()
_sql = load_queries("gstd.dispatch")

POLL_S = 1.0
"""How often waiting devices look without a hint: for retries that become due, and lost hints."""

LOOK_AHEAD = 64
"""Tasks beyond the free slots that one look considers."""


def challenge_key(secret: bytes) -> bytes:
    """The key of all challenges, derived from the platform's secret."""
    return hmac.new(secret, b"gstd-pow-key-v1", hashlib.sha256).digest()


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A task at the head of the queue; ``shown`` counts devices that solve an offer of it."""

    task_id: UUID
    job_id: UUID
    wanted: int
    owner: UUID
    reward: int
    asset: Asset
    module_hash: bytes
    limits: Limits
    profile: str
    shown: int = 0


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
                _settle(asker, [])

    async def offers(self, device: DeviceActor, request: OffersRequest) -> OffersResponse:
        """Offers for the device's free slots, at the latest after ``wait_ms``."""
        loop = asyncio.get_running_loop()
        asker = Asker(device=device, request=request, answer=loop.create_future())
        self._askers.append(asker)
        self._news.set()
        try:
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
            candidates = await self._candidates(connection, askers, now)
            barred = await self._barred(connection, candidates, askers, now)
        candidates = await self._with_shown(candidates)
        chosen = await self._hold(_match(candidates, askers, barred))
        for asker in askers:
            offers = [self._offer(asker, candidate, now) for candidate in chosen[asker]]
            if offers or asker.request.wait_ms == 0:
                _settle(asker, offers)

    async def _candidates(
        self, connection: Connection, askers: Sequence[Asker], now: datetime
    ) -> list[Candidate]:
        self._shown = {task: until for task, until in self._shown.items() if until > now}
        free = sum(asker.request.free for asker in askers)
        limit = LOOK_AHEAD + 2 * free + len(self._shown)
        return to_structs(await connection.fetch(_sql["candidates"], now, limit), Candidate)

    async def _with_shown(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """What others solve already must not take a slot from what nobody has seen."""
        shown = await self._bus.held([str(candidate.task_id) for candidate in candidates])
        return [
            msgspec.structs.replace(candidate, shown=count)
            for candidate, count in zip(candidates, shown, strict=True)
        ]

    async def _barred(
        self,
        connection: Connection,
        candidates: Sequence[Candidate],
        askers: Sequence[Asker],
        now: datetime,
    ) -> set[tuple[UUID, UUID]]:
        """Pairs of a task and an account or device that must not meet again."""
        rows = await connection.fetch(
            _sql["earlier_attempts"],
            [candidate.task_id for candidate in candidates],
            [asker.device.account_id for asker in askers],
            now - timedelta(milliseconds=self._policy.same_device_after_ms),
        )
        return {
            (row["task_id"], row["account_id"] if row["bars_account"] else row["device_id"])
            for row in rows
        }

    async def _hold(
        self, matches: Sequence[tuple[Candidate, Asker]]
    ) -> dict[Asker, list[Candidate]]:
        """The matches whose task was not shown to others meanwhile."""
        keys = [(str(candidate.task_id), candidate.wanted) for candidate, _ in matches]
        lives = [self._life_s(candidate) for candidate, _ in matches]
        held = await self._bus.hold(keys, 1000 * max(lives, default=0))
        chosen: dict[Asker, list[Candidate]] = defaultdict(list)
        for (candidate, asker), is_held in zip(matches, held, strict=True):
            if is_held:
                chosen[asker].append(candidate)
        return chosen

    def _life_s(self, candidate: Candidate) -> int:
        return offer_life_s(difficulty_for(candidate.reward, candidate.limits.wall_ms))

    def _offer(self, asker: Asker, candidate: Candidate, now: datetime) -> Offer:
        difficulty = difficulty_for(candidate.reward, candidate.limits.wall_ms)
        expires_at = int(now.timestamp()) + offer_life_s(difficulty)
        challenge = Challenge(
            offer_id=new_id(),
            task_id=candidate.task_id,
            worker=asker.device.public_key,
            bits=difficulty.bits,
            count=difficulty.count,
            expires_at=expires_at,
        )
        self._shown[candidate.task_id] = now + timedelta(seconds=offer_life_s(difficulty))
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


def _match(
    candidates: Sequence[Candidate], askers: Sequence[Asker], barred: set[tuple[UUID, UUID]]
) -> list[tuple[Candidate, Asker]]:
    """Tasks in queue order, each to the fitting device with the fewest so far."""
    matches: list[tuple[Candidate, Asker]] = []
    given: dict[Asker, int] = defaultdict(int)
    accounts: set[tuple[UUID, UUID]] = set()
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


def _met_before(candidate: Candidate, asker: Asker, barred: set[tuple[UUID, UUID]]) -> str | None:
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


def _settle(asker: Asker, offers: list[Offer]) -> None:
    if not asker.answer.done():
        asker.answer.set_result(offers)


async def _first_of(news: asyncio.Event, hint: asyncio.Event, timeout_s: float) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in (news, hint)]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
