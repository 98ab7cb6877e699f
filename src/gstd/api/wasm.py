"""Modules: upload, metadata, trial runs."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from gstd.api import edge
from gstd.api.authentication import ActorDep, PlatformDep
from gstd.api.platform import Platform
from gstd.database.connection import Connection
from gstd.modules import service as modules
from gstd.protocol.execution import Limits, Outcome, result_hash
from gstd.protocol.jobs import ExecuteRequest, ExecuteResponse, ModuleView
from gstd.protocol.types import NAME, Role

TRIAL_WALL_MS = 10_000
MODULES_LISTED = 500


@post("/upload", summary="Upload a module", opt=edge.IDEMPOTENT)
async def upload(
    request: Request[Any, Any, Any],
    actor: ActorDep,
    platform: PlatformDep,
    name: Annotated[str, QueryParameter(min_length=1, max_length=80, pattern=NAME)] = "module",
) -> Response[ModuleView]:
    """Send the WebAssembly binary as the body. It is checked, compiled once and stored."""
    actor.must_be(Role.REQUESTER)
    data = await request.body()
    info = await modules.check_module(platform.sandbox, data, platform.policy)
    await platform.blobs.put(data)

    async def add(connection: Connection, now: datetime) -> ModuleView:
        return (await modules.add_module(connection, actor.account_id, name, info, now)).view()

    return await edge.write(request, platform, actor, add)


@get("/", summary="My modules")
async def list_modules(actor: ActorDep, platform: PlatformDep) -> list[ModuleView]:
    """The modules this account uploaded first, newest first."""
    found = await edge.read(
        platform, lambda conn: modules.modules_of(conn, actor.account_id, MODULES_LISTED)
    )
    return [module.view() for module in found]


@get("/{module_id:str}/metadata", summary="A module's metadata")
async def metadata(actor: ActorDep, module_id: FromPath[str], platform: PlatformDep) -> ModuleView:  # noqa: ARG001 - only who has an account may ask
    """Size, imports, exports, memory and the execution profile."""
    return (await edge.read(platform, lambda conn: modules.module(conn, module_id))).view()


@post("/{module_id:str}/execute", summary="Try a module on the platform", status_code=200)
async def execute(
    actor: ActorDep, module_id: FromPath[str], data: JSONBody[ExecuteRequest], platform: PlatformDep
) -> ExecuteResponse:
    """Run once in the platform's sandbox, free, within the trial limits; nothing is kept."""
    actor.must_be(Role.REQUESTER)
    module = await edge.read(platform, lambda conn: modules.module(conn, module_id))
    limits = _trial_limits(data.limits or Limits(), platform)
    binary = await modules.module_bytes(platform.blobs, module.metered_hash)
    started = time.perf_counter()
    outcome: Outcome = await platform.sandbox.run(binary, data.input, limits)
    return ExecuteResponse(
        status=outcome.status,
        exit_code=outcome.exit_code,
        fuel=outcome.fuel,
        stdout=outcome.stdout,
        stderr=outcome.stderr.decode(errors="replace"),
        result_hash=result_hash(
            module_hash=module.hash,
            metered_hash=module.metered_hash,
            profile=module.profile,
            input_hash=data.input.hash(),
            limits=limits,
            outcome=outcome,
        ).hex(),
        profile=module.profile,
        wall_ms=round((time.perf_counter() - started) * 1000),
    )


def _trial_limits(asked: Limits, platform: Platform) -> Limits:
    return msgspec.structs.replace(
        asked,
        fuel=min(asked.fuel, platform.policy.trial_fuel),
        memory_bytes=min(asked.memory_bytes, platform.policy.max_memory_bytes),
        wall_ms=min(asked.wall_ms, TRIAL_WALL_MS),
    )


router = Router("/wasm", tags=["modules"], route_handlers=[upload, list_modules, metadata, execute])
