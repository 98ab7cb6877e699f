"""What devices do: every route is signed by the device and takes an array."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, Router, get, post
from litestar.params import FromPath, JSONBody

from gstd.api import edge
from gstd.api.authentication import DeviceDep, PlatformDep
from gstd.dispatch import claims
from gstd.modules import service as modules
from gstd.protocol.work import (
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
    return ClaimsResponse(outcomes=await platform.desk.claim(device, data.claims))


@post("/heartbeats", summary="Keep attempts alive", status_code=200)
async def heartbeat(
    data: JSONBody[HeartbeatsRequest], device: DeviceDep, platform: PlatformDep
) -> HeartbeatsResponse:
    """Extend leases. A refusal means: stop working on that attempt."""
    return HeartbeatsResponse(outcomes=await platform.desk.heartbeat(device, data.attempts))


@post("/submits", summary="Submit signed results", status_code=200)
async def submit(
    data: JSONBody[SubmitsRequest], device: DeviceDep, platform: PlatformDep
) -> SubmitsResponse:
    """Store results and let everything that follows happen. Safe to repeat."""
    return SubmitsResponse(outcomes=await platform.desk.submit(device, data.results))


@post("/releases", summary="Give tasks back", status_code=200)
async def release(
    data: JSONBody[ReleasesRequest], device: DeviceDep, platform: PlatformDep
) -> ReleasesResponse:
    """End attempts without a result, so that other devices get the tasks."""
    return ReleasesResponse(outcomes=await platform.desk.release(device, data.releases))


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
