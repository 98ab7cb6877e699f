"""One key, one answer: the contract behind the ``Idempotency-Key`` header."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from gstd.accounts.errors import IdempotencyConflictError
from gstd.database.connection import Connection
from gstd.database.sql import load_queries

_sql = load_queries("gstd.accounts")


class StoredAnswer(msgspec.Struct, frozen=True):
    """What was answered the first time."""

    status: int
    body: bytes


async def begin(
    connection: Connection, account_id: UUID, key: str, request_hash: bytes, now: datetime
) -> StoredAnswer | None:
    """``None`` for a new key, else the stored answer.

    A twin that is still running is waited for. Raises ``IdempotencyConflictError`` when the key
    was used with another request.
    """
    if await connection.fetchval(_sql["begin_idempotent"], account_id, key, request_hash, now):
        return None
    row = await connection.fetchrow(_sql["idempotent_answer"], account_id, key)
    assert row is not None
    if row["request_hash"] != request_hash:
        raise IdempotencyConflictError
    return StoredAnswer(row["status"], row["body"])


async def finish(connection: Connection, account_id: UUID, key: str, answer: StoredAnswer) -> None:
    """Store the answer in the transaction that made it."""
    await connection.execute(_sql["finish_idempotent"], account_id, key, answer.status, answer.body)
