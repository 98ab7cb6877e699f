"""The desk: what many devices want at the same time is done in few transactions, once, for all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
import pytest_asyncio

from gstd.accounts import service as accounts
from gstd.accounts.errors import NotAuthenticatedError
from gstd.api.desk import Desk
from gstd.api.errors import ShuttingDownError
from gstd.bus.bus import Bus, Hint
from gstd.database.connection import Connection, Database, DatabaseUnavailableError
from gstd.dispatch import claims
from gstd.events.incidents import recorded
from gstd.kernel.settings import Settings
from gstd.protocol.types import Tier
from gstd.protocol.work import Claimed
from tests.integration.api.house import codes
from tests.world import Device, World, outcome

BATCH = Settings().batch_items


class Watch:
    """Counts a desk's transactions and hints; while shut, transactions wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, database: Database, bus: Bus) -> None:
        self.transactions = 0
        self.hints: Counter[Hint] = Counter()
        self.open = asyncio.Event()
        self.open.set()
        self._run, self._publish = database.run, bus.publish
        monkeypatch.setattr(database, "run", self.run)
        monkeypatch.setattr(bus, "publish", self.publish)

    async def run(self, work: Callable[[Connection], Awaitable[Any]]) -> Any:
        self.transactions += 1
        await self.open.wait()
        return await self._run(work)

    async def publish(self, *hints: Hint) -> None:
        self.hints.update(hints)
        await self._publish(*hints)


@pytest_asyncio.fixture(loop_scope="session")
async def bus() -> AsyncIterator[Bus]:
    async with Bus.open(None) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def desk(world: World, bus: Bus) -> AsyncIterator[Desk]:
    made = Desk(world.database, bus, world.blobs, world.policy, world.clock, world.pow_key, BATCH)
    yield made
    await made.close()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, world: World, bus: Bus) -> Watch:
    return Watch(monkeypatch, world.database, bus)


async def devices(world: World, count: int) -> list[Device]:
    return [await world.device() for _ in range(count)]


async def claim_at_once(
    world: World, desk: Desk, wishes: Sequence[tuple[Device, Any]]
) -> list[str]:
    """Everybody claims one task at the same time."""
    items = [(device, world.solved(device, task.id)) for device, task in wishes]
    found = await asyncio.gather(*(desk.claim(device.actor, [item]) for device, item in items))
    return [code for outcomes in found for code in codes(outcomes)]


async def test_200_devices_claim_and_finish_one_pool_of_tasks_each_exactly_once(
    world: World, desk: Desk, watch: Watch
) -> None:
    job = await world.job(tasks=100)
    tasks = await world.tasks(job.id)
    everybody = await devices(world, 200)
    items = [
        (device, [world.solved(device, tasks[(n + step) % 100].id) for step in (0, 37)])
        for n, device in enumerate(everybody)
    ]
    watch.transactions = 0
    watch.hints.clear()
    found = await asyncio.gather(*(desk.claim(device.actor, two) for device, two in items))
    assert watch.transactions <= 5
    assert watch.hints[Hint.OUTBOX] <= watch.transactions
    held = [
        (device, item)
        for (device, _), outcomes in zip(items, found, strict=True)
        for item in outcomes
        if isinstance(item, Claimed)
    ]
    assert Counter(item.task_id for _, item in held) == {task.id: 1 for task in tasks}
    assert {code for outcomes in found for code in codes(outcomes)} == {"Claimed", "task_taken"}
    watch.transactions = 0
    answers = await asyncio.gather(
        *(desk.submit(who.actor, [world.signed(who, item, outcome())]) for who, item in held)
    )
    assert [code for outcomes in answers for code in codes(outcomes)] == ["Submitted"] * 100
    assert watch.transactions < len(held), "what comes while a batch runs joins the next one"
    await world.referee()
    assert (await world.view(job.id)).counts.accepted == 100
    await world.assert_sound()


async def test_devices_of_one_account_that_claim_at_once_get_one_attempt(
    world: World, desk: Desk
) -> None:
    [task] = await world.tasks((await world.job(tier=Tier.QUORUM)).id)
    [one, *strangers] = await devices(world, 2)
    siblings = [one] + [await world.device(one.actor.account_id) for _ in range(7)]
    found = await claim_at_once(world, desk, [(device, task) for device in siblings])
    assert Counter(found) == {"Claimed": 1, "task_taken": 7}
    assert await claim_at_once(world, desk, [(strangers[0], task)]) == ["Claimed"]


async def test_a_poisonous_claim_among_many_devices_costs_the_others_nothing(
    world: World, desk: Desk, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = await world.tasks((await world.job(tasks=32)).id)
    everybody = await devices(world, 32)
    poison = everybody[20].actor.device_id
    real = claims.claim

    async def touchy(conn: Any, batch: Any, *rest: Any) -> Any:
        outcomes = await real(conn, batch, *rest)
        if poison in [one.device.device_id for one in batch]:
            raise RuntimeError("poison")
        return outcomes

    monkeypatch.setattr(claims, "claim", touchy)
    watch.transactions = 0
    found = await claim_at_once(world, desk, list(zip(everybody, tasks, strict=True)))
    assert found == ["Claimed"] * 20 + ["internal_error"] + ["Claimed"] * 11
    assert watch.transactions <= 15, "each half is tried, not each item"
    async with world.database.connection() as connection:
        errors = await recorded(connection)
    assert [(error.place, error.detail) for error in errors] == [("work.claims", "poison")]


async def test_a_device_that_hangs_up_costs_nobody_and_finds_its_attempt_again(
    world: World, desk: Desk, watch: Watch
) -> None:
    tasks = await world.tasks((await world.job(tasks=3)).id)
    items = [
        (device, world.solved(device, task.id))
        for device, task in zip(await devices(world, 3), tasks, strict=True)
    ]
    watch.open.clear()
    calls = [asyncio.create_task(desk.claim(device.actor, [item])) for device, item in items]
    await asyncio.sleep(0.01)
    calls[1].cancel()
    await asyncio.sleep(0)
    watch.open.set()
    for place in (0, 2):
        assert codes(await calls[place]) == ["Claimed"]
    assert (await world.task(tasks[1].id)).state == "running"
    leaver, item = items[1]
    [again] = await desk.claim(leaver.actor, [item])
    assert isinstance(again, Claimed)
    assert len((await world.task(tasks[1].id)).attempts) == 1


async def test_while_the_database_is_away_everybody_is_told_so_and_served_afterwards(
    world: World, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = await world.tasks((await world.job(tasks=5)).id)
    wishes = list(zip(await devices(world, 5), tasks, strict=True))

    async def away(_: object) -> None:
        await asyncio.sleep(0)
        raise DatabaseUnavailableError

    with monkeypatch.context() as patch:
        patch.setattr(world.database, "run", away)
        calls = [desk.claim(who.actor, [world.solved(who, task.id)]) for who, task in wishes]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(item) for item in found] == [DatabaseUnavailableError] * 5
    assert await claim_at_once(world, desk, wishes) == ["Claimed"] * 5


async def test_who_they_are_is_read_for_all_at_once_and_anew_each_time(
    world: World, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody = await devices(world, 30)
    real, reads = accounts.devices_of_keys, []

    async def noted(connection: Connection, keys: Sequence[str]) -> Any:
        reads.append(len(keys))
        return await real(connection, keys)

    monkeypatch.setattr(accounts, "devices_of_keys", noted)
    found = await asyncio.gather(*(desk.device_of_key(who.key.public) for who in everybody))
    assert [one.device_id for one in found] == [who.actor.device_id for who in everybody]
    assert len(reads) <= 3
    assert sum(reads) == 30
    who = everybody[0].actor
    await world.run(
        lambda conn: accounts.revoke_device(conn, who.account_id, who.device_id, world.clock.now())
    )
    assert (await desk.device_of_key(who.public_key)).state == "revoked"
    with pytest.raises(NotAuthenticatedError):
        await desk.device_of_key("00" * 32)


async def test_a_closed_desk_sends_everybody_away(world: World, desk: Desk) -> None:
    [task] = await world.tasks((await world.job()).id)
    device = await world.device()
    await desk.close()
    with pytest.raises(ShuttingDownError):
        await desk.claim(device.actor, [world.solved(device, task.id)])
    assert (await world.task(task.id)).state == "queued"
