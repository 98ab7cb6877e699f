"""Who may do what: from the credential alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from gstd.api.app import build_app
from gstd.kernel.settings import Settings
from gstd.protocol.signing import sign_request
from gstd.protocol.types import Role
from gstd.sandbox.profile import PROFILE
from tests.contract.test_openapi import is_for_devices
from tests.integration.api.house import Device, House, Person, bearer, problem_of

OPEN = {
    ("GET", "/api/v1/health"),
    ("POST", "/api/v1/devices/enrol"),
    ("GET", "/api/v1/audit/key"),
    ("GET", "/api/v1/audit/checkpoint"),
    ("GET", "/api/v1/audit/checkpoints"),
    ("GET", "/api/v1/audit/consistency"),
}
ANY_ID = str(UUID(int=7))
BODIES: dict[str, object] = {
    "/api/v1/accounts": {"name": "n", "roles": ["worker"]},
    "/api/v1/test-credits": {"account_id": ANY_ID, "amount_nano": "1"},
    "/api/v1/jobs": {"module": "0" * 64, "reward_nano": "1000000", "range": {"count": 1}},
    "/api/v1/offers": {"profile": PROFILE},
    "/api/v1/heartbeats": {"attempts": [ANY_ID]},
    "/api/v1/releases": {"releases": [{"attempt_id": ANY_ID, "reason": "declined"}]},
    "/api/v1/claims": {
        "claims": [
            {"offer_id": ANY_ID, "task_id": ANY_ID, "bits": 1, "count": 1, "expires_at": 1}
            | {"nonces": ["0"]}
        ]
    },
    "/api/v1/submits": {
        "results": [
            {"attempt_id": ANY_ID, "task_id": ANY_ID, "revision": 0, "status": "ok"}
            | {"exit_code": 0, "fuel": 1, "stdout": "", "stderr": "", "signature": ""}
        ]
    },
}
BODIES["/api/v1/pools"] = {"name": "n"}
BODIES[f"/api/v1/pools/{ANY_ID}/join"] = {"secret": "s"}
BODIES["/api/v1/jobs/quote"] = BODIES["/api/v1/jobs"]
BODIES["/api/v1/graphs"] = {"jobs": [BODIES["/api/v1/jobs"]]}


def routes() -> Iterator[tuple[str, str]]:
    """Every route of the interface, with any identifier in its path."""
    schema: Any = build_app(Settings()).openapi_schema.to_schema()
    for path, item in schema["paths"].items():
        filled = path
        for name in (
            "job_id",
            "task_id",
            "device_id",
            "module_id",
            "metered_hash",
            "correction_id",
            "pool_id",
            "account_id",
        ):
            filled = filled.replace(f"{{{name}}}", ANY_ID)
        for method in item:
            if (method.upper(), path) not in OPEN:
                yield method.upper(), filled


def body_of(path: str) -> bytes:
    return msgspec.json.encode(BODIES.get(path, {}))


async def send(house: House, method: str, path: str, authorization: str | None) -> Any:
    headers = {} if authorization is None else {b"Authorization": authorization.encode("latin-1")}
    content = body_of(path) if method == "POST" else b""
    return await house.http.request(method, path, headers=headers, content=content)


def signature_of(device: Device, method: str, path: str) -> str:
    body = body_of(path) if method == "POST" else b""
    now_ms = int(time.time() * 1000)
    return sign_request(device.key, method, path, body, now_ms, uuid4().hex).header()


@pytest.mark.parametrize(("method", "path"), list(routes()))
async def test_every_route_refuses_strangers_and_bad_keys(
    house: House, method: str, path: str
) -> None:
    for authorization in (None, "", "Bearer ", "Bearer gstd_key_wrong", "Basic YTpi", "Bearer é"):
        problem_of(await send(house, method, path, authorization), 401, "not_authenticated")


async def test_an_api_key_opens_no_device_route_and_a_device_no_account(house: House) -> None:
    device = await house.device(await house.person(Role.WORKER, Role.REQUESTER, Role.ADMIN))
    seen = 0
    for method, path in routes():
        if is_for_devices(path):
            answer = await send(house, method, path, f"Bearer {device.owner.key}")
        else:
            answer = await send(house, method, path, signature_of(device, method, path))
        problem_of(answer, 401, "not_authenticated")
        seen += 1
    assert seen > 25


async def test_the_key_of_a_device_that_signs_rightly_opens_its_routes(house: House) -> None:
    device = await house.device()
    for path in ("/api/v1/offers", "/api/v1/heartbeats", "/api/v1/claims"):
        answer = await send(house, "POST", path, signature_of(device, "POST", path))
        assert answer.status_code == 200, answer.text


FORBIDDEN = [
    (Role.WORKER, "POST", "/api/v1/jobs"),
    (Role.WORKER, "POST", "/api/v1/jobs/quote"),
    (Role.WORKER, "POST", "/api/v1/wasm/upload"),
    (Role.WORKER, "POST", f"/api/v1/wasm/{'0' * 64}/execute"),
    (Role.REQUESTER, "POST", "/api/v1/devices/codes"),
    (Role.REQUESTER, "POST", "/api/v1/accounts"),
    (Role.WORKER, "POST", "/api/v1/test-credits"),
    (Role.REQUESTER, "GET", "/api/v1/admin/errors"),
    (Role.WORKER, "GET", "/api/v1/admin/ledger/check"),
]


@pytest.mark.parametrize(("role", "method", "path"), FORBIDDEN)
async def test_a_role_is_needed(house: House, role: Role, method: str, path: str) -> None:
    person = await house.person(role)
    answer = await send(house, method, path, f"Bearer {person.key}")
    assert "role" in problem_of(answer, 403, "not_allowed").detail


async def test_what_belongs_to_another_account_does_not_exist(house: House) -> None:
    owner, other = await house.requester(), await house.requester()
    job = await house.job(owner)
    [task] = await owner.client.tasks(job.id)
    for path in (f"/jobs/{job.id}", f"/jobs/{job.id}/tasks", f"/jobs/{job.id}/workers"):
        answer = await house.http.get(f"/api/v1{path}", headers=bearer(other))
        problem_of(answer, 404, "job_not_found")
    results = await house.http.get(f"/api/v1/jobs/{job.id}/results", headers=bearer(other))
    problem_of(results, 404, "job_not_found")
    cancel = await house.http.post(f"/api/v1/jobs/{job.id}/cancel", headers=bearer(other))
    problem_of(cancel, 404, "job_not_found")
    for path in (f"/tasks/{task.id}", f"/tasks/{task.id}/output"):
        answer = await house.http.get(f"/api/v1{path}", headers=bearer(other))
        problem_of(answer, 404, "task_not_found")
    assert (await other.client.jobs()).items == []
    assert (await owner.client.job(job.id)).state == "open"


async def test_an_admin_reads_everybodys_jobs_but_cannot_cancel_them(house: House) -> None:
    owner, admin = await house.requester(), await house.person(Role.ADMIN)
    job = await house.job(owner)
    assert (await admin.client.job(job.id)).id == job.id
    assert len(await admin.client.tasks(job.id)) == 1
    cancel = await house.http.post(f"/api/v1/jobs/{job.id}/cancel", headers=bearer(admin))
    problem_of(cancel, 404, "job_not_found")


async def test_a_device_is_revoked_by_its_owner_only_and_then_barred(house: House) -> None:
    device = await house.device()
    stranger: Person = await house.person(Role.WORKER)
    path = f"/api/v1/devices/{device.id}/revoke"
    problem_of(await house.http.post(path, headers=bearer(stranger)), 404, "device_not_found")
    assert (await device.owner.client.revoke_device(device.id)).state == "revoked"
    work = "/api/v1/offers"
    answer = await send(house, "POST", work, signature_of(device, "POST", work))
    assert "revoked" in problem_of(answer, 403, "device_barred").detail


async def test_a_suspended_device_is_barred(house: House) -> None:
    device = await house.device()
    async with house.platform.database.transaction() as connection:
        await connection.execute("UPDATE device SET state = 'suspended' WHERE id = $1", device.id)
    work = "/api/v1/offers"
    answer = await send(house, "POST", work, signature_of(device, "POST", work))
    assert "suspended" in problem_of(answer, 403, "device_barred").detail


async def test_an_account_made_by_an_admin_has_its_roles_and_no_others(house: House) -> None:
    admin = await house.person(Role.ADMIN)
    body = {"name": "a worker", "roles": ["worker"]}
    made = await house.http.post("/api/v1/accounts", headers=bearer(admin), json=body)
    assert made.status_code == 201
    headers = {"Authorization": f"Bearer {made.json()['api_key']}"}
    account = (await house.http.get("/api/v1/account", headers=headers)).json()
    assert (account["name"], account["roles"]) == ("a worker", ["worker"])
    refused = await house.http.post("/api/v1/accounts", headers=headers, json=body)
    problem_of(refused, 403, "not_allowed")
