"""Who asks: from the credential alone, never from a body, a query or another header."""

from __future__ import annotations

from typing import Any

from litestar import Request
from litestar.di import NamedDependency

from gstd.accounts import service as accounts
from gstd.accounts.errors import NotAuthenticatedError, StaleRequestError
from gstd.accounts.model import Actor, DeviceActor
from gstd.api.platform import Platform
from gstd.protocol.signing import (
    AUTHORIZATION_SCHEME,
    RequestProof,
    is_signed_by,
    request_bytes,
)


async def provide_platform(request: Request[Any, Any, Any]) -> Platform:
    """The process's platform."""
    platform: Platform = request.app.state.platform
    return platform


async def provide_actor(
    request: Request[Any, Any, Any], platform: NamedDependency[Platform]
) -> Actor:
    """The account of the request's API key. A device's signature opens no account."""
    key = bearer_of(request)
    async with platform.database.connection() as connection:
        return await accounts.actor_of_key(connection, key, platform.clock.now())


def bearer_of(request: Request[Any, Any, Any]) -> str:
    """The request's bearer token. Raises ``NotAuthenticatedError`` without one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotAuthenticatedError
    return token.strip()


async def provide_device(
    request: Request[Any, Any, Any], platform: NamedDependency[Platform]
) -> DeviceActor:
    """The active device that signed exactly this request, just now, for the first time."""
    header = request.headers.get("authorization", "")
    if not header.startswith(AUTHORIZATION_SCHEME + " "):
        raise NotAuthenticatedError("this route needs a request signed by a device")
    try:
        proof = RequestProof.parse(header)
    except ValueError as error:
        raise NotAuthenticatedError(str(error)) from error
    await _check_proof(request, proof, platform)
    device = await platform.desk.device_of_key(proof.key)
    device.must_be_active()
    now_ms = int(platform.clock.now().timestamp() * 1000)
    await platform.bus.touch(str(device.device_id), now_ms)
    return device


async def _check_proof(
    request: Request[Any, Any, Any], proof: RequestProof, platform: Platform
) -> None:
    skew_ms = platform.policy.request_skew_ms
    now_ms = int(platform.clock.now().timestamp() * 1000)
    if abs(now_ms - proof.sent_at_ms) > skew_ms:
        raise StaleRequestError(f"the request was signed {now_ms - proof.sent_at_ms} ms ago")
    query = request.scope["query_string"].decode("latin-1")
    target = request.scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
    body = await request.body()
    signed = request_bytes(request.method, target, body, proof.sent_at_ms, proof.nonce)
    if not is_signed_by(proof.key, signed, proof.signature):
        raise NotAuthenticatedError("the signature does not fit this request")
    if not await platform.bus.is_fresh(f"{proof.key}:{proof.nonce}", 2 * skew_ms):
        raise StaleRequestError("this signed request was sent before")


PlatformDep = NamedDependency[Platform]
ActorDep = NamedDependency[Actor]
DeviceDep = NamedDependency[DeviceActor]
"""What handlers ask for by the names ``platform``, ``actor`` and ``device``."""
