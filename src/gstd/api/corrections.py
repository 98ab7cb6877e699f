"""Corrections of the ledger, by two admins."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, Router, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from gstd.api import edge
from gstd.api.authentication import ActorDep, PlatformDep
from gstd.bus.bus import Hint
from gstd.ledger import corrections
from gstd.protocol.corrections import CorrectionDecision, CorrectionRequest, CorrectionView
from gstd.protocol.types import Role


@post("/admin/corrections", summary="Propose a correction (admin)", opt=edge.MOVES_MONEY)
async def propose_correction(
    request: Request[Any, Any, Any],
    data: JSONBody[CorrectionRequest],
    actor: ActorDep,
    platform: PlatformDep,
) -> Response[CorrectionView]:
    """A transfer that mends a mistake. Nothing moves until another admin applies it."""
    actor.must_be(Role.ADMIN)
    return await edge.write(
        request,
        platform,
        actor,
        lambda conn, now: corrections.propose(conn, data, actor.account_id, now),
        hints=[Hint.OUTBOX],
    )


@post(
    "/admin/corrections/{correction_id:uuid}/decision",
    summary="Apply or reject a correction (admin)",
    status_code=200,
    opt=edge.MOVES_MONEY,
)
async def decide_correction(
    request: Request[Any, Any, Any],
    correction_id: FromPath[UUID],
    data: JSONBody[CorrectionDecision],
    actor: ActorDep,
    platform: PlatformDep,
) -> Response[CorrectionView]:
    """Only another admin than the one who proposed it may apply it."""
    actor.must_be(Role.ADMIN)
    return await edge.write(
        request,
        platform,
        actor,
        lambda conn, now: corrections.decide(
            conn, correction_id, actor.account_id, apply=data.apply, now=now
        ),
        hints=[Hint.OUTBOX],
        status=200,
    )


@get("/admin/corrections", summary="Corrections (admin)")
async def list_corrections(
    actor: ActorDep,
    platform: PlatformDep,
    before: FromQuery[UUID | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=200)] = 50,
) -> list[CorrectionView]:
    """Newest first."""
    actor.must_be(Role.ADMIN)
    return await edge.read(
        platform, lambda conn: corrections.corrections(conn, before=before, limit=limit)
    )


router = Router(
    "/", tags=["admin"], route_handlers=[propose_correction, decide_correction, list_corrections]
)
