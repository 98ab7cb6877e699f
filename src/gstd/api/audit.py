"""The audit log: signed heads for everybody, proofs for whom the facts concern, all for admins."""

from __future__ import annotations

import re
from typing import Annotated

from litestar import MediaType, Router, get
from litestar.params import QueryParameter

from gstd.api import edge
from gstd.api.authentication import ActorDep, PlatformDep
from gstd.api.jobs import reader
from gstd.events import audit
from gstd.events.differences import differences
from gstd.kernel.errors import InvalidInputError
from gstd.protocol.audit import (
    AuditKey,
    CheckpointPage,
    ConsistencyProof,
    DifferencePage,
    LeafPage,
    StatementProof,
)
from gstd.protocol.types import Role

MAX_POSITION = 2**62
MAX_PROVED = 500
"""Positions in one request for proofs."""

_POSITIONS = re.compile(r"[0-9]{1,18}(,[0-9]{1,18})*", re.ASCII)

After = Annotated[int, QueryParameter(ge=0, le=MAX_POSITION)]
Size = Annotated[int, QueryParameter(ge=0, le=MAX_POSITION)]


@get("/audit/key", summary="The audit log's name and public key", security=[{}])
async def show_key(platform: PlatformDep) -> AuditKey:
    """Write the key down: checkpoints and proofs are checked against it."""
    return audit.audit_key(platform.log_key)


@get(
    "/audit/checkpoint",
    summary="The newest signed head of the audit log",
    security=[{}],
    media_type=MediaType.TEXT,
)
async def show_checkpoint(platform: PlatformDep) -> str:
    """A C2SP signed note. Whoever keeps one can tell later whether history was rewritten."""
    return (await edge.read(platform, audit.checkpoint)).note


@get("/audit/checkpoints", summary="Signed heads of the audit log", security=[{}])
async def list_checkpoints(
    platform: PlatformDep,
    after: After = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 500,
) -> CheckpointPage:
    """Heads of trees with more than ``after`` leaves, by size."""
    return await edge.read(platform, lambda conn: audit.checkpoints(conn, after=after, limit=limit))


@get("/audit/consistency", summary="Prove that one head continues another", security=[{}])
async def show_consistency(
    platform: PlatformDep, first: Size = 0, second: Size = 0
) -> ConsistencyProof:
    """The RFC 9162 consistency proof between two sizes of the log, the smaller one first."""
    return await edge.read(platform, lambda conn: audit.consistency(conn, first, second))


@get("/audit/proof", summary="Prove that events are in the log")
async def show_proof(
    actor: ActorDep,
    platform: PlatformDep,
    positions: Annotated[str, QueryParameter(max_length=10_000)] = "",
) -> StatementProof:
    """The account's own events (an admin's: any) with proofs that can be checked offline.

    ``positions`` are numbers from ``/events``, separated by commas.
    """
    wanted = _positions(positions)
    return await edge.read(
        platform, lambda conn: audit.prove(conn, platform.log_key, wanted, reader(actor))
    )


def _positions(text: str) -> list[int]:
    wanted = [int(each) for each in text.split(",")] if _POSITIONS.fullmatch(text) else []
    if not 1 <= len(wanted) <= MAX_PROVED:
        raise InvalidInputError(
            f"`positions` must be 1 to {MAX_PROVED} numbers separated by commas"
        )
    return wanted


@get("/admin/audit/leaves", summary="Everything that is sealed (admin)", tags=["admin"])
async def list_leaves(
    actor: ActorDep,
    platform: PlatformDep,
    after: After = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=5000)] = 1000,
) -> LeafPage:
    """The content of every leaf by position: who has it all can rebuild the tree."""
    actor.must_be(Role.ADMIN)
    return await edge.read(platform, lambda conn: audit.leaves(conn, after=after, limit=limit))


@get("/admin/audit/differences", summary="Where log and tables disagree (admin)", tags=["admin"])
async def list_differences(
    actor: ActorDep,
    platform: PlatformDep,
    after: After = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=50_000)] = 5000,
) -> DifferencePage:
    """Compares positions and transfers in a range with what is logged of them."""
    actor.must_be(Role.ADMIN)
    return await edge.read(platform, lambda conn: differences(conn, after=after, limit=limit))


router = Router(
    "/",
    tags=["audit"],
    route_handlers=[
        show_key,
        show_checkpoint,
        list_checkpoints,
        show_consistency,
        show_proof,
        list_leaves,
        list_differences,
    ],
)
