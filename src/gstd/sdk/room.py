"""What the rooms of ``Client`` share: a transport, and the kinds of calls they make."""

from __future__ import annotations

import msgspec

from gstd.kernel.ids import new_id
from gstd.sdk.transport import Call, QueryValue, Transport

DOWNLOAD_TIMEOUT_S = 120.0
"""The platform sorts a long statement before its first row."""


class Room:
    """Some of the routes of a person; ``Client`` puts the rooms together."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport


def get(path: str, **query: QueryValue) -> Call:
    """A question as the account."""
    return Call(method="GET", path=path, query=query)


def get_open(path: str, **query: QueryValue) -> Call:
    """A question that everybody may ask."""
    return Call(method="GET", path=path, query=query, anonymous=True)


def download(path: str, **query: QueryValue) -> Call:
    """A long answer, whose first byte may take a while."""
    return Call(method="GET", path=path, query=query, read_timeout_s=DOWNLOAD_TIMEOUT_S)


def make(path: str, request: msgspec.Struct | None, idempotency_key: str | None) -> Call:
    """Something that happens once, however often it is sent."""
    return Call(
        method="POST",
        path=path,
        body=b"" if request is None else msgspec.json.encode(request),
        idempotency_key=own_or_new(idempotency_key),
    )


def change(path: str, request: msgspec.Struct, idempotency_key: str | None) -> Call:
    """A change of something that exists."""
    return Call(
        method="PATCH",
        path=path,
        body=msgspec.json.encode(request),
        idempotency_key=own_or_new(idempotency_key),
    )


def own_or_new(idempotency_key: str | None) -> str:
    """The caller's key; an empty one is sent and refused rather than replaced on every call."""
    return str(new_id()) if idempotency_key is None else idempotency_key
