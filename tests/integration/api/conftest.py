"""The real application over a real database and a real Valkey, shared by most tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Never
from uuid import uuid4

import pytest
import pytest_asyncio
import structlog

from gstd.database.connection import APP_ROLE
from gstd.database.provision import OWNER_ROLE
from gstd.embedded.postgres import PostgresAddress
from tests.conftest import PASSWORD
from tests.integration.api.house import House, open_house
from tests.integration.api.sealed import Scene, open_scene
from tests.servers import fresh_database, running_valkey


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def valkey_url() -> AsyncIterator[str]:
    async with running_valkey() as server:
        yield server.address().url()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_house(
    cluster: PostgresAddress, valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    folder: Path = tmp_path_factory.mktemp("api")
    async with fresh_database(cluster, f"test_{uuid4().hex}") as name:
        database = cluster.dsn(name, APP_ROLE, PASSWORD)
        owner = cluster.dsn(name, OWNER_ROLE, PASSWORD)
        async with open_house(folder, database, owner, valkey_url) as house:
            yield house


@pytest_asyncio.fixture(loop_scope="session")
async def house(shared_house: House) -> AsyncIterator[House]:
    """The application that most tests share; each makes its own accounts in it."""
    yield shared_house
    await shared_house.end_jobs()


@pytest.fixture
async def scene(cluster: PostgresAddress, tmp_path: Path) -> AsyncIterator[Scene]:
    """A platform of its own with a sealed log, to be tampered with."""
    async with open_scene(cluster, tmp_path) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _quiet_logs() -> Iterator[None]:
    """What the application logs of provoked failures would hide what tests tell."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[_drop])
    yield
    structlog.reset_defaults()


def _drop(*_: object) -> Never:
    raise structlog.DropEvent
