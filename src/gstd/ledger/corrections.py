"""Corrections: one admin proposes a transfer, another one applies it or rejects it.

Both acts are events, and so leaves of the audit log.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from gstd.database.connection import Connection, Row
from gstd.database.sql import load_queries
from gstd.events.service import Event, append
from gstd.kernel.errors import InvalidInputError
from gstd.kernel.ids import new_id
from gstd.kernel.money import MAX_NANO
from gstd.ledger.errors import (
    CorrectionDecidedError,
    CorrectionNotFoundError,
    InsufficientFundsError,
    SecondAdminError,
)
from gstd.protocol.corrections import (
    AccountName,
    CorrectableKind,
    CorrectionRequest,
    CorrectionView,
)

_sql = load_queries("gstd.ledger")


async def propose(
    connection: Connection, request: CorrectionRequest, admin: UUID, now: datetime
) -> CorrectionView:
    """Write down what should be mended; nothing moves yet. Raises ``InvalidInputError``."""
    amount = int(request.amount_nano)
    if not 0 < amount <= MAX_NANO:
        raise InvalidInputError(f"`amount_nano` must lie between 1 and {MAX_NANO}")
    if request.debit == request.credit:
        raise InvalidInputError("`debit` and `credit` are the same account")
    for name in (request.debit, request.credit):
        if (name.kind is CorrectableKind.AVAILABLE) != (name.owner is not None):
            raise InvalidInputError(
                "`available` needs an `owner`, the platform's accounts have none"
            )
    correction_id = new_id()
    outcome = await connection.fetchval(
        _sql["propose_correction"],
        correction_id,
        request.debit.owner,
        request.debit.kind.value,
        request.credit.owner,
        request.credit.kind.value,
        request.asset.value,
        amount,
        request.corrects,
        request.reason,
        admin,
        now,
    )
    if outcome == "unknown":
        raise InvalidInputError(f"there is no transfer {request.corrects} to correct")
    await _tell(connection, "correction.proposed", correction_id, request, admin, now)
    return await correction(connection, correction_id)


async def decide(
    connection: Connection, correction_id: UUID, admin: UUID, *, apply: bool, now: datetime
) -> CorrectionView:
    """Apply or reject. Who proposed it may only reject it.

    Raises ``CorrectionNotFoundError``, ``CorrectionDecidedError``, ``SecondAdminError``, or
    ``InsufficientFundsError`` when the debited account has less; then nothing has changed.
    """
    outcome = await connection.fetchval(_sql["decide_correction"], correction_id, admin, apply, now)
    if outcome == "unknown":
        raise CorrectionNotFoundError
    view = await correction(connection, correction_id)
    if outcome == "replayed":
        raise CorrectionDecidedError(f"it is {view.state} since {view.decided_at}")
    if outcome == "same_admin":
        raise SecondAdminError
    if outcome == "insufficient":
        raise InsufficientFundsError("the debited account has less than the correction moves")
    await _tell(connection, f"correction.{outcome}", correction_id, view, admin, now)
    return view


async def correction(connection: Connection, correction_id: UUID) -> CorrectionView:
    """One correction. Raises ``CorrectionNotFoundError``."""
    rows = await connection.fetch(_sql["corrections"], correction_id, None, 1)
    if not rows:
        raise CorrectionNotFoundError
    return _view(rows[0])


async def corrections(
    connection: Connection, *, before: UUID | None, limit: int
) -> list[CorrectionView]:
    """Corrections, newest first."""
    rows = await connection.fetch(_sql["corrections"], None, before, limit)
    return [_view(row) for row in rows]


def _view(row: Row) -> CorrectionView:
    facts = dict(row.items())
    names = {
        side: AccountName(
            kind=CorrectableKind(facts.pop(f"{side}_kind")), owner=facts.pop(f"{side}_owner")
        )
        for side in ("debit", "credit")
    }
    return msgspec.convert({**facts, **names}, CorrectionView)


async def _tell(
    connection: Connection,
    kind: str,
    correction_id: UUID,
    what: CorrectionRequest | CorrectionView,
    admin: UUID,
    now: datetime,
) -> None:
    concerned = {name.owner for name in (what.debit, what.credit) if name.owner is not None}
    event = Event(
        kind=kind,
        accounts=tuple(sorted({*concerned, admin})),
        data={
            "correction_id": str(correction_id),
            "admin": str(admin),
            "amount_nano": what.amount_nano,
            "asset": what.asset.value,
            "reason": what.reason,
        },
    )
    await append(connection, [event], now)
