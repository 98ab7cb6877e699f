"""Canonical bytes: one unambiguous encoding for everything that is hashed or signed.

``pack(domain, *fields)`` is ``domain`` in ASCII, a newline, then every field as

* integers: eight bytes, big-endian, two's complement;
* text and bytes: their length as four bytes big-endian, then the bytes (text in UTF-8).

The number and the order of the fields belong to the domain, so two different records never
share an encoding.
"""

from __future__ import annotations

import hashlib

Field = bytes | str | int


def pack(domain: str, *fields: Field) -> bytes:
    """Canonical bytes of a record. Raises ``OverflowError`` for integers beyond 64 bits."""
    out = bytearray(domain.encode("ascii") + b"\n")
    for field in fields:
        if isinstance(field, int):
            out += field.to_bytes(8, "big", signed=True)
        else:
            data = field.encode() if isinstance(field, str) else field
            out += len(data).to_bytes(4, "big") + data
    return bytes(out)


def sha256(data: bytes) -> bytes:
    """SHA-256, 32 bytes."""
    return hashlib.sha256(data).digest()


def digest(domain: str, *fields: Field) -> bytes:
    """SHA-256 of a record's canonical bytes."""
    return sha256(pack(domain, *fields))
