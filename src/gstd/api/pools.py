"""Private pools."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import Request, Response, Router, get, post
from litestar.params import FromPath, JSONBody

from gstd.accounts import pools
from gstd.api import edge
from gstd.api.authentication import ActorDep, PlatformDep
from gstd.bus.bus import Hint
from gstd.protocol.pools import JoinRequest, NewPool, PoolMember, PoolRequest, PoolView


@post("/pools", summary="Make a private pool", opt=edge.IDEMPOTENT)
async def create_pool(
    request: Request[Any, Any, Any],
    data: JSONBody[PoolRequest],
    actor: ActorDep,
    platform: PlatformDep,
) -> Response[NewPool]:
    """A pool of this account with its secret, which is shown this once."""
    return await edge.write(
        request,
        platform,
        actor,
        lambda conn, now: pools.create_pool(conn, actor.account_id, data.name, now),
        hints=[Hint.OUTBOX],
    )


@get("/pools", summary="My pools")
async def list_pools(actor: ActorDep, platform: PlatformDep) -> list[PoolView]:
    """Those that the account owns or has joined, oldest first."""
    return await edge.read(platform, lambda conn: pools.pools_of(conn, actor.account_id))


@get("/pools/{pool_id:uuid}/members", summary="Who is in my pool")
async def list_members(
    pool_id: FromPath[UUID], actor: ActorDep, platform: PlatformDep
) -> list[PoolMember]:
    """The accounts whose devices take the pool's jobs. Only for its owner."""
    return await edge.read(platform, lambda conn: pools.members_of(conn, actor.account_id, pool_id))


@post("/pools/{pool_id:uuid}/join", summary="Join a pool", status_code=200, opt=edge.IDEMPOTENT)
async def join_pool(
    request: Request[Any, Any, Any],
    pool_id: FromPath[UUID],
    data: JSONBody[JoinRequest],
    actor: ActorDep,
    platform: PlatformDep,
) -> Response[PoolView]:
    """The account's devices take the pool's jobs from their next request for work on."""
    return await edge.write(
        request,
        platform,
        actor,
        lambda conn, now: pools.join_pool(conn, actor.account_id, pool_id, data.secret, now),
        hints=[Hint.OUTBOX],
        status=200,
    )


@post("/pools/{pool_id:uuid}/leave", summary="Leave a pool", status_code=200, opt=edge.IDEMPOTENT)
async def leave_pool(
    request: Request[Any, Any, Any], pool_id: FromPath[UUID], actor: ActorDep, platform: PlatformDep
) -> Response[PoolView]:
    """End the account's membership. What its devices run already they may finish."""
    return await edge.write(
        request,
        platform,
        actor,
        lambda conn, now: pools.leave_pool(conn, actor.account_id, pool_id, now),
        hints=[Hint.OUTBOX],
        status=200,
    )


@post(
    "/pools/{pool_id:uuid}/members/{account_id:uuid}/remove",
    summary="Take an account out of my pool",
    status_code=200,
    opt=edge.IDEMPOTENT,
)
async def remove_member(
    request: Request[Any, Any, Any],
    pool_id: FromPath[UUID],
    account_id: FromPath[UUID],
    actor: ActorDep,
    platform: PlatformDep,
) -> Response[NewPool]:
    """Only for its owner. The account knows the secret, so the answer has a new one."""
    return await edge.write(
        request,
        platform,
        actor,
        lambda conn, now: pools.remove_member(conn, actor.account_id, pool_id, account_id, now),
        hints=[Hint.OUTBOX],
        status=200,
    )


router = Router(
    "/",
    tags=["pools"],
    route_handlers=[create_pool, list_pools, list_members, join_pool, leave_pool, remove_member],
)
