"""The client of a device: enrolment and the signed routes, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar
from uuid import UUID

import httpx2
import msgspec

from gstd.kernel.clock import Clock
from gstd.kernel.errors import Refusal
from gstd.protocol.people import DeviceView, EnrolRequest
from gstd.protocol.signing import DeviceKey, enrolment_statement
from gstd.protocol.work import (
    MAX_BATCH,
    Alive,
    Claimed,
    ClaimItem,
    ClaimsRequest,
    ClaimsResponse,
    HeartbeatsRequest,
    HeartbeatsResponse,
    OffersRequest,
    OffersResponse,
    Released,
    ReleaseItem,
    ReleasesRequest,
    ReleasesResponse,
    SubmitItem,
    SubmitsRequest,
    SubmitsResponse,
    Submitted,
)
from gstd.sdk.errors import UnexpectedAnswerError
from gstd.sdk.pacing import DEFAULT_PACING, Pacing
from gstd.sdk.transport import READ_TIMEOUT_S, SYSTEM_CLOCK, Call, DeviceSignature, Transport

T = TypeVar("T")
ITEM = TypeVar("ITEM")


class DeviceClient:
    """Calls the platform as the device that holds ``key``.

    Lists of any length go out in requests of at most ``MAX_BATCH`` items; every method returns
    one outcome per item in the same order. All calls are idempotent and repeated after passing
    failures, each try signed anew. Methods raise ``ApiError``, ``UnreachableError`` or
    ``UnexpectedAnswerError``. Use as ``async with DeviceClient(url, key) as client:``.
    """

    def __init__(
        self,
        url: str,
        key: DeviceKey,
        *,
        pacing: Pacing = DEFAULT_PACING,
        clock: Clock = SYSTEM_CLOCK,
        http: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.key = key
        credential = DeviceSignature(key, clock)
        self._transport = Transport(url, credential, pacing=pacing, http=http)

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

    async def enrol(self, code: str, name: str) -> DeviceView:
        """Link this device to the account that made the code."""
        request = EnrolRequest(
            code=code,
            name=name,
            public_key=self.key.public,
            signature=self.key.sign(enrolment_statement(code, self.key.public)),
        )
        body = msgspec.json.encode(request)
        call = Call(method="POST", path="/devices/enrol", body=body, safe=True, anonymous=True)
        return await self._transport.fetch(DeviceView, call)

    async def offers(self, request: OffersRequest) -> OffersResponse:
        """Offers for free slots; the answer waits ``request.wait_ms`` for work."""
        timeout_s = READ_TIMEOUT_S + request.wait_ms / 1000
        return await self._post(OffersResponse, "/offers", request, timeout_s)

    async def claims(self, items: Sequence[ClaimItem]) -> list[Claimed | Refusal]:
        """Turn solved offers into attempts."""
        outcomes: list[Claimed | Refusal] = []
        for batch in _batches(items):
            request = ClaimsRequest(claims=batch)
            answer = await self._post(ClaimsResponse, "/claims", request)
            outcomes += _one_each(batch, answer.outcomes)
        return outcomes

    async def heartbeats(self, attempts: Sequence[UUID]) -> list[Alive | Refusal]:
        """Keep attempts alive; a refusal means that the attempt is over."""
        outcomes: list[Alive | Refusal] = []
        for batch in _batches(attempts):
            request = HeartbeatsRequest(attempts=batch)
            answer = await self._post(HeartbeatsResponse, "/heartbeats", request)
            outcomes += _one_each(batch, answer.outcomes)
        return outcomes

    async def submits(self, items: Sequence[SubmitItem]) -> list[Submitted | Refusal]:
        """Hand in signed results. Keep one call's outputs below the platform's request limit."""
        outcomes: list[Submitted | Refusal] = []
        for batch in _batches(items):
            request = SubmitsRequest(results=batch)
            answer = await self._post(SubmitsResponse, "/submits", request)
            outcomes += _one_each(batch, answer.outcomes)
        return outcomes

    async def releases(self, items: Sequence[ReleaseItem]) -> list[Released | Refusal]:
        """Give tasks back."""
        outcomes: list[Released | Refusal] = []
        for batch in _batches(items):
            request = ReleasesRequest(releases=batch)
            answer = await self._post(ReleasesResponse, "/releases", request)
            outcomes += _one_each(batch, answer.outcomes)
        return outcomes

    async def module(self, metered_hash: str) -> bytes:
        """The bytes of a metered module. The caller checks their hash."""
        return await self._transport.send(Call(method="GET", path=f"/modules/{metered_hash}"))

    async def _post(
        self, into: type[T], path: str, request: msgspec.Struct, timeout_s: float = READ_TIMEOUT_S
    ) -> T:
        body = msgspec.json.encode(request)
        call = Call(method="POST", path=path, body=body, safe=True, read_timeout_s=timeout_s)
        return await self._transport.fetch(into, call)


def _batches(items: Sequence[ITEM]) -> Iterator[list[ITEM]]:
    return (list(items[at : at + MAX_BATCH]) for at in range(0, len(items), MAX_BATCH))


def _one_each(batch: Sequence[object], outcomes: list[T]) -> list[T]:
    if len(outcomes) != len(batch):
        raise UnexpectedAnswerError(f"{len(outcomes)} outcomes for {len(batch)} items")
    return outcomes
