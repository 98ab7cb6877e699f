"""One key, one answer: the contract behind the ``Idempotency-Key`` header.

An answer may hold a secret that is shown only once, such as an API key. The table keeps the hash
of the idempotency key and the answer sealed with the key itself, so that whoever reads the table
learns neither, and the client that repeats its request gets both again.
"""

from __future__ import annotations

import secrets
from datetime import datetime
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from gstd.accounts.errors import IdempotencyConflictError
from gstd.database.connection import Connection
from gstd.database.sql import load_queries
from gstd.kernel.canonical import digest

_sql = load_queries("gstd.accounts")

_NONCE_BYTES = 12


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
    key_hash = _key_hash(key)
    if await connection.fetchval(_sql["begin_idempotent"], account_id, key_hash, request_hash, now):
        return None
    row = await connection.fetchrow(_sql["idempotent_answer"], account_id, key_hash)
    assert row is not None
    if row["request_hash"] != request_hash:
        raise IdempotencyConflictError
    return StoredAnswer(row["status"], _unseal(row["sealed_body"], key, account_id))


async def finish(connection: Connection, account_id: UUID, key: str, answer: StoredAnswer) -> None:
    """Store the answer in the transaction that made it."""
    sealed = _seal(answer.body, key, account_id)
    await connection.execute(
        _sql["finish_idempotent"], account_id, _key_hash(key), answer.status, sealed
    )


def _key_hash(key: str) -> bytes:
    return digest("gstd-idempotency-name-v1", key)


def _cipher(key: str) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(digest("gstd-idempotency-seal-v1", key))


def _seal(body: bytes, key: str, account_id: UUID) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + _cipher(key).encrypt(nonce, body, account_id.bytes)


def _unseal(sealed: bytes, key: str, account_id: UUID) -> bytes:
    nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    return _cipher(key).decrypt(nonce, text, account_id.bytes)
