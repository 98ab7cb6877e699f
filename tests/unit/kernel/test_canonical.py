"""Canonical bytes: two different records of one shape never share an encoding."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gstd.kernel.canonical import Field, digest, pack, sha256

FIELDS: dict[type[Any], st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**63 - 1),
    str: st.text(max_size=20),
    bytes: st.binary(max_size=20),
}
shapes = st.lists(st.sampled_from([int, str, bytes]), max_size=5)


def unpack(data: bytes, domain: str, shape: Sequence[type[Any]]) -> list[Field]:
    """Reads a record back by the layout that the module's docstring promises."""
    head = domain.encode() + b"\n"
    assert data.startswith(head)
    rest = data[len(head) :]
    fields: list[Field] = []
    for kind in shape:
        if kind is int:
            fields.append(int.from_bytes(rest[:8], "big", signed=True))
            rest = rest[8:]
        else:
            size = int.from_bytes(rest[:4], "big")
            raw, rest = rest[4 : 4 + size], rest[4 + size :]
            fields.append(raw.decode() if kind is str else raw)
    assert rest == b""
    return fields


@st.composite
def records(draw: st.DrawFn) -> tuple[list[type[Any]], list[Field], list[Field]]:
    shape = draw(shapes)
    one, other = ([draw(FIELDS[kind]) for kind in shape] for _ in range(2))
    return shape, one, other


@given(records())
def test_a_record_reads_back_from_its_bytes(
    record: tuple[list[type[Any]], list[Field], list[Field]],
) -> None:
    shape, fields, _ = record
    assert unpack(pack("gstd-test-v1", *fields), "gstd-test-v1", shape) == fields


@given(records())
def test_different_records_of_one_shape_have_different_bytes(
    record: tuple[list[type[Any]], list[Field], list[Field]],
) -> None:
    _, one, other = record
    assume(one != other)
    assert pack("gstd-test-v1", *one) != pack("gstd-test-v1", *other)
    assert digest("gstd-test-v1", *one) != digest("gstd-test-v1", *other)


@given(st.text(max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_moving_the_border_between_two_texts_changes_the_bytes(
    text: str, one: int, other: int
) -> None:
    assume(text[:one] != text[:other])
    assert pack("d", text[:one], text[one:]) != pack("d", text[:other], text[other:])


def test_domains_separate_equal_fields() -> None:
    assert pack("gstd-a", 1) != pack("gstd-b", 1)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_integers_beyond_64_bits_are_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        pack("gstd-test-v1", number)


def test_a_digest_is_sha_256_of_the_bytes() -> None:
    assert (
        digest("x", "y")
        == hashlib.sha256(b"x\n\x00\x00\x00\x01y").digest()
        == sha256(b"x\n\0\0\0\1y")
    )
