"""Several processes over one queue, with the index, without it, and while it is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from gstd.bus.bus import Bus
from gstd.database.connection import Database
from gstd.dispatch.indexing import Indexer
from gstd.dispatch.matchmaker import Matchmaker
from gstd.embedded.valkey import EmbeddedValkey
from gstd.protocol.execution import Limits
from gstd.protocol.types import Priority, Role, Tier
from gstd.protocol.work import Claimed, Offer, OffersRequest
from gstd.sandbox.profile import PROFILE
from tests.servers import running_valkey, until
from tests.world import SECRET, Device, World

MIN_REWARD = "1000000"
SOLVING_S = 2.0
"""How long a shown task is kept from others, at the smallest reward."""

Start = Callable[[], Awaitable[Matchmaker]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def valkey() -> AsyncIterator[EmbeddedValkey]:
    async with running_valkey() as server:
        yield server


class Site:
    """Processes that share a database and a Valkey; the first one also keeps the index."""

    def __init__(self, world: World, url: str, urls: dict[str, str], stack: AsyncExitStack) -> None:
        self.world = world
        self.url = url
        self._urls = urls
        self._stack = stack

    async def process(self) -> Matchmaker:
        database = await Database.connect(self._urls["app"])
        self._stack.push_async_callback(database.close)
        bus = await self._stack.enter_async_context(Bus.open(self.url))
        Indexer(database, bus, self.world.clock).follow()
        maker = Matchmaker(database, bus, self.world.policy, self.world.clock, SECRET)
        await self._stack.enter_async_context(maker.running())
        return maker

    async def indexer(self) -> Indexer:
        """Keeps the index complete, and hears what the world commits."""
        bus = await self._stack.enter_async_context(Bus.open(self.url))
        indexer = Indexer(self.world.database, bus, self.world.clock)
        indexer.follow()
        await indexer.keep()
        return indexer

    async def flush(self) -> None:
        client = Redis.from_url(self.url)
        await client.flushall()
        await client.aclose()


@pytest_asyncio.fixture(loop_scope="session")
async def site(
    world: World, valkey: EmbeddedValkey, database_urls: dict[str, str]
) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        made = Site(world, valkey.address().url(), database_urls, stack)
        await made.flush()
        yield made


async def ask(maker: Matchmaker, device: Device, **changes: object) -> list[Offer]:
    request = msgspec.structs.replace(OffersRequest(profile=PROFILE), **changes)
    return (await maker.offers(device.actor, request)).offers


@pytest.mark.parametrize("by_index", [True, False])
async def test_no_unit_is_shown_to_two_devices_at_once(site: Site, by_index: bool) -> None:
    world = site.world
    if by_index:
        await site.indexer()
    makers = [await site.process() for _ in range(3)]
    await world.job(tasks=10, reward_nano=MIN_REWARD)
    await world.job(tasks=3, tier=Tier.QUORUM, reward_nano=MIN_REWARD)
    devices = [await world.device() for _ in range(9)]
    answers = await asyncio.gather(
        *[ask(makers[n % 3], device, free=3, wait_ms=500) for n, device in enumerate(devices)]
    )
    shown: dict[UUID, int] = {}
    for offer in [offer for offers in answers for offer in offers]:
        shown[offer.task_id] = shown.get(offer.task_id, 0) + 1
    wanted = {
        row["id"]: row["wanted"]
        for row in await world.run(lambda conn: conn.fetch("SELECT id, wanted FROM task"))
    }
    assert shown == wanted
    for offers in answers:
        assert len({offer.task_id for offer in offers}) == len(offers)


async def test_a_quorum_is_shown_to_two_accounts_and_never_twice_to_one(site: Site) -> None:
    world = site.world
    await site.indexer()
    maker = await site.process()
    await world.job(tier=Tier.QUORUM, reward_nano=MIN_REWARD)
    account = await world.account(Role.WORKER)
    twins = [await world.device(account), await world.device(account)]
    first, second = await asyncio.gather(*[ask(maker, twin, free=2) for twin in twins])
    assert len(first) + len(second) == 1
    assert len(await ask(maker, await world.device(), free=2)) == 1
    assert await ask(maker, await world.device()) == []


@pytest.mark.parametrize("by_index", [True, False])
async def test_a_device_that_never_claims_loses_its_task_to_another(
    site: Site, by_index: bool
) -> None:
    """The process that showed it may be gone too: the end of a reservation needs nobody."""
    world = site.world
    if by_index:
        await site.indexer()
    maker, other = await site.process(), await site.process()
    await world.job(reward_nano=MIN_REWARD)
    [offer] = await ask(maker, await world.device())
    assert await ask(other, await world.device()) == []
    start = asyncio.get_running_loop().time()
    [again] = await ask(other, await world.device(), wait_ms=10_000)
    assert again.task_id == offer.task_id
    assert asyncio.get_running_loop().time() - start < 2 * SOLVING_S


@pytest.mark.parametrize("by_index", [True, False])
async def test_what_nobody_here_can_run_delays_nobody(site: Site, by_index: bool) -> None:
    world = site.world
    if by_index:
        await site.indexer()
    maker = await site.process()
    large = Limits(memory_bytes=512 << 20)
    await world.job(tasks=30, priority=Priority.CRITICAL, limits=large)
    small = await world.job(priority=Priority.LOW)
    [offer] = await ask(maker, await world.device())
    assert offer.job_id == small.id


@pytest.mark.parametrize("by_index", [True, False])
async def test_a_long_head_of_tasks_that_an_account_holds_delays_it_not(
    site: Site, by_index: bool
) -> None:
    world = site.world
    if by_index:
        await site.indexer()
    maker = await site.process()
    quorum = await world.job(tasks=20, tier=Tier.QUORUM, priority=Priority.HIGH)
    account = await world.account(Role.WORKER)
    holder, sibling = await world.device(account), await world.device(account)
    await world.claim_all(holder, [task.id for task in await world.tasks(quorum.id)])
    plain = await world.job(priority=Priority.HIGH)
    await world.job(priority=Priority.LOW)
    [offer] = await ask(maker, sibling)
    assert offer.job_id == plain.id


@pytest.mark.parametrize("by_index", [True, False])
async def test_every_fourth_task_is_the_most_overdue_of_any_level(
    site: Site, by_index: bool
) -> None:
    world = site.world
    if by_index:
        await site.indexer()
    maker = await site.process()
    low = await world.job(tasks=2, priority=Priority.LOW)
    world.clock.advance(hours=2)
    critical = await world.job(tasks=10, priority=Priority.CRITICAL)
    shown = [(await ask(maker, await world.device()))[0].job_id for _ in range(4)]
    shown += [offer.job_id for offer in await ask(maker, await world.device(), free=4)]
    assert shown == [critical.id, critical.id, critical.id, low.id] * 2


async def test_a_lost_index_loses_no_task_and_heals(site: Site) -> None:
    """Valkey is emptied again and again while jobs are posted and claimed."""
    world, dice = site.world, random.Random(1)  # noqa: S311 - a test's dice
    indexer = await site.indexer()
    makers = [await site.process() for _ in range(2)]
    claimed: list[UUID] = []
    total = 0

    async def work(maker: Matchmaker) -> None:
        while True:
            device = await world.device()  # what it holds counts against its quota
            offers = await ask(maker, device, free=4, wait_ms=300)
            outcomes = await world.claim_all(device, [offer.task_id for offer in offers])
            claimed.extend(one.task_id for one in outcomes if isinstance(one, Claimed))

    async def lose_and_keep() -> None:
        while True:
            await asyncio.sleep(dice.random() * 0.1)
            await site.flush()
            await asyncio.sleep(dice.random() * 0.1)
            await indexer.keep()

    workers = [asyncio.create_task(work(makers[n % 2])) for n in range(4)]
    storm = asyncio.create_task(lose_and_keep())
    for _ in range(12):
        tasks = dice.randint(1, 12)
        await world.job(tasks=tasks, reward_nano=MIN_REWARD, priority=dice.choice(list(Priority)))
        total += tasks
    await asyncio.sleep(0.5)
    storm.cancel()
    await until(lambda: len(claimed) == total, within_s=20)
    assert len(set(claimed)) == total
    for task in [*workers, storm]:
        task.cancel()
    await asyncio.gather(*workers, storm, return_exceptions=True)
    await indexer.keep()
    assert await indexer.index.is_complete()
    assert await indexer.reconcile() == 0
