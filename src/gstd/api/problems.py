"""Errors as RFC 9457 problems: a stable code, a sentence and a hint."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.background_tasks import BackgroundTask
from litestar.exceptions import HTTPException, ValidationException

from gstd.events.incidents import record
from gstd.kernel.errors import GstdError, InvalidInputError
from gstd.kernel.ids import new_id
from gstd.protocol.people import Problem

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Every answer carries these, problems too."""

_HINTS = {
    404: ("not_found", "See the routes at /docs."),
    405: ("method_not_allowed", "See the methods of this route at /docs."),
    413: ("request_too_large", "Send less at once; the limits are explained at /docs."),
}


def request_id(request: Request[Any, Any, Any]) -> str:
    """The request's id: the client's own if it sent a short one, else a new one."""
    found = request.scope["state"].get("request_id")
    if found is None:
        sent = request.headers.get("x-request-id", "")
        usable = 8 <= len(sent) <= 64 and sent.isascii() and sent.isprintable()
        found = sent if usable else str(new_id())
        request.scope["state"]["request_id"] = found
    return str(found)


def problem(error: GstdError, of_request: str) -> Problem:
    """The problem that tells of an error."""
    return Problem(
        type=f"urn:gstd:problem:{error.code}",
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        code=error.code,
        detail=error.detail,
        hint=error.advice,
        request_id=of_request,
    )


def encode_problem(error: GstdError, of_request: str) -> bytes:
    """The problem's JSON."""
    return msgspec.json.encode(problem(error, of_request))


def _response(request: Request[Any, Any, Any], error: GstdError) -> Response[bytes]:
    identity = request_id(request)
    return Response(
        content=encode_problem(error, identity),
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers={"X-Request-Id": identity, **SECURITY_HEADERS},
    )


def handle_gstd_error(request: Request[Any, Any, Any], error: GstdError) -> Response[bytes]:
    """A broken rule, in its own words."""
    return _response(request, error)


def handle_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What the web framework refuses: malformed bodies, unknown routes, wrong methods."""
    if isinstance(error, ValidationException) or error.status_code == HTTPStatus.BAD_REQUEST:
        return _response(request, InvalidInputError(_words(error)))
    code, hint = _HINTS.get(error.status_code, ("http_error", "See /docs."))
    words = error.detail or HTTPStatus(error.status_code).phrase
    kind = type("FrameworkError", (GstdError,), {"code": code, "status": error.status_code})
    return _response(request, kind(words, hint=hint))


def handle_nesting(request: Request[Any, Any, Any], _: RecursionError) -> Response[bytes]:
    """JSON nested so deeply that the decoder gives up."""
    return _response(request, InvalidInputError("the body is nested too deeply"))


def _words(error: HTTPException) -> str:
    extra = error.extra if isinstance(error.extra, list) else []
    parts = [
        f"{item.get('key', 'body')}: {item.get('message', '')}"
        for item in extra
        if isinstance(item, dict)
    ]
    return "; ".join(parts) or error.detail or "the request cannot be read"


async def _record(request: Request[Any, Any, Any], error: Exception) -> None:
    platform = request.app.state.platform
    await record(
        platform.database,
        error,
        place=f"{request.method} {request.url.path}",
        now=platform.clock.now(),
        request_id=request_id(request),
    )


def handle_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """What nobody expected: recorded for the operator, opaque to the caller."""
    answer = _response(request, GstdError("something went wrong on the platform"))
    answer.background = BackgroundTask(_record, request, error)
    return answer
