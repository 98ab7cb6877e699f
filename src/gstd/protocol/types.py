"""Shapes shared by many messages: amounts, hashes and keys as text."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

Nano = Annotated[str, Meta(pattern=r"^[0-9]{1,19}$", examples=["1500000000"])]
"""An amount in nano. JSON carries it as a string, because 2^53 nano are only 9 million GSTD."""

HexHash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", min_length=64, max_length=64)]
"""A SHA-256 or an Ed25519 public key, 64 lower-case hexadecimal digits."""

NAME = r"^[^\x00-\x1f\x7f]+$"
Name = Annotated[str, Meta(min_length=1, max_length=80, pattern=NAME)]
"""A name that people see: no control characters."""

Text = Annotated[str, Meta(pattern=r"^[^\x00]*$")]
"""Text without NUL, which neither PostgreSQL nor a program's arguments can hold."""


class Asset(StrEnum):
    """What money is made of. Test credits can never be withdrawn."""

    GSTD = "GSTD"
    TEST = "TEST"


class Priority(StrEnum):
    """How urgent a requester says a job is; inside a level the earlier deadline goes first."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Tier(StrEnum):
    """How results are verified: everything re-executed, or agreement of independent accounts."""

    FULL = "full"
    QUORUM = "quorum"


class Role(StrEnum):
    """What an account may do."""

    REQUESTER = "requester"
    WORKER = "worker"
    ADMIN = "admin"
