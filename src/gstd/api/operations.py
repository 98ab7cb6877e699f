"""Health, events, and what operators ask."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, Router, get
from litestar.params import FromQuery, QueryParameter

import gstd
from gstd.api import edge
from gstd.api.authentication import ActorDep, PlatformDep
from gstd.api.jobs import reader
from gstd.api.platform import Platform
from gstd.bus.bus import Hint
from gstd.database.migrate import latest_version
from gstd.events import incidents, service
from gstd.kernel.errors import GstdError
from gstd.ledger import service as ledger
from gstd.protocol.autoscale import AutoscaleSignal
from gstd.protocol.people import EventPage, Health, HealthPart, LedgerCheck, RecordedError
from gstd.protocol.types import Role
from gstd.protocol.work import MAX_WAIT_MS
from gstd.sandbox.profile import PROFILE

HEALTH_TIMEOUT_S = 3


@get("/health", summary="Is the platform well", security=[{}])
async def health(platform: PlatformDep) -> Response[Health]:
    """200 ``healthy``; 200 ``degraded`` while Valkey is gone; 503 ``unhealthy`` while
    PostgreSQL is. Each part is named."""
    version, postgres = await _postgres(platform)
    has_bus = platform.settings.valkey_url is not None
    valkey = HealthPart(name="valkey", status="off", detail="claims use PostgreSQL alone")
    if has_bus:
        is_up = await platform.bus.is_up()
        valkey = HealthPart(
            name="valkey",
            status="ok" if is_up else "gone",
            detail="" if is_up else "work goes on by polling; nothing is lost",
        )
    status = "healthy"
    if valkey.status == "gone":
        status = "degraded"
    if postgres.status != "ok":
        status = "unhealthy"
    body = Health(
        status=status,
        version=gstd.__version__,
        schema_version=version,
        mode=platform.settings.mode.value,
        profile=PROFILE,
        parts=[postgres, valkey],
    )
    return Response(body, status_code=503 if status == "unhealthy" else 200)


async def _postgres(platform: Platform) -> tuple[int | None, HealthPart]:
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_S), platform.database.connection() as connection:
            version: int = await connection.fetchval("SELECT max(version) FROM schema_migration")
    except (GstdError, TimeoutError) as error:
        return None, HealthPart(name="postgresql", status="gone", detail=str(error))
    if version != latest_version():
        return version, HealthPart(
            name="postgresql",
            status="outdated",
            detail=f"schema {version}, this code needs {latest_version()}",
        )
    return version, HealthPart(name="postgresql", status="ok")


@get("/events", summary="What happened", tags=["events"])
async def events(
    request: Request[Any, Any, Any],
    actor: ActorDep,
    platform: PlatformDep,
    after: Annotated[int, QueryParameter(ge=0, le=2**63 - 1)] = 0,
    wait_ms: Annotated[int, QueryParameter(ge=0, le=MAX_WAIT_MS)] = 0,
    job_id: FromQuery[UUID | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 500,
) -> EventPage:
    """Events after a position, without gaps; waits up to ``wait_ms`` for the first."""

    async def page() -> EventPage:
        return await edge.read(
            platform,
            lambda conn: service.read(
                conn, after=after, account_id=reader(actor), job_id=job_id, limit=limit
            ),
        )

    with platform.bus.listener(Hint.EVENTS) as news:
        waiting = _first_with_items(page, news, wait_ms / 1000)
        return await edge.while_connected(request, platform, waiting)


async def _first_with_items(
    page: Callable[[], Awaitable[EventPage]], news: asyncio.Event, wait_s: float
) -> EventPage:
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s
    while True:
        news.clear()
        found = await page()
        left = until - loop.time()
        if found.items or left <= 0:
            return found
        with contextlib.suppress(TimeoutError):  # without hints, look once a second
            await asyncio.wait_for(news.wait(), min(left, 1.0))


@get("/autoscale", summary="How many workers the work needs")
async def autoscale(
    actor: ActorDep,  # noqa: ARG001 - any account, but an account
    platform: PlatformDep,
) -> AutoscaleSignal:
    """For whoever starts and stops workers: `gstd worker pool`, or KEDA's `metrics-api` scaler
    with `valueLocation: desired_slots`. Every account may read it: it tells of nobody in
    particular, and who brings devices must know whether they are needed."""
    return await platform.signal.read()


@get("/admin/ledger/check", summary="Every promise of the ledger (admin)", tags=["admin"])
async def check_ledger(actor: ActorDep, platform: PlatformDep) -> LedgerCheck:
    """All invariants over every row, with the rows that break them."""
    actor.must_be(Role.ADMIN)
    return await edge.read(platform, ledger.check)


@get("/admin/errors", summary="Errors nobody expected (admin)", tags=["admin"])
async def list_errors(
    actor: ActorDep,
    platform: PlatformDep,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> list[RecordedError]:
    """Newest first."""
    actor.must_be(Role.ADMIN)
    return await edge.read(platform, lambda conn: incidents.recorded(conn, limit=limit))


router = Router(
    "/", tags=["operations"], route_handlers=[health, events, autoscale, check_ledger, list_errors]
)
