"""One Idempotency-Key, one answer."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from gstd.kernel.clock import SystemClock
from gstd.kernel.ids import new_id
from gstd.ledger import service as ledger
from gstd.protocol.jobs import JobRequest
from gstd.protocol.people import AccountRequest
from gstd.protocol.types import Role
from gstd.tasks import jobs
from tests.integration.api.house import CREDITS, House, Person, bearer, problem_of


async def post(house: House, person: Person, request: JobRequest, key: str) -> Any:
    headers = bearer(person, **{"Idempotency-Key": key})
    content = msgspec.json.encode(request)
    return await house.http.post("/api/v1/jobs", headers=headers, content=content)


async def count(person: Person) -> int:
    return len((await person.client.jobs()).items)


async def test_the_same_request_is_answered_again_and_acts_once(house: House) -> None:
    person, request = await house.requester(), await house.request()
    first = await post(house, person, request, "one")
    again = await post(house, person, request, "one")
    assert first.status_code == again.status_code == 201
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.content == first.content
    assert await count(person) == 1
    assert (await post(house, person, request, "two")).json()["id"] != first.json()["id"]


async def test_another_request_under_the_same_key_is_a_conflict(house: House) -> None:
    person = await house.requester()
    job = (await post(house, person, await house.request(), "one")).json()["id"]
    other = await house.request(tasks=2)
    problem_of(await post(house, person, other, "one"), 409, "idempotency_conflict")
    cancel = await house.http.post(
        f"/api/v1/jobs/{job}/cancel", headers=bearer(person, **{"Idempotency-Key": "one"})
    )
    problem_of(cancel, 409, "idempotency_conflict")
    assert await count(person) == 1


async def test_keys_of_two_accounts_do_not_meet(house: House) -> None:
    request = await house.request()
    people = [await house.requester() for _ in range(2)]
    answers = [await post(house, person, request, "same") for person in people]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["id"] != answers[1].json()["id"]


async def test_concurrent_twins_act_once(house: House) -> None:
    person, request = await house.requester(), await house.request()
    answers = await asyncio.gather(*(post(house, person, request, "twin") for _ in range(5)))
    assert [answer.status_code for answer in answers] == [201] * 5
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 4
    assert await count(person) == 1


async def test_a_refusal_is_stored_so_a_late_repetition_never_acts(house: House) -> None:
    person, request = await house.person(), await house.request()
    first = problem_of(await post(house, person, request, "poor"), 402, "insufficient_funds")
    await house.platform.database.run(
        lambda conn: ledger.grant_test_credits(
            conn, new_id(), person.id, CREDITS, SystemClock().now()
        )
    )
    again = await post(house, person, request, "poor")
    assert again.headers["idempotent-replayed"] == "true"
    assert again.status_code == 402
    assert again.json()["detail"] == first.detail
    assert await count(person) == 0
    assert (await post(house, person, request, "rich")).status_code == 201


async def test_a_failure_of_the_platform_is_not_an_answer(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, request = await house.requester(), await house.request()

    async def fail(*_: object) -> None:
        raise RuntimeError("broken for a moment")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "fill_jobs", fail)
        problem_of(await post(house, person, request, "again"), 500, "internal_error")
    answer = await post(house, person, request, "again")
    assert answer.status_code == 201
    assert "idempotent-replayed" not in answer.headers
    assert await count(person) == 1


@pytest.mark.parametrize("key", ["", "k" * 201])
async def test_a_key_must_have_a_sane_length(house: House, key: str) -> None:
    person = await house.requester()
    problem_of(await post(house, person, await house.request(), key), 400, "invalid_input")


async def test_a_code_made_twice_with_one_key_is_one_code(house: House) -> None:
    device = await house.device()
    first = await device.owner.client.new_enrolment_code(idempotency_key="code")
    again = await device.owner.client.new_enrolment_code(idempotency_key="code")
    assert first.code == again.code


async def test_an_api_key_is_shown_again_but_never_lies_in_the_table(house: House) -> None:
    key = str(new_id())
    request = AccountRequest(name="somebody", roles=[Role.WORKER])
    admin = (await house.person(Role.ADMIN)).client
    made = await admin.create_account(request, idempotency_key=key)
    again = await admin.create_account(request, idempotency_key=key)
    assert again == made
    async with house.platform.database.connection() as connection:
        rows = await connection.fetch("SELECT * FROM idempotency")
        accounts = await connection.fetch("SELECT * FROM api_key")
    stored = repr([dict(row) for row in (*rows, *accounts)])
    assert made.account.id in [row["account_id"] for row in accounts]
    assert made.api_key not in stored
    assert key not in stored
