"""The challenge ``sha256-lz/1`` against its published vectors, and everything it refuses."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gstd.proof_of_work.challenge import Challenge, leading_zero_bits
from gstd.proof_of_work.solver import solve

KEY = bytes(range(32))
TASK = UUID("6f1d2c3b-4a59-4e6f-8b7a-0c1d2e3f4a5b")
EXPIRES_AT = 1_767_225_600
W48 = "UQBFpYzJ0bYkW6mFq3vLQ0a1cXf7nZp2rT9uHs4eD8gK5iAx"
HEX64 = bytes(range(0x40, 0x60)).hex()


def challenge(number: int, worker: str, bits: int, count: int) -> Challenge:
    return Challenge(
        offer_id=UUID(f"00000000-0000-4000-8000-00000000000{number}"),
        task_id=TASK,
        worker=worker,
        bits=bits,
        count=count,
        expires_at=EXPIRES_AT,
    )


VECTORS = [
    (
        challenge(1, W48, 20, 1),
        "a2a3b051683f29713f23da3d62bc9c2e4a59484964e4fbbc55bb1232881d5926",
        {"0000000000580519": "00000f557f8591eca86333f656a4cde794f2cac29e6e36f1b2b6ba67498ede10"},
    ),
    (
        challenge(2, HEX64, 20, 1),
        "af7e21fa427b01bf4af15c3a2e11896859b9282a215d30868764dbfb09621415",
        {"00000000000af41a": "000006ce8e884c7766f81cfe335fdaccc521eba9da727597c925ec346246ccd6"},
    ),
    (
        challenge(3, "q83vEjRWeJq83vASNFZ4mrze8BI0VniavN7wEjRWeJo", 18, 1),
        "7f39ece96ae3587a4a9780f798c9f5bb26469ac8e9444e916adc9ab07595425f",
        {"000000000003b2e6": "0000048fdf3e276a88a3a04a08f827d8290d4cc471445ee66e0e768736cce02a"},
    ),
    (
        challenge(4, "01J9ZQ4Y8V6T2M5K7N3P1R0S9W", 16, 1),
        "93542b0004c89173dbb85a5c6dc878b66b2438af17e86d5509b223de55884a44",
        {"000000000000b11b": "00002ccd32baa1996b6b30fe4b44f32e23012c4c22337b84d29094ae8c0c944c"},
    ),
    (
        challenge(5, W48, 14, 4),
        "9b511aec606bfa25944d2a66b246fbd878b8669530aed281edbcb89308586a8f",
        {
            "0000000000001104": "0003e3217a6bb1c2baa9f155608578be6efd7a05aeea3dfbb7baa8e3806d061d",
            "000000000000113e": "000365123c387eb503919d5f25a12bca4f3b27a0a92dbfb7686e844aa79ecdb1",
            "000000000000157f": "00039d355222edc38b4d682f48f9fa2be4b0b59326b56b98256a8efa6e90d5d6",
            "00000000000052c0": "0001a06bafbdaec7f83c25fbb7d83859b6d4381bd3ae5f7b9ffe684064f8820e",
        },
    ),
]


@pytest.mark.parametrize(("given_challenge", "mac", "nonces"), VECTORS)
def test_published_vectors_hold(
    given_challenge: Challenge, mac: str, nonces: dict[str, str]
) -> None:
    prefix = given_challenge.prefix(KEY)
    assert prefix == f"{mac}{TASK}{given_challenge.worker}"
    for nonce, digest in nonces.items():
        assert hashlib.sha256((prefix + nonce).encode()).hexdigest() == digest
        assert leading_zero_bits(bytes.fromhex(digest)) >= given_challenge.bits
    assert given_challenge.is_solved_by(KEY, list(nonces))


def test_the_first_record_is_the_published_one() -> None:
    assert (
        challenge(1, W48, 20, 1).record()
        == (
            f"gstd-pow/1\n00000000-0000-4000-8000-000000000001\n{TASK}\n{W48}\n20\n1\n1767225600\n"
        ).encode()
    )


def test_the_solver_finds_the_fifth_vector() -> None:
    five, _, nonces = VECTORS[4]
    assert solve(five.prefix(KEY), 14, 4) == list(nonces)


def test_a_hash_one_bit_short_is_refused() -> None:
    nonce = "0000000000017821"
    prefix = challenge(1, W48, 20, 1).prefix(KEY)
    digest = hashlib.sha256((prefix + nonce).encode()).digest()
    assert digest.hex() == "00011dd93123354e76d1289c289f5f496886ff6970e2d28f6be9d40c150039c8"
    assert leading_zero_bits(digest) == 15
    assert not challenge(1, W48, 20, 1).is_solved_by(KEY, [nonce])


def test_the_decimal_nonce_of_the_seed_form_hashes_as_published() -> None:
    mac = "a812e199098166aeace0ce1040308a621c9086324c8b207005c8922870e928a3"
    digest = hashlib.sha256(f"{mac}{TASK}{W48}1583".encode()).digest()
    assert digest.hex() == "0000f5815848bbbaeacc626a1b39eb0ede78c9df99571de52e76d8ec315997a0"
    assert leading_zero_bits(digest) == 16


EASY = challenge(7, HEX64, 6, 8)
PROOF = solve(EASY.prefix(KEY), 6, 8)


def test_an_untouched_proof_holds() -> None:
    assert EASY.is_solved_by(KEY, PROOF)
    assert EASY.is_solved_by(KEY, PROOF[::-1])


@pytest.mark.parametrize(
    "change",
    [
        {"offer_id": UUID(int=9)},
        {"task_id": UUID(int=9)},
        {"worker": "0" * 64},
        {"bits": 5},
        {"bits": 7},
        {"expires_at": EXPIRES_AT + 1},
    ],
)
def test_a_proof_holds_for_no_other_challenge(change: dict[str, Any]) -> None:
    assert not msgspec.structs.replace(EASY, **change).is_solved_by(KEY, PROOF)


def test_a_proof_holds_under_no_other_key() -> None:
    assert not EASY.is_solved_by(bytes(32), PROOF)


def test_a_lower_count_makes_another_challenge() -> None:
    assert not msgspec.structs.replace(EASY, count=7).is_solved_by(KEY, PROOF[:7])


ONE = challenge(8, HEX64, 0, 2)


@pytest.mark.parametrize(
    "nonces",
    [
        [],
        ["1"],
        ["1", "2", "3"],
        ["1", "1"],
        ["1", "01"],
        ["1", "0000000000000001"],
        ["0", "0000000000000000"],
        ["a", "B"],
        ["1", ""],
        ["1", "00000000000000002"],
        ["1", "2\n"],
        ["1", " 2"],
        ["1", "-2"],
        ["1", "0x2"],
        ["1", "\u0662"],
    ],
)
def test_malformed_or_repeated_nonces_are_refused_even_without_any_difficulty(
    nonces: list[str],
) -> None:
    assert ONE.is_solved_by(KEY, ["1", "2"])
    assert not ONE.is_solved_by(KEY, nonces)


@given(st.binary(min_size=32, max_size=32))
def test_leading_zero_bits_are_those_of_the_binary_text(digest: bytes) -> None:
    text = "".join(f"{byte:08b}" for byte in digest)
    assert leading_zero_bits(digest) == len(text) - len(text.lstrip("0"))
    assert leading_zero_bits(bytes(4) + digest) == 32 + leading_zero_bits(digest)
