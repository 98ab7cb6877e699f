"""One way to the platform: base URL, credential, retries, and errors with a hint."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import IO, Protocol, Self, TypeVar
from urllib.parse import quote, urlencode

import httpx2
import msgspec

from gstd import __version__
from gstd.kernel.clock import Clock, SystemClock
from gstd.kernel.errors import InvalidInputError
from gstd.protocol.signing import DeviceKey, sign_request
from gstd.sdk.errors import ApiError, SdkError, UnexpectedAnswerError, UnreachableError
from gstd.sdk.pacing import DEFAULT_PACING, Pacing

PREFIX = "/api/v1"
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0

_BUSY = frozenset({502, 503, 504})
_TOO_MANY = 429
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_HOPELESS = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)
_KEEPALIVE_S = 3.0
"""Shorter than the server's own, so that a request never meets a connection being closed."""

T = TypeVar("T")
QueryValue = str | int | bool | None


class Credential(Protocol):
    """Says who sends a request. Asked anew for every try."""

    def headers(self, method: str, target: str, body: bytes) -> dict[str, str]: ...


class BearerKey:
    """An account's API key."""

    def __init__(self, api_key: str) -> None:
        self._value = f"Bearer {api_key}"

    def headers(self, method: str, target: str, body: bytes) -> dict[str, str]:  # noqa: ARG002
        return {"Authorization": self._value}


class DeviceSignature:
    """A device's signature over each single request, with a fresh nonce every time."""

    def __init__(self, key: DeviceKey, clock: Clock) -> None:
        self._key = key
        self._clock = clock

    def headers(self, method: str, target: str, body: bytes) -> dict[str, str]:
        sent_at_ms = int(self._clock.now().timestamp() * 1000)
        nonce = secrets.token_hex(16)
        proof = sign_request(self._key, method, target, body, sent_at_ms, nonce)
        return {"Authorization": proof.header()}


SYSTEM_CLOCK = SystemClock()


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Query values that are ``None`` are left out.

    A ``safe`` call may reach the platform twice without harm and is repeated after every
    passing failure; any other only when it surely was not carried out.
    """

    method: str
    path: str
    query: Mapping[str, QueryValue] = {}
    body: bytes = b""
    content_type: str = "application/json"
    idempotency_key: str | None = None
    safe: bool = False
    anonymous: bool = False
    read_timeout_s: float = READ_TIMEOUT_S
    also_fine: tuple[int, ...] = ()

    @property
    def target(self) -> str:
        """Path with query: what a device signs."""
        path = PREFIX + quote(self.path)
        pairs = [(name, _text(value)) for name, value in self.query.items() if value is not None]
        return f"{path}?{urlencode(pairs, quote_via=quote)}" if pairs else path

    @property
    def is_repeatable(self) -> bool:
        return self.safe or self.method == "GET" or self.idempotency_key is not None


class Transport:
    """Sends calls. Use as ``async with``; ``http`` replaces the network in tests."""

    def __init__(
        self,
        url: str,
        credential: Credential | None,
        *,
        pacing: Pacing = DEFAULT_PACING,
        http: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._base = _base_url(url)
        self._credential = credential
        self.pacing = pacing
        self._http = httpx2.AsyncClient(
            transport=http,
            # A proxy for the outside world must not stand before the platform on this machine.
            trust_env=not _is_loopback(self._base),
            limits=httpx2.Limits(keepalive_expiry=_KEEPALIVE_S),
            headers={"User-Agent": f"gstd/{__version__}"},
        )

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
        await self._http.aclose()

    async def fetch(self, into: type[T], call: Call) -> T:
        """The decoded JSON answer. Raises ``SdkError``."""
        body = await self.send(call)
        try:
            return msgspec.json.decode(body, type=into)
        except msgspec.MsgspecError as error:
            raise UnexpectedAnswerError(f"{call.method} {call.path}: {error}") from error

    async def send(self, call: Call) -> bytes:
        """The body of a good answer.

        Raises ``ApiError`` for a refusal and ``UnreachableError`` when nobody answers, both only
        after the retries that the call and the pacing allow.
        """
        backoff = self.pacing.backoff()
        give_up: float | None = None
        while True:
            try:
                return await self._try(call)
            except _FailedTry as failed:
                failure = failed
            now = self.pacing.monotonic()
            give_up = now + self.pacing.retry_for_s if give_up is None else give_up
            pause_s = max(backoff.next_s(), failure.wait_s)
            if not failure.may_repeat or now + pause_s >= give_up:
                raise failure.error from failure.__cause__
            await self.pacing.sleep(pause_s)

    async def _try(self, call: Call) -> bytes:
        try:
            response = await self._http.request(
                call.method,
                self._base + call.target,
                content=call.body or None,
                headers=self._headers(call),
                timeout=httpx2.Timeout(call.read_timeout_s, connect=CONNECT_TIMEOUT_S),
            )
        except httpx2.RequestError as error:
            may_repeat = call.is_repeatable or isinstance(error, _NOT_SENT)
            raise _FailedTry(
                UnreachableError(f"{self._base} does not answer ({_words(error)})"),
                may_repeat and not isinstance(error, _HOPELESS),
            ) from error
        status = response.status_code
        if response.is_success or status in call.also_fine:
            return response.content
        raise _FailedTry(
            ApiError.of(status, response.content, response.headers.get("X-Request-Id", "")),
            status == _TOO_MANY or (status in _BUSY and call.is_repeatable),
            _retry_after_s(response),
        )

    async def download(
        self, call: Call, to: IO[bytes], on_progress: Callable[[int], object] | None = None
    ) -> int:
        """Write the body of a good answer to ``to`` as it arrives; returns its length.

        Nothing is tried again once bytes were written. An answer that breaks off raises
        ``UnreachableError``: what was written is not the whole then.
        """
        written = 0
        try:
            async with self._http.stream(
                call.method,
                self._base + call.target,
                headers=self._headers(call),
                timeout=httpx2.Timeout(call.read_timeout_s, connect=CONNECT_TIMEOUT_S),
            ) as response:
                if not response.is_success:
                    request_id = response.headers.get("X-Request-Id", "")
                    raise ApiError.of(response.status_code, await response.aread(), request_id)
                async for piece in response.aiter_bytes():
                    to.write(piece)
                    written += len(piece)
                    if on_progress is not None:
                        on_progress(written)
        except httpx2.RequestError as error:
            raise UnreachableError(
                f"{self._base} does not answer to the end ({_words(error)})"
            ) from error
        return written

    def _headers(self, call: Call) -> dict[str, str]:
        headers = {"Content-Type": call.content_type} if call.body else {}
        if call.idempotency_key is not None:
            headers["Idempotency-Key"] = call.idempotency_key
        if self._credential is not None and not call.anonymous:
            headers |= self._credential.headers(call.method, call.target, call.body)
        return headers


class _FailedTry(Exception):  # noqa: N818 - never leaves this file
    def __init__(self, error: SdkError, may_repeat: bool, wait_s: float = 0.0) -> None:
        super().__init__(error.detail)
        self.error = error
        self.may_repeat = may_repeat
        self.wait_s = wait_s


def _base_url(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise InvalidInputError(f"{url!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidInputError(
            f"{url!r} is not the URL of a platform", hint="Give one like http://127.0.0.1:8420."
        )
    return str(parsed).rstrip("/")


def _is_loopback(base: str) -> bool:
    host = httpx2.URL(base).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _words(error: httpx2.RequestError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _retry_after_s(response: httpx2.Response) -> float:
    """Seconds the server asks to wait; its rarer form, a date, is not followed."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 0.0
