"""Use cases about modules."""

from __future__ import annotations

import hashlib
from datetime import datetime
from uuid import UUID

import msgspec

from gstd.blobs.store import Blobs
from gstd.database.connection import Connection, to_struct, to_structs
from gstd.database.sql import load_queries
from gstd.kernel.settings import Policy
from gstd.modules.errors import UnknownModuleError
from gstd.protocol.jobs import ModuleView
from gstd.sandbox.inspect import ModuleInfo, inspect_module
from gstd.sandbox.profile import PROFILE
from gstd.sandbox.runner import Sandbox

_sql = load_queries("gstd.modules")


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted module. ``metered_hash`` names the bytes that devices run."""

    hash: bytes
    metered_hash: bytes
    profile: str
    name: str
    size: int
    info: ModuleInfo
    uploaded_at: datetime

    def view(self) -> ModuleView:
        """What people see of it."""
        return ModuleView(
            id=self.hash.hex(),
            metered_hash=self.metered_hash.hex(),
            name=self.name,
            size=self.size,
            imports=list(self.info.imports),
            exports=list(self.info.exports),
            memory_min_pages=self.info.memory_min_pages,
            memory_max_pages=self.info.memory_max_pages,
            functions=self.info.functions,
            profile=self.profile,
            uploaded_at=self.uploaded_at,
        )


async def check_module(sandbox: Sandbox, data: bytes, policy: Policy) -> ModuleInfo:
    """Everything that can be wrong with a module's bytes, before anything is stored.

    Raises one of the sandbox's module errors.
    """
    info = inspect_module(
        data, max_bytes=policy.max_module_bytes, max_memory_bytes=policy.max_memory_bytes
    )
    await sandbox.compile_check(data)
    return info


async def add_module(
    connection: Connection, owner: UUID, name: str, info: ModuleInfo, now: datetime
) -> Module:
    """Record a checked and stored module. The same bytes are one module, whoever came first.

    Until the platform meters modules itself, the bytes that run are the bytes uploaded.
    """
    digest = bytes.fromhex(info.sha256)
    await connection.execute(
        _sql["insert"], digest, digest, PROFILE, owner, name, info.size, info, now
    )
    return await module(connection, info.sha256)


async def module(connection: Connection, module_id: str) -> Module:
    """A module by its hash in hex. Raises ``UnknownModuleError``."""
    row = await connection.fetchrow(_sql["get"], _digest(module_id))
    if row is None:
        raise UnknownModuleError(f"no module {module_id}")
    return to_struct(row, Module)


async def modules_of(connection: Connection, owner: UUID, limit: int) -> list[Module]:
    """An account's modules, newest first."""
    return to_structs(await connection.fetch(_sql["of_account"], owner, limit), Module)


async def module_bytes(blobs: Blobs, metered_hash: bytes) -> bytes:
    """The bytes that devices run."""
    return await blobs.get(metered_hash)


def _digest(module_id: str) -> bytes:
    try:
        digest = bytes.fromhex(module_id)
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise UnknownModuleError(f"{module_id!r} is not a module's hash of 64 hex digits")
    return digest
