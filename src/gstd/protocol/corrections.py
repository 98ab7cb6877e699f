"""Messages about corrections: transfers that mend a mistake and that two admins want."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from gstd.protocol.types import Asset, Nano


class CorrectableKind(StrEnum):
    """Accounts that nothing else counts on, so that a correction breaks no promise."""

    AVAILABLE = "available"
    FEE = "fee"
    REFEREE = "referee"
    RESTITUTION = "restitution"


class AccountName(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account of the ledger: ``available`` has an owner, the platform's own have none."""

    kind: CorrectableKind
    owner: UUID | None = None


class CorrectionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Move ``amount_nano`` from ``debit`` to ``credit``. ``corrects`` names the wrong transfer."""

    debit: AccountName
    credit: AccountName
    asset: Asset
    amount_nano: Nano
    reason: Annotated[str, Meta(min_length=1, max_length=2000)]
    corrects: int | None = None


class CorrectionDecision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another admin's word: apply it, or reject it."""

    apply: bool


class CorrectionView(msgspec.Struct, frozen=True, kw_only=True):
    """A correction: proposed, applied or rejected, with who wanted it and who decided."""

    id: UUID
    debit: AccountName
    credit: AccountName
    asset: Asset
    amount_nano: Nano
    reason: str
    corrects: int | None
    state: str
    proposed_by: UUID
    proposed_at: datetime
    decided_by: UUID | None
    decided_at: datetime | None
