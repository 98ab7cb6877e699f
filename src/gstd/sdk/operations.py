"""How the platform is, and what its admins look at and mend."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO
from uuid import UUID

from gstd.protocol.autoscale import AutoscaleSignal
from gstd.protocol.corrections import CorrectionDecision, CorrectionRequest, CorrectionView
from gstd.protocol.people import Health, LedgerCheck, RecordedError
from gstd.sdk.room import Room, download, get, make
from gstd.sdk.transport import Call

_UNAVAILABLE = 503


class Operations(Room):
    """The platform's health, books and errors."""

    async def health(self) -> Health:
        """How the platform is; also answers while it is unhealthy."""
        call = Call(method="GET", path="/health", anonymous=True, also_fine=(_UNAVAILABLE,))
        return await self._transport.fetch(Health, call)

    async def autoscale(self) -> AutoscaleSignal:
        """How many slots the platform's work needs now."""
        return await self._transport.fetch(AutoscaleSignal, get("/autoscale"))

    async def recorded_errors(self, *, limit: int | None = None) -> list[RecordedError]:
        """Errors that nobody expected, newest first. Admins only."""
        call = get("/admin/errors", limit=limit)
        return await self._transport.fetch(list[RecordedError], call)

    async def check_ledger(self) -> LedgerCheck:
        """All invariants of the ledger. Admins only."""
        return await self._transport.fetch(LedgerCheck, get("/admin/ledger/check"))

    async def export_ledger(
        self, to: IO[bytes], *, on_progress: Callable[[int], object] | None = None
    ) -> int:
        """Write the whole ledger as a journal of hledger. Admins only."""
        return await self._transport.download(download("/admin/ledger/export"), to, on_progress)

    async def propose_correction(
        self, request: CorrectionRequest, *, idempotency_key: str | None = None
    ) -> CorrectionView:
        """Propose a transfer that mends a mistake. Admins only."""
        call = make("/admin/corrections", request, idempotency_key)
        return await self._transport.fetch(CorrectionView, call)

    async def decide_correction(
        self, correction_id: UUID, *, apply: bool, idempotency_key: str | None = None
    ) -> CorrectionView:
        """Apply or reject what another admin proposed. Admins only."""
        path = f"/admin/corrections/{correction_id}/decision"
        call = make(path, CorrectionDecision(apply=apply), idempotency_key)
        return await self._transport.fetch(CorrectionView, call)

    async def corrections(self, *, limit: int | None = None) -> list[CorrectionView]:
        """Corrections, newest first. Admins only."""
        call = get("/admin/corrections", limit=limit)
        return await self._transport.fetch(list[CorrectionView], call)
