"""The log: numbered without gaps, nothing skipped, nothing shown to strangers."""

from __future__ import annotations

import asyncio
import random
from uuid import UUID

import pytest

from gstd.database.connection import Database
from gstd.events import service as events
from gstd.events.service import Event
from gstd.kernel.clock import ManualClock
from gstd.kernel.ids import new_id
from gstd.protocol.people import EventPage
from gstd.protocol.types import Role
from tests.world import CREDITS, World, outcome


async def read(
    database: Database, after: int, account: UUID | None = None, limit: int = 500
) -> EventPage:
    return await database.run(
        lambda conn: events.read(conn, after=after, account_id=account, limit=limit)
    )


async def number(database: Database) -> int:
    return await database.run(events.number)


async def number_all(database: Database, count: int) -> None:
    """Number until ``count`` events were moved: transactions of other tests hold them back too."""
    async with asyncio.timeout(30):
        while count:
            moved = await number(database)
            assert moved <= count
            count -= moved


async def empty_the_outbox(world: World) -> None:
    async with asyncio.timeout(30):
        while (await world.rows())["event_outbox"]:
            await number(world.database)


async def test_concurrent_writers_are_numbered_without_a_gap_and_seen_once(
    database: Database, clock: ManualClock
) -> None:
    dice = random.Random(2)  # noqa: S311 - the order of a race
    written: list[str] = []
    seen: list[str] = []
    position = 0

    async def write(writer: int) -> None:
        for turn in range(5):
            kinds = [f"{writer}.{turn}.{n}" for n in range(dice.randint(1, 4))]
            is_kept = dice.random() < 0.8
            async with database.connection() as connection:
                transaction = connection.transaction()
                await transaction.start()
                for kind in kinds:
                    await events.append(connection, [Event(kind=kind, accounts=())], clock.now())
                    await asyncio.sleep(0)
                await (transaction.commit() if is_kept else transaction.rollback())
            if is_kept:
                written.extend(kinds)

    async def follow() -> None:
        nonlocal position
        await asyncio.gather(number(database), number(database))
        page = await read(database, position)
        assert [item.position for item in page.items] == list(
            range(position + 1, position + 1 + len(page.items))
        )
        seen.extend(item.kind for item in page.items)
        position = page.position

    writers = [asyncio.ensure_future(write(writer)) for writer in range(10)]
    while not all(writer.done() for writer in writers):
        await follow()
    await asyncio.gather(*writers)
    async with asyncio.timeout(30):
        while len(seen) < len(written):
            await follow()
    await follow()
    assert sorted(seen) == sorted(written)
    for writer in range(10):
        mine = [kind for kind in seen if kind.startswith(f"{writer}.")]
        assert mine == [kind for kind in written if kind.startswith(f"{writer}.")]


async def test_a_long_open_transaction_is_waited_for_not_skipped(
    database: Database, clock: ManualClock
) -> None:
    async def append(kind: str) -> None:
        await database.run(
            lambda conn: events.append(conn, [Event(kind=kind, accounts=())], clock.now())
        )

    await append("before")
    async with database.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await events.append(connection, [Event(kind="slow", accounts=())], clock.now())
        await append("after")
        await number_all(database, 1)
        for _ in range(5):
            assert await number(database) == 0
        page = await read(database, 0)
        assert [item.kind for item in page.items] == ["before"]
        await transaction.commit()
    await number_all(database, 2)
    assert [item.kind for item in (await read(database, page.position)).items] == ["slow", "after"]
    assert await number(database) == 0


async def test_only_one_process_numbers_at_a_time(database: Database, clock: ManualClock) -> None:
    await database.run(
        lambda conn: events.append(conn, [Event(kind="one", accounts=())], clock.now())
    )
    async with database.transaction() as connection:
        async with asyncio.timeout(30):
            while await events.number(connection) == 0:
                pass
        assert await number(database) == 0
    assert [item.position for item in (await read(database, 0)).items] == [1]


async def test_numbering_finds_by_id_even_while_tables_are_small(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.fetchval(events._sql["take_head"])
        rows = await connection.fetch("EXPLAIN " + events._sql["move_finished"], 0, 5_000)
    plan = "\n".join(row[0] for row in rows)
    assert "Index Scan using transfer_pkey" in plan
    assert "Seq Scan on transfer" not in plan
    assert "Seq Scan on account" not in plan
    assert "Hash Join" not in plan


def test_numbering_rests_in_proportion_to_its_work() -> None:
    assert events.rest_after(0.01, percent=20) == pytest.approx(0.04)
    assert events.rest_after(10.0, percent=20) == events.LONGEST_REST_S
    assert events.rest_after(0.01, percent=100) == 0


async def test_what_rolled_back_never_happened(database: Database, clock: ManualClock) -> None:
    async with database.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await events.append(connection, [Event(kind="lost", accounts=())], clock.now())
        await transaction.rollback()
    await database.run(
        lambda conn: events.append(conn, [Event(kind="kept", accounts=())], clock.now())
    )
    await number_all(database, 1)
    assert [(item.position, item.kind) for item in (await read(database, 0)).items] == [(1, "kept")]


async def test_reading_resumes_by_position_in_pages(database: Database, clock: ManualClock) -> None:
    mine, other = new_id(), new_id()
    batch = [Event(kind=str(n), accounts=(mine if n % 3 else other,)) for n in range(30)]
    await database.run(lambda conn: events.append(conn, batch, clock.now()))
    await number_all(database, len(batch))
    kinds: list[str] = []
    position = 0
    while True:
        page = await read(database, position, mine, limit=4)
        kinds += [item.kind for item in page.items]
        if len(page.items) < 4:
            break
        assert page.position == page.items[-1].position
        position = page.position
    assert kinds == [event.kind for event in batch if event.accounts == (mine,)]
    assert page.position == 30
    assert (await read(database, page.position, mine)).items == []


async def test_events_are_read_only_by_the_accounts_they_concern(world: World) -> None:
    requester = await world.account(Role.REQUESTER, credits=CREDITS)
    stranger = await world.account(Role.REQUESTER)
    job = await world.job(requester)
    [task] = await world.tasks(job.id)
    device = await world.device()
    await world.submit(device, await world.claim(device, task.id), outcome())
    await world.referee()
    await empty_the_outbox(world)
    seen = [
        {item.kind for item in (await read(world.database, 0, who)).items}
        for who in (requester, device.actor.account_id, stranger)
    ]
    everything = {item.kind for item in (await read(world.database, 0)).items}
    attempt = {"attempt.claimed", "attempt.submitted", "attempt.accepted"}
    assert seen[0] == {"job.posted", "task.verifying", "task.accepted", "transfer", *attempt}
    assert seen[1] == {"device.enrolled", "transfer", *attempt}
    assert seen[2] == set()
    assert seen[0] | seen[1] == everything


async def test_every_attempt_is_in_the_log_to_its_end(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    gone, faulty, cheat, honest = [await world.device() for _ in range(4)]
    await world.claim(gone, task.id)
    world.clock.advance(milliseconds=world.policy.lease_ms)
    await world.expire_leases()
    world.clock.advance(seconds=1.2)
    await world.release(faulty, await world.claim(faulty, task.id))
    world.clock.advance(seconds=6)
    await world.submit(cheat, await world.claim(cheat, task.id), outcome(b"wrong"))
    await world.referee()
    await world.submit(honest, await world.claim(honest, task.id))
    await empty_the_outbox(world)
    log = (await read(world.database, 0)).items
    stories = [
        [item.kind.removeprefix("attempt.") for item in log if item.attempt_id == attempt.id]
        for attempt in (await world.task(task.id)).attempts
    ]
    assert stories == [
        ["claimed", "expired"],
        ["claimed", "released"],
        ["claimed", "submitted", "rejected"],
        ["claimed", "submitted", "accepted"],
    ]
