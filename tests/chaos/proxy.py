"""A way to the API that loses answers: requests go through whole, chosen answers do not."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum
from typing import Self
from urllib.parse import urlsplit

import msgspec


class Cut(Enum):
    """How much of an answer reaches the client before its connection ends."""

    NOTHING = "nothing of it"
    PART_OF_HEAD = "a part of its head"
    ALL_BUT_A_BYTE = "all but its last byte"
    NOT_WAITED_FOR = "the API itself loses its client, maybe before it has an answer"


class Message(msgspec.Struct, frozen=True):
    """One HTTP message as it was on the wire."""

    start: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> bytes:
        """What follows the head."""
        return self.raw.partition(b"\r\n\r\n")[2]


class Exchange(msgspec.Struct, frozen=True):
    """A POST that went through and the API's answer, whether or not it was passed on."""

    request: Message
    answer: Message | None
    cut: Cut | None


class LossyProxy:
    """``cuts`` are for the next POSTs, one each; every other answer is passed on whole.

    The API's answer is read to its end before the client's connection is cut, so that what was
    asked is committed by then, however fast or slow anything is.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._writers: set[asyncio.StreamWriter] = set()
        self.cuts: deque[Cut] = deque()
        self.exchanges: list[Exchange] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"http://127.0.0.1:{self.port}"

    @classmethod
    @asynccontextmanager
    async def to(cls, upstream: str) -> AsyncIterator[Self]:
        """A proxy before the API at this URL."""
        proxy = cls(upstream)
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            for writer in proxy._writers:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError):  # either side has gone
            while await self._pass_on(await _message(reader), writer):
                pass
        self._writers.discard(writer)
        writer.close()

    async def _pass_on(self, request: Message, writer: asyncio.StreamWriter) -> bool:
        """Carry one request over; false when the client's connection is to end."""
        is_post = request.start.startswith("POST ")
        cut = self.cuts.popleft() if is_post and self.cuts else None
        answer = await self._ask(request, wait=cut is not Cut.NOT_WAITED_FOR)
        if is_post:
            self.exchanges.append(Exchange(request, answer, cut))
        writer.write(_passed(answer, cut))
        await writer.drain()
        return cut is None

    async def _ask(self, request: Message, *, wait: bool) -> Message | None:
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            writer.write(request.raw)
            await writer.drain()
            return await _message(reader) if wait else None
        finally:
            writer.close()


def _passed(answer: Message | None, cut: Cut | None) -> bytes:
    if answer is None or cut is Cut.NOTHING:
        return b""
    if cut is Cut.PART_OF_HEAD:
        return answer.raw[:20]
    return answer.raw[:-1] if cut is Cut.ALL_BUT_A_BYTE else answer.raw


async def _message(reader: asyncio.StreamReader) -> Message:
    head = await reader.readuntil(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Message(start, headers, head + body)
