"""What devices do: every route is signed by the device and takes an array."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, Router, get, post
from litestar.params import FromPath, JSONBody

from gstd.api import edge
from gstd.api.authentication import DeviceDep, PlatformDep
from gstd.bus.bus import Hint
from gstd.dispatch import claims, submits
from gstd.modules import service as modules
from gstd.protocol.work import (
    Claimed,
    ClaimsRequest,
    ClaimsResponse,
    HeartbeatsRequest,
    HeartbeatsResponse,
    OffersRequest,
    OffersResponse,
    ReleasesRequest,
    ReleasesResponse,
    SubmitsRequest,
    SubmitsResponse,
)


@post("/offers", summary="Ask for work", status_code=200)
async def offers(
    request: Request[Any, Any, Any],
    data: JSONBody[OffersRequest],
    device: DeviceDep,
    platform: PlatformDep,
) -> OffersResponse:
    """Offers for free slots; waits up to ``wait_ms`` for some. Reserves nothing."""
    return await edge.while_connected(request, platform, platform.matchmaker.offers(device, data))


@post("/claims", summary="Claim solved offers", status_code=200)
async def claim(
    data: JSONBody[ClaimsRequest], device: DeviceDep, platform: PlatformDep
) -> ClaimsResponse:
    """Turn offers with their proofs into attempts. Safe to repeat."""
    outcomes = await edge.batch(
        platform,
        data.claims,
        lambda conn, items, now: claims.claim(
            conn, device, items, platform.pow_key, platform.policy, now
        ),
        "work.claims",
    )
    taken = [str(item.task_id) for item in outcomes if isinstance(item, Claimed)]
    await platform.bus.drop(taken)
    await platform.bus.publish(Hint.OUTBOX)
    return ClaimsResponse(outcomes=outcomes)


@post("/heartbeats", summary="Keep attempts alive", status_code=200)
async def heartbeat(
    data: JSONBody[HeartbeatsRequest], device: DeviceDep, platform: PlatformDep
) -> HeartbeatsResponse:
    """Extend leases. A refusal means: stop working on that attempt."""
    outcomes = await edge.batch(
        platform,
        data.attempts,
        lambda conn, items, now: claims.heartbeat(conn, device, items, platform.policy, now),
        "work.heartbeats",
    )
    return HeartbeatsResponse(outcomes=outcomes)


@post("/submits", summary="Submit signed results", status_code=200)
async def submit(
    data: JSONBody[SubmitsRequest], device: DeviceDep, platform: PlatformDep
) -> SubmitsResponse:
    """Store results and let everything that follows happen. Safe to repeat."""
    async with platform.database.connection() as connection:
        good = await submits.acceptable(connection, device, data.results, platform.clock.now())
    await submits.store_outputs(platform.blobs, good)
    outcomes = await edge.batch(
        platform,
        data.results,
        lambda conn, items, now: submits.submit(conn, device, items, platform.policy, now),
        "work.submits",
    )
    await platform.bus.publish(Hint.REFEREE, Hint.OUTBOX, Hint.QUEUE, Hint.TASKS)
    return SubmitsResponse(outcomes=outcomes)


@post("/releases", summary="Give tasks back", status_code=200)
async def release(
    data: JSONBody[ReleasesRequest], device: DeviceDep, platform: PlatformDep
) -> ReleasesResponse:
    """End attempts without a result, so that other devices get the tasks."""
    outcomes = await edge.batch(
        platform,
        data.releases,
        lambda conn, items, now: claims.release(conn, device, items, platform.policy, now),
        "work.releases",
    )
    await platform.bus.publish(Hint.OUTBOX, Hint.QUEUE)
    return ReleasesResponse(outcomes=outcomes)


@get("/modules/{metered_hash:str}", summary="A module's bytes")
async def module_bytes(
    metered_hash: FromPath[str], device: DeviceDep, platform: PlatformDep
) -> Response[bytes]:
    """The bytes that run, for a device that holds an attempt at them."""
    async with platform.database.connection() as connection:
        digest = await claims.module_in_hand(connection, device, metered_hash)
    data = await modules.module_bytes(platform.blobs, digest)
    return Response(data, media_type="application/wasm")


router = Router(
    "/",
    tags=["devices at work"],
    security=[{"device": []}],
    route_handlers=[offers, claim, heartbeat, submit, release, module_bytes],
)
