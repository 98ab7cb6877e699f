"""The embedded PostgreSQL: private, durable through kill -9, one owner, no TCP."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest

from gstd.embedded import binaries, state
from gstd.embedded.errors import (
    PasswordLostError,
    StartFailedError,
    StateInUseError,
    VersionMismatchError,
)
from gstd.embedded.pids import is_running, running
from gstd.embedded.postgres import EmbeddedPostgres, PostgresAddress
from gstd.embedded.process import State, until


@pytest.fixture(scope="module")
async def postgres() -> AsyncIterator[EmbeddedPostgres]:
    """A durable server that several tests share, its state folder below a private one."""
    with TemporaryDirectory(prefix="gstd-", dir="/tmp") as private:
        server = EmbeddedPostgres(Path(private) / "state")
        await server.start()
        yield server
        await server.stop()
        assert server.pid is None


def state_of(server: EmbeddedPostgres) -> Path:
    """The state folder: the socket lies in ``<state>/postgres/data``."""
    return Path(server.address().host).parents[1]


async def query(address: PostgresAddress, sql: str) -> object:
    """One value over a fresh connection."""
    connection = await asyncpg.connect(address.dsn())
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def back(server: EmbeddedPostgres, restarts: int) -> None:
    """Wait until the server was restarted so often."""
    process = server.process
    assert process is not None
    assert await until(lambda: process.restarts == restarts and process.state is State.READY, 15), (
        process.state
    )


def owner(path: Path) -> int:
    """The uid."""
    return path.stat().st_uid


def mode(path: Path) -> int:
    """The permission bits."""
    return path.stat().st_mode & 0o777


async def test_it_is_private_and_has_no_tcp(postgres: EmbeddedPostgres) -> None:
    address, state_dir = postgres.address(), state_of(postgres)
    assert await query(address, "SHOW listen_addresses") == ""
    assert await query(address, "SHOW server_encoding") == "UTF8"
    assert await query(address, "SHOW data_checksums") == "on"
    assert await query(address, "SHOW fsync") == "on"
    assert await query(address, "SHOW max_connections") == "200"
    assert (
        await query(address, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method='trust'")
        == 0
    )
    for folder in (state_dir.parent, state_dir, state_dir / "postgres", Path(address.host)):
        assert mode(folder) == 0o700
    assert mode(state_dir / "postgres" / "password") == 0o600
    assert mode(Path(address.host) / ".s.PGSQL.5432") == 0o700
    assert address.password not in repr(address)
    assert not any(address.password in word for process in running() for word in process.argv)
    assert postgres.pid is not None
    if os.geteuid() == 0:
        assert owner(Path(f"/proc/{postgres.pid}")) != 0


async def test_a_wrong_password_is_refused(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.address().dsn(password="wrong"))  # noqa: S106


async def test_rows_outlive_kill_9(postgres: EmbeddedPostgres) -> None:
    address = postgres.address()
    await query(address, "CREATE TABLE kept (id int)")
    await query(address, "INSERT INTO kept VALUES (1)")
    postmaster = postgres.pid
    assert postmaster is not None
    os.kill(postmaster, signal.SIGKILL)
    await back(postgres, 1)
    assert postgres.pid != postmaster
    await query(address, "INSERT INTO kept VALUES (2)")

    assert postgres.process is not None
    orphan, wrapper = postgres.pid, postgres.process.pid
    assert orphan is not None
    assert wrapper is not None
    os.kill(wrapper, signal.SIGKILL)
    await back(postgres, 2)
    assert not is_running(orphan), "the server whose wrapper was killed was ended first"
    assert await query(address, "SELECT sum(id) FROM kept") == 3


async def test_a_second_owner_is_refused_and_the_first_lives(postgres: EmbeddedPostgres) -> None:
    second = EmbeddedPostgres(state_of(postgres))
    with pytest.raises(StateInUseError) as caught:
        await second.start()
    assert caught.value.code == "state_in_use"
    await second.stop()
    assert await query(second.address(), "SELECT 1") == 1, "facts need no ownership"


async def test_a_stop_keeps_the_rows_and_a_start_finds_them(state_dir: Path) -> None:
    server = EmbeddedPostgres(state_dir, durable=False)
    fresh = state_dir / "postgres" / "data.new"
    fresh.mkdir(parents=True)
    (fresh / "half").touch()
    address = await server.start()
    assert not fresh.exists()
    await query(address, "CREATE TABLE kept AS SELECT 42 AS answer")
    await server.stop()
    await server.stop()
    assert server.pid is None

    # A pid that lives but is somebody else's, and a socket lock with it: left by a crash long ago.
    (state_dir / "postgres" / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n")
    assert await server.start() == address
    assert await query(address, "SELECT answer FROM kept") == 42
    await server.stop()


async def test_a_long_path_gets_a_short_socket(state_dir: Path) -> None:
    server = EmbeddedPostgres(state_dir / ("long" * 30), durable=False)
    address = await server.start()
    sockets = Path(address.host)
    try:
        assert len(str(sockets)) < 60
        assert mode(sockets) == 0o700
        assert await query(address, "SELECT 1") == 1
    finally:
        await server.stop()
    assert sockets.name not in os.listdir(sockets.parent)  # noqa: PTH208


async def test_what_cannot_start_says_why(state_dir: Path) -> None:
    data = state_dir / "postgres" / "data"
    data.mkdir(parents=True)
    server = EmbeddedPostgres(state_dir)
    with pytest.raises(PasswordLostError):
        await server.start()
    state.kept_secret(state_dir / "postgres" / "password")
    with pytest.raises(StartFailedError, match=r"postgresql\.conf"):
        await server.start()
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(VersionMismatchError, match="9"):
        await server.start()


def link(source: str, target: str) -> str:
    """A hard link where that is possible: the copies are only read."""
    try:
        os.link(source, target)
    except OSError:
        return str(shutil.copy2(source, target))
    return target


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another account")
async def test_root_runs_binaries_that_lie_below_a_private_folder(state_dir: Path) -> None:
    package = binaries.find_postgres().parents[1]
    hidden = state_dir.parent / "site-packages"
    for folder in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, hidden / folder.name, symlinks=True, copy_function=link)
    runtime = state_dir.parent.parent / f"{state_dir.parent.name}-runtime"
    server = EmbeddedPostgres(
        state_dir,
        durable=False,
        bin_dir=hidden / package.name / "pginstall" / "bin",
        runtime=runtime,
    )
    try:
        address = await server.start()
        assert await query(address, "SELECT 1") == 1
        assert mode(state_dir.parent) == 0o700
        await server.stop()
    finally:
        shutil.rmtree(runtime)


BUILDS = [
    binaries.find_postgres(),
    *(initdb.parent for initdb in Path("/usr/lib/postgresql").glob("*/bin/initdb")),
]


@pytest.mark.parametrize("bin_dir", BUILDS, ids=str)
async def test_any_build_on_this_machine_serves(state_dir: Path, bin_dir: Path) -> None:
    server = EmbeddedPostgres(state_dir, durable=False, bin_dir=bin_dir)
    address = await server.start()
    assert await query(address, "SELECT 1") == 1
    await server.stop()


async def test_a_cancelled_start_leaves_nothing(state_dir: Path) -> None:
    server = EmbeddedPostgres(state_dir, durable=False)
    for moment in (state_dir / "postgres" / "data.new" / "base", state_dir / "postgres" / "data"):
        start = asyncio.create_task(server.start())
        assert await until(functools.partial(os.path.exists, moment), 10)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert server.process is None
        cluster = str(state_dir / "postgres")
        assert not [found for found in running() if any(cluster in word for word in found.argv)]
    await server.start()
    await server.stop()
