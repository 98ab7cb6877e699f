"""Identifiers: UUIDv7, so that rows made together lie together in every index."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from uuid_utils.compat import uuid7


def new_id() -> uuid.UUID:
    """A new time-ordered identifier (RFC 9562, version 7)."""
    return uuid7()


def made_at(identifier: uuid.UUID) -> datetime:
    """When an identifier of ``new_id`` was made, to the millisecond."""
    return datetime.fromtimestamp((identifier.int >> 80) / 1000, UTC)
