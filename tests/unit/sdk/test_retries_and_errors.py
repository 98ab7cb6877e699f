"""The transport: what is repeated and for how long, and what errors become."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx2
import pytest

from gstd.kernel.errors import InvalidInputError
from gstd.protocol.jobs import ExecuteRequest
from gstd.protocol.people import AccountRequest
from gstd.protocol.types import Role
from gstd.sdk import ApiError, Client, Pacing, UnexpectedAnswerError, UnreachableError
from gstd.sdk.pacing import Backoff

ACCOUNT = {
    "id": "01890000-0000-7000-8000-000000000001",
    "name": "ada",
    "roles": ["requester"],
    "created_at": "2026-01-01T00:00:00Z",
}
PROBLEM = {
    "type": "about:blank",
    "title": "Not found",
    "status": 404,
    "code": "module_not_found",
    "detail": "no such module",
    "hint": "List them.",
    "request_id": "r-1",
}
Handler = Callable[[httpx2.Request], httpx2.Response]


class Time:
    """A clock that moves by sleeping on it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def pacing(self, retry_for_s: float = 10.0) -> Pacing:
        return Pacing(
            retry_for_s=retry_for_s,
            sleep=self.sleep,
            monotonic=lambda: self.now,
            draw=lambda: 1.0,
        )


class Script:
    """Answers one request after the other; an exception is raised instead."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def client_of(script: Handler, time: Time, retry_for_s: float = 10.0) -> Client:
    return Client(
        "http://127.0.0.1:8420",
        "gstd_key_x",
        pacing=time.pacing(retry_for_s),
        http=httpx2.MockTransport(script),
    )


def busy(status: int, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, text="busy", headers=headers)


async def test_safe_call_survives_a_restart_of_the_server() -> None:
    time = Time()
    script = Script(
        httpx2.ConnectError("refused"),
        httpx2.RemoteProtocolError("gone"),
        busy(502),
        httpx2.Response(200, json=ACCOUNT),
    )
    async with client_of(script, time) as client:
        assert (await client.account()).name == "ada"
    assert time.pauses == [0.1, 0.2, 0.4]
    assert script.requests[-1].headers["Authorization"] == "Bearer gstd_key_x"


async def test_gives_up_after_the_time_with_a_hint() -> None:
    time = Time()
    async with client_of(Script(httpx2.ConnectError("refused")), time) as client:
        with pytest.raises(UnreachableError) as caught:
            await client.account()
    assert "gstd up" in caught.value.advice
    assert caught.value.is_transient
    assert 8.0 < time.now < 10.0
    assert max(time.pauses) == 2.0


async def test_patience_is_counted_from_the_first_failure() -> None:
    time = Time()

    def slow_then_gone(request: httpx2.Request) -> httpx2.Response:
        if time.now == 0.0:
            time.now = 20.0  # a long poll that is cut off at its end
            raise httpx2.ReadError("cut", request=request)
        return httpx2.Response(200, json={"items": [], "position": 3})

    async with client_of(slow_then_gone, time) as client:
        assert (await client.events(wait_ms=20_000)).position == 3


async def test_retries_of_one_call_share_its_idempotency_key() -> None:
    time = Time()
    made = {"account": ACCOUNT, "api_key": "k"}
    script = Script(httpx2.ReadTimeout("slow"), busy(503), httpx2.Response(201, json=made))
    async with client_of(script, time) as client:
        request = AccountRequest(name="ada", roles=[Role.REQUESTER])
        await client.create_account(request)
        await client.create_account(request)
        await client.create_account(request, idempotency_key="mine")
        await client.create_account(request, idempotency_key="")
    keys = [request.headers["Idempotency-Key"] for request in script.requests]
    assert keys[0] == keys[1] == keys[2]
    assert keys[3] != keys[2]
    assert keys[4] == "mine"
    assert keys[5] == "", "the platform refuses it; a new one each time would act each time"


async def test_other_calls_are_repeated_only_when_nothing_was_done() -> None:
    time = Time()
    script = Script(httpx2.ConnectError("refused"), busy(429), busy(503))
    async with client_of(script, time) as client:
        with pytest.raises(ApiError) as caught:
            await client.execute("ab", ExecuteRequest())
    assert len(script.requests) == 3
    assert caught.value.code == "http_503"

    script = Script(httpx2.ReadTimeout("slow"))
    async with client_of(script, time) as client:
        with pytest.raises(UnreachableError):
            await client.execute("ab", ExecuteRequest())
    assert len(script.requests) == 1


async def test_waits_as_long_as_the_server_asks() -> None:
    time = Time()
    script = Script(busy(429, **{"Retry-After": "3"}), httpx2.Response(200, json=ACCOUNT))
    async with client_of(script, time) as client:
        await client.account()
    assert time.pauses == [3.0]


async def test_problem_becomes_an_error_with_code_and_hint() -> None:
    script = Script(httpx2.Response(404, json=PROBLEM))
    async with client_of(script, Time()) as client:
        with pytest.raises(ApiError) as caught:
            await client.module("ab")
    error = caught.value
    assert (error.code, error.status, error.detail) == ("module_not_found", 404, "no such module")
    assert (error.hint, error.advice, error.request_id) == ("List them.", "List them.", "r-1")
    assert error.refusal().code == "module_not_found"
    assert not error.is_transient
    assert ApiError.code == "sdk_error"
    assert len(script.requests) == 1


async def test_answer_of_something_else_is_said_to_be_unexpected() -> None:
    async with client_of(Script(httpx2.Response(200, text="<html>")), Time()) as client:
        with pytest.raises(UnexpectedAnswerError, match="/account"):
            await client.account()


async def test_unhealthy_is_an_answer_and_needs_no_key() -> None:
    health: dict[str, object] = {
        "status": "unhealthy",
        "version": "1",
        "schema_version": None,
        "mode": "development",
        "profile": "p",
        "parts": [],
    }
    script = Script(httpx2.Response(503, json=health))
    async with client_of(script, Time()) as client:
        assert (await client.health()).status == "unhealthy"
    assert "Authorization" not in script.requests[0].headers


@pytest.mark.parametrize("url", ["127.0.0.1:8420", "ftp://host", "http://", "http://h:port"])
def test_url_of_no_platform_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError):
        Client(url)


def test_full_jitter_draws_from_zero_to_a_doubling_bound() -> None:
    backoff = Backoff(1.0, 4.0, draw=lambda: 0.5)
    assert [backoff.next_s() for _ in range(4)] == [0.5, 1.0, 2.0, 2.0]
    backoff.reset()
    assert backoff.next_s() == 0.5
