"""Long polls: waiting is cheap, and what is waited for arrives within a moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from gstd.kernel.clock import SystemClock
from gstd.protocol.signing import sign_request
from gstd.protocol.types import Role
from gstd.protocol.work import OffersRequest
from gstd.sandbox.profile import PROFILE
from gstd.sdk.errors import ApiError
from tests.integration.api.house import Device, House, Person, bearer, open_house, solved
from tests.servers import until

MOMENT_S = 0.5
"""Well below the interval at which waiting devices look without a hint."""

WAIT = OffersRequest(profile=PROFILE, wait_ms=20_000)


@pytest_asyncio.fixture(loop_scope="session")
async def house(
    database_urls: dict[str, str], tmp_path: Path, valkey_url: str
) -> AsyncIterator[House]:
    """A platform without other tests' tasks."""
    urls = database_urls["app"], database_urls["owner"], valkey_url
    async with open_house(tmp_path, *urls) as made:
        await made.module()
        yield made


@pytest.fixture
def looks(house: House, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many devices each look at the queue was for."""
    maker = house.platform.matchmaker
    real = maker._look
    seen: list[int] = []

    async def look() -> None:
        seen.append(len(maker._askers))
        await real()

    monkeypatch.setattr(maker, "_look", look)
    return seen


async def all_wait(house: House, count: int) -> None:
    await until(lambda: len(house.platform.matchmaker._askers) == count)


async def test_idle_devices_share_one_look_a_second_and_are_woken_by_a_job(
    house: House, looks: list[int]
) -> None:
    person = await house.requester()
    devices = [await house.device() for _ in range(8)]
    waits = [asyncio.create_task(device.client.offers(WAIT)) for device in devices]
    await all_wait(house, 8)
    await until(lambda: 8 in looks)
    before = len(looks)
    done, _ = await asyncio.wait(waits, timeout=1.2)
    assert not done
    assert 1 <= len(looks) - before <= 3
    start = asyncio.get_running_loop().time()
    job = await house.job(person, tasks=8)
    answers = await asyncio.wait_for(asyncio.gather(*waits), 5)
    assert asyncio.get_running_loop().time() - start < MOMENT_S
    offers = [offer for answer in answers for offer in answer.offers]
    assert len({offer.task_id for offer in offers}) == 8
    assert {offer.job_id for offer in offers} == {job.id}
    assert {len(answer.offers) for answer in answers} == {1}


async def test_one_task_is_offered_to_one_of_many(house: House) -> None:
    person = await house.requester()
    devices = [await house.device() for _ in range(4)]
    waits = [asyncio.create_task(device.client.offers(WAIT)) for device in devices]
    await all_wait(house, 4)
    await house.job(person)
    done, waiting = await asyncio.wait(waits, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert (len(done), len(waiting)) == (1, 3)
    await house.job(person, tasks=3)
    answers = await asyncio.wait_for(asyncio.gather(*waits), 5)
    assert [len(answer.offers) for answer in answers] == [1] * 4


async def test_a_wait_ends_by_itself_with_the_reason(house: House) -> None:
    device = await house.device()
    start = asyncio.get_running_loop().time()
    answer = await device.client.offers(OffersRequest(profile=PROFILE, wait_ms=300))
    assert asyncio.get_running_loop().time() - start < 2
    assert (answer.offers, answer.idle) == ([], "no task is waiting")
    assert house.platform.matchmaker._askers == []


async def test_a_look_that_fails_does_not_end_all_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, person = await house.device(), await house.requester()
    maker = house.platform.matchmaker
    failed = asyncio.Event()

    async def fail() -> None:
        failed.set()
        raise RuntimeError("a bad look")

    with monkeypatch.context() as patch:
        patch.setattr(maker, "_look", fail)
        wait = asyncio.create_task(device.client.offers(WAIT))
        await asyncio.wait_for(failed.wait(), 5)
    await house.job(person)
    assert len((await asyncio.wait_for(wait, 5)).offers) == 1
    admin = await house.person(Role.ADMIN)
    assert "matchmaker.look" in [e.place for e in await admin.client.recorded_errors()]


async def events_of(house: House, person: Person, **query: Any) -> Any:
    answer = await house.http.get("/api/v1/events", headers=bearer(person), params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_events_arrive_while_waited_for_and_by_position_without_gaps(house: House) -> None:
    person, stranger = await house.requester(), await house.person()
    head = (await events_of(house, person))["position"]
    wait = asyncio.create_task(events_of(house, person, after=head, wait_ms=20_000))
    news = house.platform.bus._listeners["events"]  # type: ignore[index]
    await until(lambda: len(news) == 1)
    job = await house.job(person, tasks=2)
    start = asyncio.get_running_loop().time()
    await house.number_events()
    page = await asyncio.wait_for(wait, 5)
    assert asyncio.get_running_loop().time() - start < MOMENT_S
    [posted] = [event for event in page["items"] if event["kind"] != "transfer"]
    assert (posted["kind"], posted["job_id"]) == ("job.posted", str(job.id))

    device = await house.device()
    offers = (await device.client.offers(OffersRequest(profile=PROFILE, free=2))).offers
    await device.client.claims([solved(offer) for offer in offers])
    await person.client.cancel_job(job.id)
    await house.number_events()
    admin = await house.person(Role.ADMIN)
    everything = (await events_of(house, admin))["items"]
    positions = [event["position"] for event in everything]
    assert positions == list(range(1, len(positions) + 1))
    mine = (await events_of(house, person))["items"]
    stepwise, after = [], 0
    while found := (await events_of(house, person, after=after, limit=1))["items"]:
        stepwise += found
        after = found[-1]["position"]
    assert stepwise == mine
    kinds = [event["kind"] for event in mine]
    assert kinds.count("attempt.claimed") == 2
    assert kinds.count("job.cancelled") == 1
    assert "device.enrolled" not in kinds
    assert (await events_of(house, stranger))["items"] == []
    of_job = (await events_of(house, person, job_id=str(job.id)))["items"]
    assert of_job == [event for event in mine if event["job_id"] == str(job.id)]
    assert len(of_job) > 3


async def test_waiting_for_events_ends_empty_with_a_position(house: House) -> None:
    person = await house.person()
    page = await events_of(house, person, wait_ms=100)
    assert page["items"] == []
    assert page["position"] >= 0


async def call_and_hang_up(house: House, device: Device, hang_up: asyncio.Event) -> list[int]:
    """A device's request for offers as a server sees it whose client goes away."""
    body = msgspec.json.encode(WAIT)
    target = "/api/v1/offers"
    sent_at_ms = int(SystemClock().now().timestamp() * 1000)
    proof = sign_request(device.key, "POST", target, body, sent_at_ms, "n" * 32)
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        await hang_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": target,
        "raw_path": target.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"authorization", proof.header().encode()),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await house.app(scope, receive, send)
    return statuses


async def test_a_device_that_hangs_up_waits_no_more_and_takes_no_task(house: House) -> None:
    hang_up = asyncio.Event()
    gone = asyncio.create_task(call_and_hang_up(house, await house.device(), hang_up))
    await all_wait(house, 1)
    hang_up.set()
    assert await gone == [408]
    await all_wait(house, 0)


async def test_who_waits_is_sent_away_when_the_process_stops(house: House) -> None:
    device = await house.device()
    waiting = asyncio.create_task(device.client.offers(WAIT))
    await all_wait(house, 1)
    house.platform.closing.set()
    with pytest.raises(ApiError) as refused:
        await waiting
    assert (refused.value.code, refused.value.is_transient) == ("shutting_down", True)
    house.platform.closing.clear()
