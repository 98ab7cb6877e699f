"""The embedded Valkey: private, back after kill -9, no TCP, nothing saved."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gstd.embedded.errors import StateInUseError
from gstd.embedded.pids import is_running, running
from gstd.embedded.process import State, until
from gstd.embedded.valkey import EmbeddedValkey, ValkeyAddress


@pytest.fixture
async def valkey(state_dir: Path) -> AsyncIterator[EmbeddedValkey]:
    """A running server."""
    server = EmbeddedValkey(state_dir)
    await server.start()
    yield server
    await server.stop()
    assert server.pid is None


async def ping(address: ValkeyAddress) -> bool:
    """Whether an authenticated client is answered."""
    client = Redis.from_url(address.url())
    try:
        return bool(await client.ping())
    finally:
        await client.aclose()


async def back(server: EmbeddedValkey, restarts: int) -> None:
    """Wait until the server was restarted so often."""
    process = server.process
    assert process is not None
    assert await until(lambda: process.restarts == restarts and process.state is State.READY, 10)


async def test_it_is_private_and_saves_nothing(valkey: EmbeddedValkey, state_dir: Path) -> None:
    address = valkey.address()
    client = Redis.from_url(address.url())
    try:
        settings = await client.config_get("*")
    finally:
        await client.aclose()
    assert settings["port"] == "0"
    assert settings["save"] == ""
    assert settings["appendonly"] == "no"
    assert settings["maxmemory"] == str(256 << 20)
    assert settings["maxmemory-policy"] == "noeviction"
    for path in (state_dir, state_dir / "valkey", Path(address.path)):
        assert path.stat().st_mode & 0o777 == 0o700
    for name in ("valkey.conf", "password"):
        assert (state_dir / "valkey" / name).stat().st_mode & 0o777 == 0o600
    assert address.password not in repr(address)
    assert not any(address.password in word for process in running() for word in process.argv)


@pytest.mark.parametrize(
    ("said", "answer"), [(b"PING", b"-NOAUTH"), (b"AUTH wrong", b"-WRONGPASS")]
)
async def test_without_the_password_nothing_is_answered(
    valkey: EmbeddedValkey, said: bytes, answer: bytes
) -> None:
    reader, writer = await asyncio.open_unix_connection(valkey.address().path)
    writer.write(said + b"\r\n")
    assert (await reader.readline()).startswith(answer)
    writer.close()
    await writer.wait_closed()


async def test_it_comes_back_after_kill_9(valkey: EmbeddedValkey) -> None:
    first = valkey.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await back(valkey, 1)
    assert await ping(valkey.address())

    assert valkey.process is not None
    orphan, wrapper = valkey.pid, valkey.process.pid
    assert orphan is not None
    assert wrapper is not None
    os.kill(wrapper, signal.SIGKILL)
    await back(valkey, 2)
    assert not is_running(orphan)
    assert await ping(valkey.address())


async def test_one_owner_at_a_time(valkey: EmbeddedValkey, state_dir: Path) -> None:
    second = EmbeddedValkey(state_dir)
    with pytest.raises(StateInUseError):
        await second.start()
    await second.stop()
    assert await ping(valkey.address())


async def test_awkward_and_long_paths(state_dir: Path) -> None:
    for name in ('with space "quoted"', "long" * 30):
        server = EmbeddedValkey(state_dir / name)
        address = await server.start()
        try:
            assert await ping(address)
        finally:
            await server.stop()
        assert not os.access(address.path, os.F_OK)
