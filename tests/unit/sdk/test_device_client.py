"""The device's client: every try is signed anew, batches are cut, enrolment is signed."""

from __future__ import annotations

import uuid

import httpx2
import msgspec
import pytest

from gstd.kernel.clock import ManualClock
from gstd.protocol.people import EnrolRequest
from gstd.protocol.signing import (
    DeviceKey,
    RequestProof,
    enrolment_statement,
    is_signed_by,
    request_bytes,
)
from gstd.protocol.work import Alive, HeartbeatsRequest, HeartbeatsResponse
from gstd.sdk import DeviceClient, UnexpectedAnswerError
from gstd.sdk.pacing import Pacing

KEY = DeviceKey.from_seed(bytes(32))


async def at_once(seconds: float) -> None:
    assert seconds >= 0


def client_of(answer: httpx2.MockTransport, url: str = "http://h:1") -> DeviceClient:
    return DeviceClient(url, KEY, pacing=Pacing(sleep=at_once), clock=ManualClock(), http=answer)


def beat(request: httpx2.Request) -> httpx2.Response:
    wanted = msgspec.json.decode(request.content, type=HeartbeatsRequest)
    outcomes = [Alive(attempt_id=attempt, lease_ms=1) for attempt in wanted.attempts]
    answer = HeartbeatsResponse(outcomes=list(outcomes))
    return httpx2.Response(200, content=msgspec.json.encode(answer))


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/behind/a/proxy/"])
async def test_every_try_carries_a_fresh_signature_over_the_request(url: str) -> None:
    requests: list[httpx2.Request] = []

    def flaky(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return beat(request) if len(requests) == 3 else httpx2.Response(503)

    async with client_of(httpx2.MockTransport(flaky), url) as client:
        await client.heartbeats([uuid.uuid4()])
    nonces = set()
    for request in requests:
        proof = RequestProof.parse(request.headers["Authorization"])
        signed = request_bytes(
            "POST", "/api/v1/heartbeats", request.content, proof.sent_at_ms, proof.nonce
        )
        assert is_signed_by(KEY.public, signed, proof.signature)
        nonces.add(proof.nonce)
    assert len(nonces) == 3


async def test_long_lists_go_out_in_batches_and_come_back_in_order() -> None:
    sizes: list[int] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sizes.append(len(msgspec.json.decode(request.content)["attempts"]))
        return beat(request)

    attempts = [uuid.uuid4() for _ in range(130)]
    async with client_of(httpx2.MockTransport(answer)) as client:
        outcomes = await client.heartbeats(attempts)
        assert await client.heartbeats([]) == []
    assert sizes == [64, 64, 2]
    assert [outcome.attempt_id for outcome in outcomes if isinstance(outcome, Alive)] == attempts


async def test_missing_outcomes_are_an_error() -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"outcomes": []})

    async with client_of(httpx2.MockTransport(answer)) as client:
        with pytest.raises(UnexpectedAnswerError, match="0 outcomes for 1 items"):
            await client.heartbeats([uuid.uuid4()])


async def test_enrolment_is_signed_by_the_key_it_enrols_and_by_nothing_else() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert "Authorization" not in request.headers
        asked = msgspec.json.decode(request.content, type=EnrolRequest)
        statement = enrolment_statement(asked.code, asked.public_key)
        assert is_signed_by(KEY.public, statement, asked.signature)
        device = {
            "id": str(uuid.uuid4()),
            "name": asked.name,
            "public_key": asked.public_key,
            "state": "active",
            "trust": 500,
            "accepted": 0,
            "rejected": 0,
            "enrolled_at": "2026-01-01T00:00:00Z",
        }
        return httpx2.Response(201, json=device)

    async with client_of(httpx2.MockTransport(answer)) as client:
        assert (await client.enrol("gstd_code_x", "laptop")).name == "laptop"
