"""What a transaction notes is told once, after its commit, and never otherwise."""

from __future__ import annotations

from uuid import UUID, uuid4

import asyncpg
import pytest

from gstd.database.connection import Connection, Database
from gstd.database.notebook import note_queued


@pytest.fixture
def heard(database: Database) -> list[set[UUID]]:
    told: list[set[UUID]] = []

    async def hear(tasks: set[UUID]) -> None:
        told.append(tasks)

    database.tell(hear)
    return told


async def test_notes_are_told_when_the_commit_is_seen(
    database: Database, heard: list[set[UUID]]
) -> None:
    one, two = uuid4(), uuid4()
    async with database.transaction():
        note_queued([one])
        note_queued([one, two])
        assert heard == []
    assert heard == [{one, two}]


async def test_only_the_try_that_was_committed_is_told(
    database: Database, heard: list[set[UUID]]
) -> None:
    tried: list[UUID] = []

    async def work(_: Connection) -> None:
        tried.append(uuid4())
        note_queued(tried[-1:])
        if len(tried) < 3:
            raise asyncpg.DeadlockDetectedError

    await database.run(work)
    assert heard == [{tried[2]}]


async def test_a_rollback_is_not_told(database: Database, heard: list[set[UUID]]) -> None:
    async def half(_: Connection) -> None:
        note_queued([uuid4()])
        raise LookupError

    with pytest.raises(LookupError):
        await database.run(half)
    assert heard == []


async def test_a_listener_that_fails_changes_nothing(database: Database) -> None:
    async def fail(_: set[UUID]) -> None:
        raise RuntimeError("a listener's own trouble")

    async def work(_: Connection) -> str:
        note_queued([uuid4()])
        return "committed"

    database.tell(fail)
    assert await database.run(work) == "committed"


async def test_notes_outside_of_a_transaction_go_nowhere(heard: list[set[UUID]]) -> None:
    note_queued([uuid4()])
    assert heard == []
