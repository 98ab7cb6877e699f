"""One process of the platform each: API, scheduler, referee. They share nothing but the stores."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import structlog

from gstd.api.platform import app_role
from gstd.blobs.store import Blobs
from gstd.bus.bus import Bus
from gstd.database.connection import Database, DatabaseUnavailableError
from gstd.dispatch.indexing import Indexer
from gstd.embedded.leash import hold_leash
from gstd.kernel.clock import SystemClock
from gstd.kernel.settings import Settings, SettingsError, settings_from

T = TypeVar("T")

START_WITHIN_S = 30.0
"""How long a process waits for its database at its start before it gives up."""


def configure_logs(*, as_json: bool = False, level: int = logging.INFO) -> None:
    """Structured logs on standard error: JSON lines, or text for people."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def start_process() -> Settings:
    """What every process does first: its leash, its settings, its logs."""
    hold_leash()
    settings = settings_from(os.environ)
    configure_logs(as_json=settings.log_json)
    return settings


def run_until_signalled(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run on uvloop until it ends or SIGTERM or SIGINT asks it to."""
    import uvloop

    async def main() -> None:
        task = asyncio.ensure_future(work())
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            structlog.get_logger().info("stopped")

    uvloop.run(main())


@asynccontextmanager
async def stores(settings: Settings) -> AsyncIterator[tuple[Database, Blobs, Bus]]:
    """The three stores; waits for a database that is still starting."""
    if settings.database_url is None or settings.blobs_url is None:
        raise SettingsError("GSTD_DATABASE_URL and GSTD_BLOBS_URL must be set")
    url, blobs_url = settings.database_url, settings.blobs_url
    async with AsyncExitStack() as stack:
        database = await patiently(lambda: Database.connect(url, role=app_role(settings)))
        stack.push_async_callback(database.close)
        bus = await stack.enter_async_context(Bus.open(settings.valkey_url))
        Indexer(database, bus, SystemClock()).follow()
        yield database, Blobs.open(blobs_url), bus


async def patiently(connect: Callable[[], Awaitable[T]]) -> T:
    """Try until it works, at most ``START_WITHIN_S``."""
    loop = asyncio.get_running_loop()
    until = loop.time() + START_WITHIN_S
    while True:
        try:
            return await connect()
        except DatabaseUnavailableError:
            if loop.time() > until:
                raise
            await asyncio.sleep(0.25)


def serve_api(settings: Settings) -> None:
    """Serve HTTP until a signal."""
    import uvicorn

    from gstd.api.app import build_app

    app = build_app(settings)

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.platform.closing.set()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=2,
        server_header=False,
    )
    Server(config).run()


async def serve_scheduler(settings: Settings) -> None:
    """Do the periodic work until cancelled."""
    from gstd.events.audit import log_key
    from gstd.maintenance.scheduler import Scheduler

    key = log_key(settings.secret_bytes())
    async with stores(settings) as (database, blobs, bus):
        await Scheduler(database, blobs, bus, settings.policy, SystemClock(), key).serve()


async def serve_referee(settings: Settings) -> None:
    """Re-execute what verification asks for until cancelled."""
    from gstd.sandbox.runner import Sandbox
    from gstd.verification.referee import Referee

    cache = settings.state_dir / "cache" / "referee"
    slots = settings.referee_slots or os.cpu_count() or 1
    async with (
        stores(settings) as (database, blobs, bus),
        Sandbox(cache, slots) as sandbox,
    ):
        clock = SystemClock()
        await Referee(database, blobs, bus, sandbox, settings.policy, clock, slots).serve()
