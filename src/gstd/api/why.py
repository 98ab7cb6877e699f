"""Why a task does not start, and why a device gets nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from litestar import Router, get
from litestar.params import FromPath

from gstd.api import edge
from gstd.api.authentication import ActorDep, PlatformDep
from gstd.dispatch import why
from gstd.dispatch.asking import last_asked, online
from gstd.protocol.matching import DeviceWhy, TaskWhy


@get("/tasks/{task_id:uuid}/why", summary="Why a task does not start")
async def explain_task(task_id: FromPath[UUID], actor: ActorDep, platform: PlatformDep) -> TaskWhy:
    """What it waits for, and which rules keep how many of the online devices from it."""
    now = platform.clock.now()
    reader = None if actor.is_admin else actor.account_id
    devices = await online(platform.bus, now)
    return await edge.read(
        platform,
        lambda conn: why.task_why(conn, task_id, reader, devices, platform.policy, now),
    )


@get("/devices/{device_id:uuid}/why", summary="Why a device gets no work")
async def explain_device(
    device_id: FromPath[UUID], actor: ActorDep, platform: PlatformDep
) -> DeviceWhy:
    """What keeps it from work, and which rules keep how many of the ready tasks from it."""
    now = platform.clock.now()
    owner = None if actor.is_admin else actor.account_id
    asking = (await last_asked(platform.bus, [device_id])).get(device_id)
    [seen_ms] = await platform.bus.last_seen([str(device_id)])
    seen_at = None if seen_ms is None else datetime.fromtimestamp(seen_ms / 1000, UTC)
    return await edge.read(
        platform,
        lambda conn: why.device_why(conn, device_id, owner, asking, seen_at, platform.policy, now),
    )


router = Router("/", tags=["why"], route_handlers=[explain_task, explain_device])
