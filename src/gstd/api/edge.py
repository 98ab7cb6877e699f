"""One request, one transaction: idempotent writes, reads on one snapshot, long polls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

import msgspec
from litestar import MediaType, Request, Response
from litestar.handlers import BaseRouteHandler

from gstd.accounts import idempotency
from gstd.accounts.errors import IdempotencyKeyRequiredError
from gstd.accounts.idempotency import StoredAnswer
from gstd.accounts.model import Actor
from gstd.api.errors import ClientGoneError, ShuttingDownError
from gstd.api.platform import Platform
from gstd.api.problems import MEDIA_TYPE, encode_problem, request_id
from gstd.bus.bus import Hint
from gstd.database.connection import Connection
from gstd.kernel.canonical import digest
from gstd.kernel.errors import GstdError, InvalidInputError

T = TypeVar("T")

Work = Callable[[Connection, datetime], Awaitable[T]]

KEY_HEADER = "Idempotency-Key"
KEY_CHARACTERS = 200


class KeyRule(StrEnum):
    """Whether a route that calls ``write`` merely takes an ``Idempotency-Key`` or demands one."""

    TAKEN = "taken"
    REQUIRED = "required"


IDEMPOTENT: dict[str, Any] = {"idempotency_key": KeyRule.TAKEN}
MOVES_MONEY: dict[str, Any] = {"idempotency_key": KeyRule.REQUIRED}
"""A route gives one of these as its ``opt``: ``write`` obeys it and the reference shows it."""


def key_rule(handler: BaseRouteHandler) -> KeyRule | None:
    """What a route does with an ``Idempotency-Key``; ``None`` if it ignores it."""
    rule: KeyRule | None = handler.opt.get("idempotency_key")
    return rule


async def while_connected(
    request: Request[Any, Any, Any], platform: Platform, work: Coroutine[Any, Any, T]
) -> T:
    """The answer of a long poll; the work is cancelled when its client hangs up.

    Otherwise a device that died would be offered tasks for as long as it meant to wait.
    """
    answer = asyncio.ensure_future(work)
    ends = [
        asyncio.ensure_future(_hang_up(request)),
        asyncio.ensure_future(platform.closing.wait()),
    ]
    try:
        await asyncio.wait([answer, *ends], return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return await answer
        raise ShuttingDownError if platform.closing.is_set() else ClientGoneError
    finally:
        for task in (answer, *ends):
            task.cancel()


async def _hang_up(request: Request[Any, Any, Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def read(platform: Platform, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Run a read of any number of statements on one snapshot of the database."""
    async with platform.database.transaction() as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return await work(connection)


async def write(
    request: Request[Any, Any, Any],
    platform: Platform,
    actor: Actor,
    work: Work[T],
    *,
    hints: Sequence[Hint] = (),
    status: int = 201,
) -> Response[T]:
    """Run a write once per ``Idempotency-Key``: a repeated request gets its first answer.

    A refusal by ``work`` is an answer too and is stored with the key, so a late repetition never
    acts. Failures of the platform are not: they rolled everything back. The route says in its
    ``opt`` whether the key is ``IDEMPOTENT`` (taken) or ``MOVES_MONEY`` (required).
    """
    key = _key_of(request)
    target = f"{request.method} {request.url.path}?{request.url.query}"
    request_hash = digest("gstd-request-hash-v1", target, await request.body())

    async def once(connection: Connection) -> tuple[StoredAnswer, bool]:
        now = platform.clock.now()
        if key is None:
            return StoredAnswer(status, _encode(await work(connection, now))), False
        stored = await idempotency.begin(connection, actor.account_id, key, request_hash, now)
        if stored is not None:
            return stored, True
        answer = await _attempt(connection, work, now, status, request_id(request))
        await idempotency.finish(connection, actor.account_id, key, answer)
        return answer, False

    answer, is_replayed = await platform.database.run(once)
    if not is_replayed:
        await platform.bus.publish(*hints)
    return _response(answer, is_replayed, request_id(request))


def _key_of(request: Request[Any, Any, Any]) -> str | None:
    rule = key_rule(request.route_handler)
    assert rule is not None, "a route that writes says whether it moves money"
    key = request.headers.get(KEY_HEADER)
    if key is None and rule is KeyRule.REQUIRED:
        raise IdempotencyKeyRequiredError
    if key is not None and not 1 <= len(key) <= KEY_CHARACTERS:
        raise InvalidInputError(f"{KEY_HEADER} must have 1 to {KEY_CHARACTERS} characters")
    return key


async def _attempt(
    connection: Connection, work: Work[T], now: datetime, status: int, identity: str
) -> StoredAnswer:
    try:
        async with connection.transaction():
            return StoredAnswer(status, _encode(await work(connection, now)))
    except GstdError as error:
        if error.status >= 500:
            raise
        return StoredAnswer(error.status, encode_problem(error, identity))


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value)


def _response(answer: StoredAnswer, is_replayed: bool, identity: str) -> Response[Any]:
    headers = {"X-Request-Id": identity}
    if is_replayed:
        headers["Idempotent-Replayed"] = "true"
    return Response(
        content=answer.body,
        status_code=answer.status,
        media_type=MediaType.JSON if answer.status < 400 else MEDIA_TYPE,
        headers=headers,
    )
