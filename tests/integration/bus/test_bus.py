"""Hints, holds, freshness and presence: shared through Valkey, or from memory without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
import pytest_asyncio

from gstd.bus.bus import Bus, Hint
from gstd.bus.memory import LocalNotes
from gstd.embedded.valkey import EmbeddedValkey
from tests.servers import running_valkey, until

Open = Callable[[str | None], Awaitable[Bus]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def valkey() -> AsyncIterator[EmbeddedValkey]:
    async with running_valkey() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def open_bus() -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def opened(url: str | None) -> Bus:
            return await stack.enter_async_context(Bus.open(url))

        yield opened


async def heard(bus: Bus, speaker: Bus, hint: Hint) -> None:
    """Until ``bus`` hears a hint of ``speaker``, which speaks again and again."""
    with bus.listener(hint) as news:

        async def hears() -> bool:
            await speaker.publish(hint)
            return bool(news.is_set())

        await until(hears, within_s=10)


async def test_a_hint_reaches_every_bus_and_only_its_listeners(
    valkey: EmbeddedValkey, open_bus: Open
) -> None:
    speaker, other = [await open_bus(valkey.address().url()) for _ in range(2)]
    await heard(other, speaker, Hint.QUEUE)
    with (
        other.listener(Hint.EVENTS) as wanted,
        other.listener(Hint.OUTBOX, Hint.TASKS) as unwanted,
        speaker.listener(Hint.EVENTS) as own,
    ):
        wanted.clear()
        unwanted.clear()
        await speaker.publish(Hint.EVENTS, Hint.REFEREE)
        await asyncio.wait_for(wanted.wait(), 5)
        assert own.is_set()
        assert not unwanted.is_set()


async def test_a_listener_that_left_is_forgotten(open_bus: Open) -> None:
    bus = await open_bus(None)
    with bus.listener(Hint.QUEUE) as news:
        await bus.publish(Hint.QUEUE)
        assert news.is_set()
        news.clear()
    await bus.publish(Hint.QUEUE)
    assert not news.is_set()


@pytest.mark.parametrize("shared", [True, False])
async def test_a_name_has_as_many_places_as_it_says(
    valkey: EmbeddedValkey, open_bus: Open, shared: bool
) -> None:
    bus = await open_bus(valkey.address().url() if shared else None)
    two, one = uuid4().hex, uuid4().hex
    assert await bus.hold([], 1000) == []
    assert await bus.hold([(two, 2), (one, 1), (two, 2), (two, 2)], 60_000) == [
        True,
        True,
        True,
        False,
    ]
    assert await bus.held([two, one, "nobody"]) == [2, 1, 0]
    await bus.drop([two, "nobody"])
    assert await bus.held([two, "nobody"]) == [1, 0]
    assert await bus.hold([(two, 2), (one, 1)], 60_000) == [True, False]


@pytest.mark.parametrize("shared", [True, False])
async def test_a_hold_ends_by_itself(valkey: EmbeddedValkey, open_bus: Open, shared: bool) -> None:
    bus = await open_bus(valkey.address().url() if shared else None)
    name = uuid4().hex
    assert await bus.hold([(name, 1)], 500) == [True]
    assert await bus.hold([(name, 1)], 500) == [False]

    async def is_free() -> bool:
        return await bus.held([name]) == [0]

    await until(is_free)
    assert await bus.hold([(name, 1)], 60_000) == [True]


async def test_two_processes_share_holds_and_freshness(
    valkey: EmbeddedValkey, open_bus: Open
) -> None:
    one, other = [await open_bus(valkey.address().url()) for _ in range(2)]
    name = uuid4().hex
    grants = await asyncio.gather(*(bus.hold([(name, 3)], 60_000) for bus in [one, other] * 5))
    assert sum(flag for [flag] in grants) == 3
    fresh = await asyncio.gather(*(bus.is_fresh(name, 60_000) for bus in [one, other] * 5))
    assert sum(fresh) == 1


@pytest.mark.parametrize("shared", [True, False])
async def test_a_name_is_fresh_once_within_its_time(
    valkey: EmbeddedValkey, open_bus: Open, shared: bool
) -> None:
    bus = await open_bus(valkey.address().url() if shared else None)
    name = uuid4().hex
    loop = asyncio.get_running_loop()
    assert await bus.is_fresh(name, 500)
    assert not await bus.is_fresh(name, 500)
    end = loop.time() + 0.6  # asking would begin its time anew
    await until(lambda: loop.time() > end)
    assert await bus.is_fresh(name, 500)


async def test_presence_is_shared_and_survives_in_memory(
    valkey: EmbeddedValkey, open_bus: Open
) -> None:
    one, other = [await open_bus(valkey.address().url()) for _ in range(2)]
    alone = await open_bus(None)
    device = uuid4().hex
    await one.touch(device, 1_700_000_000_123)
    await alone.touch(device, 5)
    assert await other.last_seen([device, "nobody"]) == [1_700_000_000_123, None]
    assert await alone.last_seen([device, "nobody"]) == [5, None]
    assert await other.last_seen([]) == []


async def test_devices_heard_of_lately_are_counted_in_every_process(
    valkey: EmbeddedValkey, open_bus: Open
) -> None:
    one, other = [await open_bus(valkey.address().url()) for _ in range(2)]
    alone = await open_bus(None)
    ages_ms = 2**52 + 1, 2**52 + 2  # later than what other tests of this server touch
    for at_ms in ages_ms:
        for bus in (one, alone):
            await bus.touch(uuid4().hex, at_ms)
    for bus in (one, other, alone):
        assert [await bus.seen_since(at_ms) for at_ms in (*ages_ms, ages_ms[1] + 1)] == [2, 1, 0]


async def test_without_valkey_everything_answers(open_bus: Open) -> None:
    bus = await open_bus(None)
    assert not await bus.is_up()
    nowhere = await open_bus("unix:///nowhere/valkey.sock")
    assert not await nowhere.is_up()
    assert await nowhere.hold([("a", 1)], 1000) == [True]
    assert await nowhere.hold([("a", 1)], 1000) == [False]
    assert await nowhere.is_fresh("b", 1000)
    assert not await nowhere.is_fresh("b", 1000)
    with nowhere.listener(Hint.QUEUE) as news:
        await nowhere.publish(Hint.QUEUE)
        assert news.is_set()


async def test_valkey_killed_in_the_middle_costs_a_moment_and_comes_back(open_bus: Open) -> None:
    async with running_valkey() as server:
        bus, other = [await open_bus(server.address().url()) for _ in range(2)]
        await heard(other, bus, Hint.QUEUE)
        assert await bus.hold([("before", 1)], 60_000) == [True]
        await server.stop()
        loop = asyncio.get_running_loop()
        start = loop.time()
        assert await bus.hold([("name", 1)], 60_000) == [True]
        assert await bus.hold([("name", 1)], 60_000) == [False]
        assert await bus.is_fresh("nonce", 60_000)
        assert not await bus.is_fresh("nonce", 60_000)
        await bus.touch("device", 7)
        assert await bus.last_seen(["device"]) == [7]
        assert await bus.seen_since(7) == 1
        await bus.drop(["name"])
        await bus.publish(Hint.QUEUE)
        assert loop.time() - start < 2
        assert not await bus.is_up()

        await server.start()
        await until(bus.is_up)

        async def is_shared_again() -> bool:
            name = uuid4().hex
            await bus.hold([(name, 1)], 60_000)
            return await other.held([name]) == [1]

        await until(is_shared_again)
        await heard(other, bus, Hint.EVENTS)
        assert await bus.held(["before"]) == [0]


async def test_whoever_was_deaf_looks_again_at_everything(open_bus: Open) -> None:
    async with running_valkey() as server:
        bus = await open_bus(server.address().url())
        await heard(bus, await open_bus(server.address().url()), Hint.QUEUE)
        with bus.listener(Hint.REFEREE) as news:
            news.clear()
            await server.stop()
            await server.start()
            await asyncio.wait_for(news.wait(), 10)


def test_notes_that_ended_are_swept_and_the_rest_is_not_walked_every_time() -> None:
    now = [0.0]
    notes = LocalNotes(lambda: now[0])
    for number in range(10_500):
        assert notes.hold(f"short {number}", 1, 1_000)
    now[0] = 2.0
    for number in range(12_000):
        assert notes.hold(f"long {number}", 1, 60_000)
    assert len(notes._holds) < 22_500
    assert not notes.hold("long 0", 1, 60_000)
    assert notes._sweep_above > 10_000


@pytest.mark.parametrize("shared", [True, False])
async def test_a_note_is_read_until_its_time_is_over(
    valkey: EmbeddedValkey, open_bus: Open, shared: bool
) -> None:
    url = valkey.address().url() if shared else None
    bus = await open_bus(url)
    reader = await open_bus(url) if shared else bus
    name, brief = uuid4().hex, uuid4().hex
    assert await reader.read_notes([]) == []
    await bus.write_note(name, b"one", 60_000)
    await bus.write_note(name, b"two", 60_000)
    await bus.write_note(brief, b"three", 500)
    assert await reader.read_notes([name, "nobody"]) == [b"two", None]

    async def is_over() -> bool:
        return await reader.read_notes([brief]) == [None]

    await until(is_over)


@pytest.mark.parametrize("shared", [True, False])
async def test_devices_heard_of_since_a_time_come_latest_first(
    valkey: EmbeddedValkey, open_bus: Open, shared: bool
) -> None:
    bus = await open_bus(valkey.address().url() if shared else None)
    far = 9_000_000_000_000_000  # later than what other tests touch
    devices = [uuid4().hex for _ in range(3)]
    for number, device in enumerate(devices):
        await bus.touch(device, far + number)
    assert await bus.latest_seen(far + 1, 10) == {devices[2]: far + 2, devices[1]: far + 1}
    assert await bus.latest_seen(far, 1) == {devices[2]: far + 2}
