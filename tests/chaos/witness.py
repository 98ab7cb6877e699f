"""A network that remembers what became of every try, whatever client is above it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx2
import msgspec

NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class Answer(msgspec.Struct, frozen=True):
    """An answer that settled its operation: anything below 500."""

    status: int
    body: bytes
    is_replay: bool

    def same_as(self, other: Answer) -> bool:
        """Whether both tell the client the same."""
        return (self.status, self.body) == (other.status, other.body)


class Operation(msgspec.Struct):
    """All tries with one key."""

    request: httpx2.Request
    answers: list[Answer] = msgspec.field(default_factory=list)
    unknown: int = 0
    """Tries that were sent and ended without an answer, or with one of 500 and above."""


class Witness(httpx2.AsyncBaseTransport):
    """Carries requests and keeps a book of those with an idempotency key."""

    def __init__(self) -> None:
        self._http = httpx2.AsyncHTTPTransport(trust_env=False)
        self.operations: dict[str, Operation] = {}
        self.acknowledged = 0
        self.under_way = 0
        self.failures: list[str] = []
        """Answers of 500 that are not 503: the platform did not know what hit it."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        key = request.headers.get("idempotency-key")
        if key is None:
            return await self._http.handle_async_request(request)
        operation = self.operations.setdefault(key, Operation(request))
        self.under_way += 1
        try:
            return await self._carry(request, operation)
        finally:
            self.under_way -= 1

    async def _carry(self, request: httpx2.Request, operation: Operation) -> httpx2.Response:
        try:
            response = await self._http.handle_async_request(request)
            body = await response.aread()
        except httpx2.TransportError as error:
            operation.unknown += not isinstance(error, NOT_SENT)
            raise
        if response.status_code < 500:
            replayed = "idempotent-replayed" in response.headers
            self.acknowledged += not operation.answers
            operation.answers.append(Answer(response.status_code, body, replayed))
        else:
            operation.unknown += 1
            if response.status_code != 503:
                self.failures.append(body.decode(errors="replace"))
        return httpx2.Response(
            response.status_code, headers=response.headers, content=body, request=request
        )

    async def repeat(self, operation: Operation) -> Answer:
        """The answer to the same request, sent once more and not written into the book."""
        first = operation.request
        request = httpx2.Request(
            first.method, first.url, headers=first.headers, content=await first.aread()
        )
        response = await self._http.handle_async_request(request)
        body = await response.aread()
        return Answer(response.status_code, body, "idempotent-replayed" in response.headers)

    async def aclose(self) -> None:
        """Nothing: many clients share this network, and the test closes it."""

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def asking(self, least: int) -> Callable[[], bool]:
        """Whether ``least`` more operations were answered since now and others are under way."""
        before = self.acknowledged
        return lambda: self.acknowledged >= before + least and self.under_way > 1


Deed = Callable[[], Awaitable[None]]
"""One operation with its key inside: doing it again repeats the same request."""
