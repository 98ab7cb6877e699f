"""Every named statement of every room fits the migrated schema."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

import gstd
from gstd.database.connection import Database
from gstd.database.sql import load_queries

HOME = Path(gstd.__file__).parent
ROOMS = sorted({path.parent.name for path in HOME.glob("*/*.sql")})


def test_all_rooms_with_statements_are_known() -> None:
    assert {"accounts", "dispatch", "events", "ledger", "tasks"} <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
async def test_every_statement_of_a_room_can_be_prepared(room: str, database: Database) -> None:
    queries = load_queries(f"gstd.{room}")
    assert queries
    async with database.connection() as connection:
        for name, statement in queries.items():
            try:
                await connection.prepare(statement)
            except Exception as error:
                raise AssertionError(f"{room}: {name}: {error}") from error


@pytest.mark.parametrize("room", ROOMS)
def test_every_statement_of_a_room_is_used(room: str) -> None:
    import_module(f"gstd.{room}")
    code = "\n".join(path.read_text("utf-8") for path in HOME.glob("**/*.py"))
    unused = [name for name in load_queries(f"gstd.{room}") if f'"{name}"' not in code]
    assert unused == []
