"""The challenge ``sha256-lz/1``: made and checked without storing anything.

The server's HMAC over a delimited record binds offer, task, device, bits, count and expiry.
A proof is ``count`` different nonces, each of which gives SHA-256(prefix + nonce) at least
``bits`` leading zero bits. The proof of work slows scripted claiming and puts a small price on
each claim. It is not identity, not protection against many identities, and not evidence that
a task was computed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid

import msgspec

_NONCE = re.compile(r"[0-9a-f]{1,16}")


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """What one offer asks of one device. ``worker`` is the device's public key in hex."""

    offer_id: uuid.UUID
    task_id: uuid.UUID
    worker: str
    bits: int
    count: int
    expires_at: int

    def record(self) -> bytes:
        """The delimited ASCII record under the HMAC."""
        fields = (self.offer_id, self.task_id, self.worker, self.bits, self.count, self.expires_at)
        return ("gstd-pow/1\n" + "".join(f"{field}\n" for field in fields)).encode("ascii")

    def prefix(self, key: bytes) -> str:
        """What every nonce is appended to: challenge (64 hex), task id (36), worker (64 hex)."""
        challenge = hmac.new(key, self.record(), hashlib.sha256).hexdigest()
        return f"{challenge}{self.task_id}{self.worker}"

    def is_solved_by(self, key: bytes, nonces: list[str]) -> bool:
        """Whether the nonces are a complete proof. Expiry is the caller's to check."""
        if len(nonces) != self.count or len(set(map(_value, nonces))) != self.count:
            return False
        state = hashlib.sha256(self.prefix(key).encode("ascii"))
        return all(_NONCE.fullmatch(nonce) and _leads(state, nonce, self.bits) for nonce in nonces)


def _value(nonce: str) -> str:
    return nonce.lstrip("0")


def _leads(state: hashlib._Hash, nonce: str, bits: int) -> bool:
    attempt = state.copy()
    attempt.update(nonce.encode("ascii"))
    return leading_zero_bits(attempt.digest()) >= bits


def leading_zero_bits(digest: bytes) -> int:
    """Zero bits before the first one bit, big-endian."""
    return len(digest) * 8 - int.from_bytes(digest, "big").bit_length()
