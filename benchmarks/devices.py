"""Simulated devices: a keep-alive connection each, signed requests, and as little CPU as can be."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from gstd.kernel.clock import SystemClock
from gstd.protocol.signing import DeviceKey
from gstd.protocol.work import (
    ClaimItem,
    ClaimsRequest,
    ClaimsResponse,
    SubmitItem,
    SubmitsRequest,
    SubmitsResponse,
)
from gstd.sdk.transport import PREFIX, BearerKey, Credential, DeviceSignature

T = TypeVar("T")
HOST = "127.0.0.1"
IDLE_S = 3.0
"""Shorter than the time after which the server closes what is idle."""


class AnswerError(Exception):
    """The platform refused a whole request."""


class Wire:
    """One connection to the API on this machine. Use as ``async with``."""

    def __init__(self, port: int, credential: Credential) -> None:
        self._port = port
        self._credential = credential

    @classmethod
    def of_device(cls, port: int, key: DeviceKey) -> Self:
        """Signs every request."""
        return cls(port, DeviceSignature(key, SystemClock()))

    @classmethod
    def of_person(cls, port: int, api_key: str) -> Self:
        """Sends the key with every request."""
        return cls(port, BearerKey(api_key))

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def _open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(HOST, self._port)
        self._used_at = time.monotonic()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    async def claims(self, items: list[ClaimItem]) -> ClaimsResponse:
        """Claim one batch."""
        return await self.post("/claims", ClaimsRequest(claims=items), ClaimsResponse)

    async def submits(self, items: list[SubmitItem]) -> SubmitsResponse:
        """Submit one batch."""
        return await self.post("/submits", SubmitsRequest(results=items), SubmitsResponse)

    async def post(self, path: str, request: msgspec.Struct, into: type[T], **more: str) -> T:
        """Post a request; ``more`` are headers."""
        body = msgspec.json.encode(request)
        target = PREFIX + path
        headers = {
            "Host": HOST,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **self._credential.headers("POST", target, body),
            **more,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if time.monotonic() - self._used_at > IDLE_S:
            self._writer.close()
            await self._open()
        self._writer.write(f"POST {target} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        self._used_at = time.monotonic()
        status = int(head.split(" ", 2)[1])
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        answer = await self._reader.readexactly(length)
        if status >= 300:
            raise AnswerError(answer.decode())
        return msgspec.json.decode(answer, type=into)
