"""Modules: upload, metadata, trial runs in the real sandbox."""

from __future__ import annotations

from hashlib import sha256

import pytest

from gstd.protocol.execution import Limits, Outcome, TaskInput, result_hash
from gstd.protocol.jobs import ExecuteRequest
from gstd.sandbox.profile import PROFILE
from gstd.sdk import ApiError
from tests.integration.api.house import MODULE, House, bearer, problem_of

HEADER = b"\0asm\x01\0\0\0"
UPLOAD = "/api/v1/wasm/upload?name=m"
TILE = TaskInput(args=("0", "0", "4", "16", "50"))
OTHER_TILE = TaskInput(args=("1", "1", "4", "16", "50"))


def section(number: int, body: bytes) -> bytes:
    return bytes([number, len(body)]) + body


def importing(module: bytes, name: bytes) -> bytes:
    """A module that imports one function without parameters and results."""
    place = bytes([len(module)]) + module + bytes([len(name)]) + name
    types = section(1, b"\x01\x60\x00\x00")
    return HEADER + types + section(2, b"\x01" + place + b"\x00\x00")


async def test_a_module_is_uploaded_described_and_listed(house: House) -> None:
    person = await house.person()
    data = MODULE.read_bytes()
    module = await person.client.upload_module(data, "fractal")
    assert module.id == sha256(data).hexdigest()
    assert module.size == len(data)
    assert module.profile == PROFILE
    assert "_start" in str(module.exports)
    assert any("fd_write" in name for name in module.imports)
    assert await person.client.module(module.id) == module
    again = await house.http.post(UPLOAD, headers=bearer(person), content=data)
    assert (again.status_code, again.json()["id"]) == (201, module.id)


async def test_a_trial_run_in_the_sandbox_gives_the_hash_a_device_would_sign(house: House) -> None:
    person = await house.person()
    module = await house.module()
    answer = await person.client.execute(module, ExecuteRequest(input=TILE))
    again = await person.client.execute(module, ExecuteRequest(input=TILE))
    other = await person.client.execute(module, ExecuteRequest(input=OTHER_TILE))
    assert answer.status == "ok"
    assert answer.stdout
    assert answer.fuel > 0
    assert (again.result_hash, again.fuel) == (answer.result_hash, answer.fuel)
    assert other.result_hash != answer.result_hash
    expected = result_hash(
        module_hash=bytes.fromhex(module),
        metered_hash=bytes.fromhex(module),
        profile=PROFILE,
        input_hash=TILE.hash(),
        limits=Limits(),
        outcome=Outcome(
            status=answer.status,
            exit_code=answer.exit_code,
            fuel=answer.fuel,
            stdout=answer.stdout,
            stderr=answer.stderr.encode(),
        ),
    )
    assert answer.result_hash == expected.hex()


async def test_a_trial_that_uses_up_its_fuel_is_an_outcome(house: House) -> None:
    person = await house.person()
    request = ExecuteRequest(input=TILE, limits=Limits(fuel=100))
    answer = await person.client.execute(await house.module(), request)
    assert (answer.status, answer.fuel) == ("out_of_fuel", 100)


@pytest.mark.parametrize("module_id", ["0" * 64, "zz", "0" * 63, "%D9%A1" * 64, "A" * 64])
async def test_an_unknown_module_is_not_found(house: House, module_id: str) -> None:
    person = await house.person()
    metadata = await house.http.get(f"/api/v1/wasm/{module_id}/metadata", headers=bearer(person))
    problem_of(metadata, 404, "module_not_found")
    run = await house.http.post(
        f"/api/v1/wasm/{module_id}/execute", headers=bearer(person), json={}
    )
    problem_of(run, 404, "module_not_found")


@pytest.mark.parametrize(
    ("data", "code", "status"),
    [
        (b"", "module_not_wasm", 422),
        (b"(module)", "module_not_wasm", 422),
        (b"\0asm\x0d\0\x01\0", "module_is_component", 422),
        (HEADER + b"\x01\x7f\x01", "module_truncated", 422),
        (importing(b"env", b"abort"), "module_forbidden_import", 422),
        (importing(b"wbg", b"__wbindgen_throw"), "module_is_bindgen", 422),
        (HEADER, "module_no_memory", 422),
        (HEADER + b"\0" * (600 << 10), "module_too_large", 413),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_binary_that_cannot_run_is_refused_with_what_to_do(
    house: House, data: bytes, code: str, status: int
) -> None:
    person = await house.person()
    answer = await house.http.post(UPLOAD, headers=bearer(person), content=data)
    problem_of(answer, status, code)
    assert await person.client.modules() == []


async def test_half_a_module_is_refused(house: House) -> None:
    person = await house.person()
    data = MODULE.read_bytes()
    with pytest.raises(ApiError) as refusal:
        await person.client.upload_module(data[: len(data) // 2], "half")
    assert refusal.value.status == 422
    assert refusal.value.code.startswith("module_")


async def test_a_refused_module_is_never_kept(house: House) -> None:
    person = await house.person()
    data = importing(b"env", b"never_kept")
    await house.http.post(UPLOAD, headers=bearer(person), content=data)
    found = await house.http.get(
        f"/api/v1/wasm/{sha256(data).hexdigest()}/metadata", headers=bearer(person)
    )
    problem_of(found, 404, "module_not_found")
