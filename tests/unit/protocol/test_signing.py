"""Ed25519 statements: every word of a request or result is under the signature."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gstd.protocol.execution import Limits, Outcome, Status, TaskInput, result_hash
from gstd.protocol.signing import (
    DeviceKey,
    RequestProof,
    enrolment_statement,
    is_signed_by,
    request_bytes,
    result_statement,
    sign_request,
)

KEY = DeviceKey.from_seed(bytes(range(32)))
OTHER = DeviceKey.from_seed(bytes(32))
NONCE = "0123456789abcdef"
REQUEST: dict[str, Any] = {
    "method": "POST",
    "target": "/api/v1/claims?x=1",
    "body": b"{}",
    "sent_at_ms": 1_700_000_000_000,
    "nonce": NONCE,
}
RESULT: dict[str, Any] = {
    "task_id": UUID(int=1),
    "revision": 0,
    "attempt_id": UUID(int=2),
    "device_key": KEY.public,
    "profile": "wasm-1",
    "result_hash": b"\x01" * 32,
}
WORK: dict[str, Any] = {
    "module_hash": b"m" * 32,
    "metered_hash": b"f" * 32,
    "profile": "wasm-1",
    "input_hash": b"i" * 32,
    "limits": Limits(),
    "outcome": Outcome(status=Status.OK, exit_code=0, fuel=7, stdout=b"out", stderr=b"err"),
}


def test_the_first_rfc_8032_vector_is_reproduced() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = DeviceKey.from_seed(seed)
    assert key.public == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e0")
    assert key.seed() == seed


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_seed_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        DeviceKey.from_seed(bytes(size))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "PUT"),
        ("target", "/api/v1/claims?x=2"),
        ("target", "/api/v1/claims"),
        ("body", b"{} "),
        ("sent_at_ms", 1_700_000_000_001),
        ("nonce", "0123456789abcdeF"),
    ],
)
def test_a_changed_word_of_a_request_breaks_its_signature(field: str, value: Any) -> None:
    signature = KEY.sign(request_bytes(**REQUEST))
    assert is_signed_by(KEY.public, request_bytes(**REQUEST), signature)
    assert not is_signed_by(KEY.public, request_bytes(**{**REQUEST, field: value}), signature)


def test_the_method_is_signed_without_regard_to_case() -> None:
    assert request_bytes(**REQUEST) == request_bytes(**{**REQUEST, "method": "post"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task_id", UUID(int=3)),
        ("revision", 1),
        ("attempt_id", UUID(int=3)),
        ("device_key", OTHER.public),
        ("profile", "wasm-2"),
        ("result_hash", b"\x02" * 32),
    ],
)
def test_a_changed_word_of_a_result_breaks_its_signature(field: str, value: Any) -> None:
    signature = KEY.sign(result_statement(**RESULT))
    assert is_signed_by(KEY.public, result_statement(**RESULT), signature)
    assert not is_signed_by(KEY.public, result_statement(**{**RESULT, field: value}), signature)


@pytest.mark.parametrize(
    "change",
    [
        {"module_hash": b"x" * 32},
        {"metered_hash": b"x" * 32},
        {"profile": "wasm-2"},
        {"input_hash": b"x" * 32},
        {"limits": Limits(fuel=1)},
        {"limits": Limits(memory_bytes=65_536)},
        {"limits": Limits(output_bytes=1)},
        {"outcome": Outcome(status=Status.EXIT, exit_code=0, fuel=7, stdout=b"out", stderr=b"err")},
        {"outcome": Outcome(status=Status.OK, exit_code=1, fuel=7, stdout=b"out", stderr=b"err")},
        {"outcome": Outcome(status=Status.OK, exit_code=0, fuel=8, stdout=b"out", stderr=b"err")},
        {"outcome": Outcome(status=Status.OK, exit_code=0, fuel=7, stdout=b"Out", stderr=b"err")},
        {"outcome": Outcome(status=Status.OK, exit_code=0, fuel=7, stdout=b"out", stderr=b"")},
    ],
)
def test_everything_that_makes_a_result_is_in_its_hash(change: dict[str, Any]) -> None:
    assert result_hash(**WORK) != result_hash(**{**WORK, **change})


def test_the_wall_clock_is_not_in_a_result_hash() -> None:
    assert result_hash(**WORK) == result_hash(**{**WORK, "limits": Limits(wall_ms=100)})


def test_an_enrolment_is_signed_for_one_code_and_one_key() -> None:
    signature = KEY.sign(enrolment_statement("code", KEY.public))
    assert is_signed_by(KEY.public, enrolment_statement("code", KEY.public), signature)
    assert not is_signed_by(KEY.public, enrolment_statement("edoc", KEY.public), signature)
    assert not is_signed_by(OTHER.public, enrolment_statement("code", OTHER.public), signature)


@pytest.mark.parametrize("key", ["", "zz", KEY.public[:-2], KEY.public + "00"])
@pytest.mark.parametrize("signature", [b"", b"\x00" * 64, b"\x00" * 63])
def test_malformed_keys_and_signatures_are_simply_wrong(key: str, signature: bytes) -> None:
    assert not is_signed_by(key, b"message", signature)
    assert not is_signed_by(KEY.public, b"message", signature)


def test_a_request_proof_survives_its_header() -> None:
    proof = sign_request(KEY, **REQUEST)
    assert RequestProof.parse(proof.header()) == proof


@pytest.mark.parametrize(
    "change",
    [
        ("GSTD-Device ", "Bearer "),
        (",ts=", ",at="),
        (f",nonce={NONCE}", ",nonce=short"),
        (f",nonce={NONCE}", f",nonce={'n' * 65}"),
        (f",nonce={NONCE}", ""),
        ("ts=17", "ts=x17"),
        ("sig=", "sig=zz"),
        ("key=", "more=1,key="),
    ],
)
def test_anything_but_the_exact_header_is_refused(change: tuple[str, str]) -> None:
    header = sign_request(KEY, **REQUEST).header().replace(*change)
    with pytest.raises(ValueError, match=r".+"):
        RequestProof.parse(header)


inputs = st.builds(
    TaskInput,
    args=st.lists(st.text(max_size=5), max_size=4).map(tuple),
    stdin=st.binary(max_size=8),
    seed=st.integers(0, 2**63 - 1),
)


@given(inputs, inputs)
def test_inputs_have_one_hash_exactly_when_they_are_equal(one: TaskInput, other: TaskInput) -> None:
    assert (one.hash() == other.hash()) == (one == other)


@given(st.lists(st.text(max_size=5), min_size=1, max_size=4), st.binary(max_size=8))
def test_arguments_never_slide_into_each_other(args: list[str], stdin: bytes) -> None:
    joined = TaskInput(args=("".join(args),), stdin=stdin)
    split = TaskInput(args=(*args, ""), stdin=stdin)
    assert joined.hash() != split.hash()
