"""What every request handler works with, made once per process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

import msgspec

from gstd.api.desk import Desk
from gstd.blobs.store import Blobs
from gstd.bus.bus import Bus
from gstd.database.connection import APP_ROLE, Database
from gstd.dispatch.indexing import Indexer
from gstd.dispatch.matchmaker import Matchmaker, challenge_key
from gstd.dispatch.signal import Signal
from gstd.events.audit import log_key
from gstd.kernel.clock import Clock, SystemClock
from gstd.kernel.settings import Policy, Settings, SettingsError
from gstd.protocol.checkpoint import LogKey
from gstd.sandbox.runner import Sandbox

TRIAL_SLOTS = 1
"""Modules that one API process runs at a time, for checks and trials."""


def app_role(settings: Settings) -> str | None:
    """The role that sessions take on, unless the login already is the application's own."""
    return None if settings.database_owner_url else APP_ROLE


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """The stores, the sandbox and the rules of one process."""

    settings: Settings
    policy: Policy
    clock: Clock
    database: Database
    blobs: Blobs
    bus: Bus
    sandbox: Sandbox
    matchmaker: Matchmaker
    desk: Desk
    signal: Signal
    log_key: LogKey
    closing: asyncio.Event
    """Set when the process is asked to stop: who waits is sent away at once."""

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, clock: Clock | None = None) -> AsyncIterator[Self]:
        """Connect to everything; raises what the stores raise when they cannot be reached."""
        if settings.database_url is None or settings.blobs_url is None:
            raise SettingsError("GSTD_DATABASE_URL and GSTD_BLOBS_URL must be set")
        clock = clock or SystemClock()
        secret = settings.secret_bytes()
        async with AsyncExitStack() as stack:
            database = await Database.connect(settings.database_url, role=app_role(settings))
            stack.push_async_callback(database.close)
            bus = await stack.enter_async_context(Bus.open(settings.valkey_url))
            sandbox = await stack.enter_async_context(
                Sandbox(settings.state_dir / "cache" / "api", TRIAL_SLOTS)
            )
            Indexer(database, bus, clock).follow()
            matchmaker = Matchmaker(database, bus, settings.policy, clock, secret)
            await stack.enter_async_context(matchmaker.running())
            blobs = Blobs.open(settings.blobs_url)
            desk = Desk(
                database,
                bus,
                blobs,
                settings.policy,
                clock,
                challenge_key(secret),
                settings.batch_items,
            )
            stack.push_async_callback(desk.close)
            yield cls(
                settings=settings,
                policy=settings.policy,
                clock=clock,
                database=database,
                blobs=blobs,
                bus=bus,
                sandbox=sandbox,
                matchmaker=matchmaker,
                desk=desk,
                signal=Signal(database, bus, settings.policy, clock),
                log_key=log_key(secret),
                closing=asyncio.Event(),
            )
