"""The audit log: its signed heads, its leaves and proofs."""

from __future__ import annotations

from collections.abc import Sequence

from gstd.protocol.audit import (
    AuditKey,
    CheckpointPage,
    ConsistencyProof,
    DifferencePage,
    LeafPage,
    StatementProof,
)
from gstd.sdk.room import Room, get, get_open
from gstd.sdk.transport import Call

AUDIT_TIMEOUT_S = 120.0
"""The first page of differences looks at every attempt."""


class AuditLog(Room):
    """What the log says and proves."""

    async def audit_key(self) -> AuditKey:
        """The audit log's name and public key. Answers everybody."""
        return await self._transport.fetch(AuditKey, get_open("/audit/key"))

    async def audit_checkpoint(self) -> str:
        """The newest signed head of the audit log, as a note. Answers everybody."""
        return (await self._transport.send(get_open("/audit/checkpoint"))).decode()

    async def audit_checkpoints(
        self, *, after: int = 0, limit: int | None = None
    ) -> CheckpointPage:
        """Signed heads with more than ``after`` leaves, by size. Answers everybody."""
        call = get_open("/audit/checkpoints", after=after, limit=limit)
        return await self._transport.fetch(CheckpointPage, call)

    async def audit_consistency(self, first: int, second: int) -> ConsistencyProof:
        """That the log of one size is the beginning of that of another. Answers everybody."""
        call = get_open("/audit/consistency", first=first, second=second)
        return await self._transport.fetch(ConsistencyProof, call)

    async def audit_proof(self, positions: Sequence[int]) -> StatementProof:
        """The account's own events at these positions, with proofs to check offline."""
        call = get("/audit/proof", positions=",".join(map(str, positions)))
        return await self._transport.fetch(StatementProof, call)

    async def audit_leaves(self, *, after: int = 0, limit: int | None = None) -> LeafPage:
        """The content of every leaf, by position. Admins only."""
        call = get("/admin/audit/leaves", after=after, limit=limit)
        return await self._transport.fetch(LeafPage, call)

    async def audit_differences(
        self, *, after: int = 0, limit: int | None = None
    ) -> DifferencePage:
        """Where the log and the tables it describes disagree. Admins only."""
        call = Call(
            method="GET",
            path="/admin/audit/differences",
            query={"after": after, "limit": limit},
            read_timeout_s=AUDIT_TIMEOUT_S,
        )
        return await self._transport.fetch(DifferencePage, call)
