"""WebAssembly modules: upload, look at, try."""

from __future__ import annotations

import msgspec

from gstd.protocol.jobs import ExecuteRequest, ExecuteResponse, ModuleView
from gstd.sdk.room import Room, get, own_or_new
from gstd.sdk.transport import Call

EXECUTE_TIMEOUT_S = 120.0
UPLOAD_TIMEOUT_S = 120.0
"""A new module is inspected and compiled before the answer."""


class Modules(Room):
    """What jobs run."""

    async def upload_module(
        self, module: bytes, name: str, *, idempotency_key: str | None = None
    ) -> ModuleView:
        """Upload a WebAssembly module; the same bytes always have the same id."""
        call = Call(
            method="POST",
            path="/wasm/upload",
            query={"name": name},
            body=module,
            content_type="application/wasm",
            idempotency_key=own_or_new(idempotency_key),
            read_timeout_s=UPLOAD_TIMEOUT_S,
        )
        return await self._transport.fetch(ModuleView, call)

    async def modules(self) -> list[ModuleView]:
        """The account's modules."""
        return await self._transport.fetch(list[ModuleView], get("/wasm"))

    async def module(self, module_id: str) -> ModuleView:
        """What a module is."""
        return await self._transport.fetch(ModuleView, get(f"/wasm/{module_id}/metadata"))

    async def execute(self, module_id: str, request: ExecuteRequest) -> ExecuteResponse:
        """Run a module once on the platform, free of charge and within the trial limits."""
        call = Call(
            method="POST",
            path=f"/wasm/{module_id}/execute",
            body=msgspec.json.encode(request),
            read_timeout_s=EXECUTE_TIMEOUT_S,
        )
        return await self._transport.fetch(ExecuteResponse, call)
