"""The client of a requester, a worker's owner or an admin: every route of a person."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import httpx2

from gstd.sdk.audit_log import AuditLog
from gstd.sdk.jobs import Jobs
from gstd.sdk.matching import Matching
from gstd.sdk.modules import Modules
from gstd.sdk.money import Money
from gstd.sdk.operations import Operations
from gstd.sdk.pacing import DEFAULT_PACING, Pacing
from gstd.sdk.people import People
from gstd.sdk.transport import BearerKey, Transport


class Client(People, Matching, Money, Modules, Jobs, AuditLog, Operations):
    """Calls the platform with an account's API key; without one only ``health`` answers.

    Methods raise ``ApiError`` with the platform's code and hint, ``UnreachableError``, or
    ``UnexpectedAnswerError``. What makes something or moves money carries an idempotency key: the
    retries of one call use one key, and a caller may give its own to repeat a call later.
    Use as ``async with Client(url, api_key) as client:``.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        pacing: Pacing = DEFAULT_PACING,
        http: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        credential = None if api_key is None else BearerKey(api_key)
        super().__init__(Transport(url, credential, pacing=pacing, http=http))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()
