"""One embedded PostgreSQL for the whole test run, a fresh database for every test that asks."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import settings as hypothesis_settings

from gstd.blobs.store import Blobs
from gstd.database.connection import APP_ROLE, Database
from gstd.database.migrate import migrate
from gstd.database.provision import OWNER_ROLE, provision
from gstd.embedded.postgres import EmbeddedPostgres, PostgresAddress
from gstd.kernel.clock import ManualClock, SystemClock

TEMPLATE = "gstd_template"
PASSWORD = "of-a-test-cluster"  # noqa: S105 - the cluster lives for one test run

hypothesis_settings.register_profile("gstd", deadline=None, print_blob=True)
hypothesis_settings.load_profile("gstd")


class Cluster:
    """A server kept by a thread with an event loop of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gstd-tests-"))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: EmbeddedPostgres | None = None

    def start(self) -> PostgresAddress:
        """Start the server and prepare the template database."""
        self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    async def _start(self) -> PostgresAddress:
        self._server = EmbeddedPostgres(self.folder, durable=False)
        address = await self._server.start()
        await _recycle_the_log(address.dsn())
        await provision(
            address.dsn(), owner_password=PASSWORD, app_password=PASSWORD, database=TEMPLATE
        )
        await migrate(address.dsn(TEMPLATE, OWNER_ROLE, PASSWORD))
        return address

    def stop(self) -> None:
        """Stop the server and forget its folder."""
        assert self._server is not None
        asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        shutil.rmtree(self.folder)


async def _recycle_the_log(superuser_url: str) -> None:
    """Copying the template fills the WAL: new segments cost ten times more than old ones."""
    admin = await asyncpg.connect(superuser_url)
    try:
        await admin.execute("ALTER SYSTEM SET min_wal_size = '32MB'")
        await admin.execute("ALTER SYSTEM SET max_wal_size = '64MB'")
        await admin.execute("SELECT pg_reload_conf()")
    finally:
        await admin.close()


_cluster: Cluster | None = None
_address: PostgresAddress | None = None


def _started() -> PostgresAddress:
    global _cluster, _address  # noqa: PLW0603 - one server per test run
    if _address is None:
        _cluster = Cluster()
        _address = _cluster.start()
    return _address


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """The xdist controller starts the one server and tells its workers."""
    address = _started()
    node.workerinput["cluster"] = {
        "host": address.host,
        "port": address.port,
        "user": address.user,
        "password": address.password,
    }


def pytest_unconfigure() -> None:
    if _cluster is not None:
        _cluster.stop()


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> PostgresAddress:
    """The running server, as its superuser."""
    workerinput = getattr(request.config, "workerinput", None)
    if workerinput is None:
        return _started()
    return PostgresAddress(**workerinput["cluster"])


@pytest.fixture
async def database_urls(cluster: PostgresAddress) -> AsyncIterator[dict[str, str]]:
    """A fresh migrated database: its URL for the application, the owner and the superuser."""
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(cluster.dsn())
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {OWNER_ROLE}")
        yield {
            "app": cluster.dsn(name, APP_ROLE, PASSWORD),
            "owner": cluster.dsn(name, OWNER_ROLE, PASSWORD),
            "superuser": cluster.dsn(name),
        }
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest.fixture
async def database(database_urls: dict[str, str]) -> AsyncIterator[Database]:
    """A fresh database through the application's role."""
    opened = await Database.connect(database_urls["app"], size=20)
    yield opened
    await opened.close()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    """An empty blob store."""
    return Blobs.open(f"file://{tmp_path}/blobs")


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands at the present."""
    return ManualClock(SystemClock().now())


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not depend on the environment they are started from."""
    for name in [name for name in os.environ if name.startswith("GSTD_")]:
        monkeypatch.delenv(name)
