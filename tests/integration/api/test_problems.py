"""Whatever is sent, the answer is a problem with a code and a hint, never a 500."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gstd.kernel.ids import new_id
from gstd.protocol.jobs import JobRequest
from gstd.protocol.types import Role
from gstd.tasks import views
from tests.integration.api.house import House, bearer, keyed, problem_of

JOBS = "/api/v1/jobs"


def changed(request: JobRequest, **changes: object) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(request)
    return {**plain, **changes}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 5_000, b'{"module": 5}', b"{}"],
)
async def test_a_body_that_is_not_a_job_is_refused_in_words(house: House, body: bytes) -> None:
    person = await house.person()
    answer = await house.http.post(JOBS, headers=keyed(person), content=body)
    problem_of(answer, 400, "invalid_input")


@pytest.mark.parametrize(
    "change",
    [
        {"reward_nano": 5},
        {"reward_nano": "-5"},
        {"reward_nano": "1.5"},
        {"reward_nano": "9" * 20},
        {"module": "xyz"},
        {"tier": "none"},
        {"priority": "urgent"},
        {"quorum": 1},
        {"quorum": 10**30},
        {"name": ""},
        {"name": "n" * 81},
        {"name": "a\0b"},
        {"name": "a\x1b[31mb"},
        {"range": {"count": 0}},
        {"range": {"count": 10**9}},
        {"range": {"count": 1, "args": ["a\0b"]}},
        {"inputs": []},
        {"inputs": [{"args": ["a\0b"]}], "range": None},
        {"inputs": [{"stdin": "not base64!"}], "range": None},
        {"limits": {"fuel": 0}},
        {"limits": {"wall_ms": 60_001}},
        {"deadline": "tomorrow"},
        {"surprise": 1},
    ],
    ids=str,
)
async def test_a_field_that_is_wrong_is_refused(house: House, change: dict[str, Any]) -> None:
    person = await house.requester()
    body = changed(await house.request(), **change)
    answer = await house.http.post(JOBS, headers=keyed(person), json=body)
    problem_of(answer, 400, "invalid_input")
    assert (await person.client.jobs()).items == []


@pytest.mark.parametrize(
    ("change", "code", "status"),
    [
        ({"reward_nano": "1"}, "reward_too_low", 422),
        ({"reward_nano": "9" * 19}, "invalid_job", 422),
        ({"range": None}, "invalid_job", 422),
        ({"inputs": [{}]}, "invalid_job", 422),
        ({"deadline": "2001-01-01T00:00:00Z"}, "invalid_job", 422),
        ({"deadline": "2999-01-01T00:00:00Z"}, "invalid_job", 422),
        ({"deadline": "9999-12-31T23:59:59-23:59"}, "invalid_job", 422),
        ({"deadline": "2027-01-01T00:00:00"}, "invalid_job", 422),
        ({"limits": {"memory_bytes": 1 << 32}}, "invalid_job", 422),
        ({"limits": {"memory_bytes": 65_536}}, "invalid_job", 422),
        ({"range": {"count": 1, "args": ["x" * 70_000]}}, "invalid_job", 422),
        ({"module": "0" * 64}, "module_not_found", 404),
        ({"asset": "GSTD"}, "insufficient_funds", 402),
    ],
    ids=str,
)
async def test_a_job_against_the_rules_is_refused_and_locks_nothing(
    house: House, change: dict[str, Any], code: str, status: int
) -> None:
    person = await house.requester()
    before = await person.client.wallet()
    body = changed(await house.request(), **change)
    answer = await house.http.post(JOBS, headers=keyed(person), json=body)
    problem_of(answer, status, code)
    assert (await person.client.jobs()).items == []
    assert [b for b in (await person.client.wallet()).balances if b.asset == "TEST"] == (
        before.balances
    )


@pytest.mark.parametrize(
    "path",
    [
        f"{JOBS}?limit=0",
        f"{JOBS}?limit=501",
        f"{JOBS}?limit=many",
        f"{JOBS}?before=yesterday",
        f"{JOBS}/{new_id()}/tasks?after={10**12}",
        f"{JOBS}/{new_id()}/results?after={10**12}",
        f"{JOBS}/{new_id()}/results?output=perhaps",
        f"/api/v1/events?after={10**30}",
        "/api/v1/events?after=-1",
        "/api/v1/events?wait_ms=25001",
        "/api/v1/events?job_id=none",
    ],
    ids=lambda path: path.partition("?")[2],
)
async def test_a_query_out_of_bounds_is_refused(house: House, path: str) -> None:
    person = await house.person()
    answer = await house.http.get(path, headers=bearer(person))
    problem_of(answer, 400, "invalid_input")


async def test_unknown_routes_and_methods_are_problems(house: House) -> None:
    for path in ("/nothing", "/api/v1/nothing", "/api/v1/jobs/not-a-uuid", "/api/v2/jobs"):
        problem_of(await house.http.get(path), 404, "not_found")
    problem_of(await house.http.put("/api/v1/health"), 405, "method_not_allowed")
    problem_of(await house.http.delete(JOBS), 405, "method_not_allowed")


async def test_a_body_that_is_too_large_is_refused(house: House) -> None:
    person = await house.person()
    for path in (JOBS, "/api/v1/wasm/upload?name=m", f"/api/v1/wasm/{'0' * 64}/execute"):
        answer = await house.http.post(path, headers=bearer(person), content=b"x" * (1 << 21))
        problem_of(answer, 413, "request_too_large")


async def test_problems_carry_the_callers_request_id_and_safe_headers(house: House) -> None:
    answer = await house.http.get("/api/v1/jobs", headers={"X-Request-Id": "my-request-1"})
    assert problem_of(answer, 401, "not_authenticated").request_id == "my-request-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    unusable = await house.http.get("/api/v1/jobs", headers={"X-Request-Id": "x"})
    assert problem_of(unusable, 401, "not_authenticated").request_id != "x"


@pytest.mark.parametrize("amount", ["0", "9" * 19])
async def test_test_credits_must_be_an_amount(house: House, amount: str) -> None:
    admin = await house.person(Role.ADMIN)
    body = {"account_id": str(admin.id), "amount_nano": amount}
    answer = await house.http.post("/api/v1/test-credits", headers=keyed(admin), json=body)
    problem_of(answer, 400, "invalid_input")


async def test_test_credits_for_nobody_are_refused(house: House) -> None:
    admin = await house.person(Role.ADMIN)
    body = {"account_id": str(new_id()), "amount_nano": "5"}
    answer = await house.http.post("/api/v1/test-credits", headers=keyed(admin), json=body)
    problem_of(answer, 404, "account_not_found")


async def test_names_with_control_characters_are_refused_everywhere(house: House) -> None:
    admin = await house.person(Role.ADMIN, Role.REQUESTER)
    account = {"name": "a\0b", "roles": ["worker"]}
    answer = await house.http.post("/api/v1/accounts", headers=bearer(admin), json=account)
    problem_of(answer, 400, "invalid_input")
    upload = "/api/v1/wasm/upload?name=a%00b"
    answer = await house.http.post(upload, headers=bearer(admin), content=b"\0asm")
    problem_of(answer, 400, "invalid_input")


async def test_what_nobody_expected_is_recorded_and_opaque_to_the_caller(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the inner words")

    monkeypatch.setattr(views, "jobs_of", fail)
    person, admin = await house.person(), await house.person(Role.ADMIN)
    answer = await house.http.get(JOBS, headers=bearer(person, **{"X-Request-Id": "ask-for-me"}))
    found = problem_of(answer, 500, "internal_error")
    assert "inner words" not in answer.text
    [mine] = [e for e in await admin.client.recorded_errors() if e.request_id == found.request_id]
    assert (mine.code, mine.place, mine.detail) == (
        "RuntimeError",
        "GET /api/v1/jobs",
        "the inner words",
    )
    assert person.key not in str(mine)
