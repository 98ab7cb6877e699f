"""Identifiers: UUIDv7, so that rows made together lie together in every index."""

from __future__ import annotations

import uuid

from uuid_utils.compat import uuid7


def new_id() -> uuid.UUID:
    """A new time-ordered identifier (RFC 9562, version 7)."""
    return uuid7()
