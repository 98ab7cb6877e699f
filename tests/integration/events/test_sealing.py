"""The audit log: one tree whoever seals, proofs that hold offline, no head over a broken tree."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from gstd.database.connection import Database
from gstd.events import audit
from gstd.events import service as events
from gstd.events.audit import (
    BrokenLogError,
    NothingSealedError,
    NotSealedError,
    UnknownFactError,
    UnknownSizeError,
)
from gstd.events.differences import differences
from gstd.events.service import Event
from gstd.kernel.clock import ManualClock
from gstd.kernel.ids import new_id
from gstd.protocol.audit import check_history, check_statement_proof
from gstd.protocol.checkpoint import open_note
from gstd.protocol.merkle import Frontier
from tests.integration.events.test_log import number_all
from tests.world import SECRET, World, outcome

KEY = audit.log_key(SECRET)


async def logged(database: Database, clock: ManualClock, count: int, *accounts: object) -> None:
    """Add numbered events, not sealed yet."""
    batch = [Event(kind=f"e.{n}", accounts=accounts) for n in range(count)]  # type: ignore[arg-type]
    await database.run(lambda conn: events.append(conn, batch, clock.now()))
    await number_all(database, count)


async def seal(database: Database, clock: ManualClock, limit: int = 1000) -> int:
    return await database.run(lambda conn: audit.seal(conn, KEY, clock.now(), limit))


async def test_two_sealers_in_chunks_make_one_tree(
    database: Database, database_urls: dict[str, str], clock: ManualClock
) -> None:
    await logged(database, clock, 600)
    sealed = 0

    async def work(limit: int) -> None:
        nonlocal sealed
        while sealed < 600:
            moved = await seal(database, clock, limit)
            sealed += moved

    async with asyncio.timeout(30):
        await asyncio.gather(work(7), work(23))
    assert sealed == 600
    page = await database.run(lambda conn: audit.checkpoints(conn, after=0, limit=1000))
    leaves = await database.run(lambda conn: audit.leaves(conn, after=0, limit=1000))
    assert [fact.position for fact in leaves.items] == list(range(1, 601))
    tree = Frontier()
    for view in page.items:
        tree.extend(fact.leaf() for fact in leaves.items[tree.size : view.size])
        signed = open_note(view.note, KEY.public)
        assert (signed.size, signed.root) == (tree.size, tree.root())
        assert view.root == tree.root().hex()
    assert tree.size == 600
    assert await seal(database, clock) == 0
    found = await database.run(lambda conn: differences(conn, after=0, limit=5000))
    assert found.items == []
    assert found.next is None
    admin = await asyncpg.connect(database_urls["superuser"])
    await admin.execute("UPDATE audit_tile SET hashes = sha256('x') || sha256('y') WHERE level = 1")
    await admin.close()
    found = await database.run(lambda conn: differences(conn, after=0, limit=300))
    assert [item.subject for item in found.items] == ["tile 0/0"]


async def test_only_one_process_seals_at_a_time(database: Database, clock: ManualClock) -> None:
    await logged(database, clock, 2)
    async with database.transaction() as connection:
        assert await audit.seal(connection, KEY, clock.now(), 1) == 1
        assert await seal(database, clock) == 0
    assert await seal(database, clock) == 1


async def test_proofs_hold_offline_and_only_for_the_account(
    database: Database, clock: ManualClock
) -> None:
    mine, other = new_id(), new_id()
    with pytest.raises(NothingSealedError):
        await database.run(audit.checkpoint)
    await logged(database, clock, 3, mine)
    await seal(database, clock)
    kept = (await database.run(audit.checkpoint)).note
    await logged(database, clock, 300, other)
    with pytest.raises(NotSealedError):
        await database.run(lambda conn: audit.prove(conn, KEY, [4], None))
    await seal(database, clock)
    proof = await database.run(lambda conn: audit.prove(conn, KEY, [3, 1, 1], mine))
    assert [each.fact.position for each in proof.facts] == [1, 3]
    history = await database.run(lambda conn: audit.consistency(conn, 3, 303))
    newest = check_statement_proof(proof, public_key=KEY.public, earlier=kept, consistency=history)
    assert newest.size == 303
    check_history(open_note(kept, KEY.public), newest, history)
    everything = await database.run(lambda conn: audit.prove(conn, KEY, list(range(1, 304)), None))
    check_statement_proof(everything, public_key=KEY.public)
    for position in (4, 304):
        with pytest.raises(UnknownFactError):
            await database.run(
                lambda conn, position=position: audit.prove(conn, KEY, [1, position], mine)  # type: ignore[misc]
            )
    for first, second in ((0, 304), (2, 1)):
        with pytest.raises(UnknownSizeError):
            await database.run(
                lambda conn, first=first, second=second: audit.consistency(conn, first, second)  # type: ignore[misc]
            )


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE audit_tile SET hashes = sha256('x') || substring(hashes FROM 33)",
        "UPDATE audit_tile SET hashes = substring(hashes FROM 33)",
        "DELETE FROM audit_tile",
        "UPDATE audit_head SET size = 2",
        "DELETE FROM audit_checkpoint",
        "UPDATE audit_checkpoint SET note = replace(note, 'time 2', 'time 1')",
        "DELETE FROM event_log WHERE position = 4",
    ],
)
async def test_nothing_is_signed_over_a_broken_tree(
    database: Database, database_urls: dict[str, str], clock: ManualClock, tampering: str
) -> None:
    await logged(database, clock, 3)
    await seal(database, clock)
    await logged(database, clock, 3)
    admin = await asyncpg.connect(database_urls["superuser"])
    try:
        await admin.execute("SET session_replication_role = replica")
        await admin.execute(tampering)
    finally:
        await admin.close()
    with pytest.raises(BrokenLogError):
        await seal(database, clock)
    page = await database.run(lambda conn: audit.checkpoints(conn, after=3, limit=10))
    assert page.items == []


async def test_a_world_in_which_everything_happened_has_no_differences(world: World) -> None:
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

    async def compare() -> None:
        after: int | None = 0
        while after is not None:
            page = await world.run(
                lambda conn, after=after: differences(conn, after=after, limit=3)  # type: ignore[misc]
            )
            assert page.items == []
            after = page.next

    await compare()  # all of it still waits in the outbox
    async with asyncio.timeout(30):
        while (await world.rows())["event_outbox"]:
            await world.run(events.number)
            await compare()
    assert await seal(world.database, world.clock) > 0
    await compare()
