"""Ed25519: device keys, signed requests and signed results."""

from __future__ import annotations

import uuid
from typing import Self

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gstd.kernel.canonical import pack, sha256

AUTHORIZATION_SCHEME = "GSTD-Device"


class DeviceKey:
    """A device's private key. ``public`` is its identity: 64 hexadecimal digits."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = raw.hex()

    @classmethod
    def generate(cls) -> Self:
        """A new key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The key of a stored 32-byte seed. Raises ``ValueError`` for any other length."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def seed(self) -> bytes:
        """The 32 bytes to store, readable by nobody but the owner."""
        return self._private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of ``message``."""
        return self._private.sign(message)


def is_signed_by(public_key: str, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is the key's signature of exactly these bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


class RequestProof(msgspec.Struct, frozen=True):
    """What the ``Authorization`` header of a device's request carries."""

    key: str
    sent_at_ms: int
    nonce: str
    signature: bytes

    def header(self) -> str:
        """The header's value: ``GSTD-Device key=…,ts=…,nonce=…,sig=…``."""
        return (
            f"{AUTHORIZATION_SCHEME} key={self.key},ts={self.sent_at_ms},"
            f"nonce={self.nonce},sig={self.signature.hex()}"
        )

    @classmethod
    def parse(cls, header: str) -> Self:
        """The proof in a header. Raises ``ValueError`` for anything but the exact form."""
        scheme, _, rest = header.partition(" ")
        parts = dict(part.partition("=")[::2] for part in rest.split(","))
        if scheme != AUTHORIZATION_SCHEME or set(parts) != {"key", "ts", "nonce", "sig"}:
            raise ValueError("not a device's authorization header")
        if not 16 <= len(parts["nonce"]) <= 64:
            raise ValueError("the nonce must have 16 to 64 characters")
        return cls(parts["key"], int(parts["ts"]), parts["nonce"], bytes.fromhex(parts["sig"]))


def request_bytes(method: str, target: str, body: bytes, sent_at_ms: int, nonce: str) -> bytes:
    """What a device signs for one request: method, path with query, body, time and nonce."""
    return pack("gstd-request-v1", method.upper(), target, sha256(body), sent_at_ms, nonce)


def sign_request(
    key: DeviceKey, method: str, target: str, body: bytes, sent_at_ms: int, nonce: str
) -> RequestProof:
    """The proof that the device sends exactly this request, once."""
    signature = key.sign(request_bytes(method, target, body, sent_at_ms, nonce))
    return RequestProof(key.public, sent_at_ms, nonce, signature)


def enrolment_statement(code: str, public_key: str) -> bytes:
    """What a device signs to prove that it holds the key it enrols."""
    return pack("gstd-enrol-v1", code, bytes.fromhex(public_key))


def result_statement(
    *,
    task_id: uuid.UUID,
    revision: int,
    attempt_id: uuid.UUID,
    device_key: str,
    profile: str,
    result_hash: bytes,
) -> bytes:
    """What a device signs for a result.

    The record is ``gstd-result-v1`` with task id, revision, attempt id (all ids as 16 bytes),
    the device's public key, the execution profile and the result hash of ``execution``.
    """
    return pack(
        "gstd-result-v1",
        task_id.bytes,
        revision,
        attempt_id.bytes,
        bytes.fromhex(device_key),
        profile,
        result_hash,
    )
