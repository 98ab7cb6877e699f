"""A device's signature is good for exactly one request."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from gstd.protocol.people import EnrolRequest
from gstd.protocol.signing import DeviceKey, enrolment_statement, sign_request
from gstd.protocol.types import Role
from gstd.sandbox.profile import PROFILE
from tests.integration.api.house import Device, House, bearer, problem_of

PATH = "/api/v1/offers"
BODY = msgspec.json.encode({"profile": PROFILE})


def header(device: Device, *, path: str = PATH, body: bytes = BODY, late_ms: int = 0) -> str:
    now_ms = int(time.time() * 1000) - late_ms
    return sign_request(device.key, "POST", path, body, now_ms, uuid4().hex).header()


async def send(house: House, authorization: str, path: str = PATH, body: bytes = BODY) -> Any:
    return await house.http.post(path, headers={"Authorization": authorization}, content=body)


async def test_a_right_signature_is_good_once(house: House) -> None:
    device = await house.device()
    authorization = header(device)
    assert (await send(house, authorization)).status_code == 200
    replayed = problem_of(await send(house, authorization), 401, "stale_request")
    assert "before" in replayed.detail


async def test_a_signature_covers_the_body_the_path_and_the_query(house: House) -> None:
    device = await house.device()
    other = msgspec.json.encode({"profile": PROFILE, "free": 2})
    problem_of(await send(house, header(device), body=other), 401, "not_authenticated")
    wrong_path = header(device, path="/api/v1/claims")
    problem_of(await send(house, wrong_path), 401, "not_authenticated")
    problem_of(await send(house, header(device), path=PATH + "?a=1"), 401, "not_authenticated")
    with_query = header(device, path=PATH + "?a=1")
    assert (await send(house, with_query, path=PATH + "?a=1")).status_code == 200


@pytest.mark.parametrize("late_ms", [61_000, -61_000, 10**15, -(10**15)])
async def test_old_and_future_requests_are_stale(house: House, late_ms: int) -> None:
    device = await house.device()
    problem_of(await send(house, header(device, late_ms=late_ms)), 401, "stale_request")


async def test_a_time_beyond_every_integer_is_stale_too(house: House) -> None:
    before, _, after = header(await house.device()).partition(",ts=")
    authorization = f"{before},ts={10**30},{after.partition(',')[2]}"
    problem_of(await send(house, authorization), 401, "stale_request")


async def test_a_request_within_the_allowed_skew_is_taken(house: House) -> None:
    device = await house.device()
    assert (await send(house, header(device, late_ms=50_000))).status_code == 200
    assert (await send(house, header(device, late_ms=-50_000))).status_code == 200


async def test_a_device_that_nobody_enrolled_is_unknown(house: House) -> None:
    known = await house.device()
    stranger = Device(known.id, DeviceKey.generate(), known.client, known.owner)
    problem_of(await send(house, header(stranger)), 401, "not_authenticated")


async def test_a_signature_of_another_key_is_refused(house: House) -> None:
    victim, thief = await house.device(), await house.device()
    stolen = header(thief).replace(thief.key.public, victim.key.public)
    problem_of(await send(house, stolen), 401, "not_authenticated")


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "key=a",
        "key=a,ts=1,nonce=b,sig=c",
        "key=zz,ts=x,nonce=1234567890123456,sig=00",
        "key=zz,ts=1,nonce=1234567890123456,sig=xyz",
        f"key={'0' * 64},ts=1,nonce={'n' * 65},sig=00",
        f"key={'0' * 64},ts={'9' * 5000},nonce=1234567890123456,sig=00",
        "key=\xe9,ts=1,nonce=1234567890123456,sig=00,more=1",
    ],
)
async def test_a_malformed_proof_is_refused_in_words(house: House, rest: str) -> None:
    authorization = f"GSTD-Device {rest}".encode("latin-1")
    answer = await house.http.post(PATH, headers={b"Authorization": authorization}, content=BODY)
    problem_of(answer, 401, "not_authenticated")


async def test_bytes_beyond_ascii_in_a_signed_target_are_a_refusal_not_a_crash(
    house: House,
) -> None:
    device = await house.device()
    scope_status: list[int] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def keep(message: Any) -> None:
        if message["type"] == "http.response.start":
            scope_status.append(message["status"])

    await house.app(
        {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": PATH,
            "raw_path": PATH.encode(),
            "query_string": b"a=\xff\xfe",
            "root_path": "",
            "headers": [(b"authorization", header(device).encode()), (b"host", b"h")],
            "server": ("127.0.0.1", 8420),
            "client": ("127.0.0.1", 1),
        },
        receive,
        keep,
    )
    assert scope_status == [401]


async def test_a_code_enrols_one_key_and_only_once(house: House) -> None:
    owner = await house.person(Role.WORKER)
    code = (await owner.client.new_enrolment_code()).code
    first, second = DeviceKey.generate(), DeviceKey.generate()

    async def enrol(key: DeviceKey, signer: DeviceKey) -> Any:
        request = EnrolRequest(
            code=code,
            name="d",
            public_key=key.public,
            signature=signer.sign(enrolment_statement(code, key.public)),
        )
        content = msgspec.json.encode(request)
        return await house.http.post("/api/v1/devices/enrol", content=content)

    problem_of(await enrol(first, second), 422, "invalid_enrolment_code")
    made = await enrol(first, first)
    assert made.status_code == 201
    assert (await enrol(first, first)).json()["id"] == made.json()["id"]
    problem_of(await enrol(second, second), 422, "invalid_enrolment_code")
    mine = (await house.http.get("/api/v1/devices", headers=bearer(owner))).json()
    assert [device["id"] for device in mine] == [made.json()["id"]]
    assert mine[0]["last_seen_at"] is None


async def test_a_device_that_calls_is_seen(house: House) -> None:
    device = await house.device()
    await send(house, header(device))
    [mine] = await device.owner.client.devices()
    assert mine.last_seen_at is not None
