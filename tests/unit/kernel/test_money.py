"""Amounts: exact in both directions, rounded for the platform only where a fee is named."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gstd.kernel.money import (
    BASIS_POINTS,
    MAX_NANO,
    NANO_PER_GSTD,
    ceil_share,
    format_gstd,
    parse_gstd,
)

amounts = st.integers(0, MAX_NANO)
shares = st.integers(0, BASIS_POINTS)


@given(amounts)
def test_what_is_formatted_parses_back_to_the_same_nano(nano: int) -> None:
    assert parse_gstd(format_gstd(nano)) == nano


@given(amounts)
def test_formatted_amounts_are_the_exact_decimal(nano: int) -> None:
    text = format_gstd(nano)
    assert Decimal(text) == Decimal(nano).scaleb(-9)
    assert not ("." in text and text.endswith(("0", ".")))


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0", 0),
        ("1", NANO_PER_GSTD),
        ("1.5", 1_500_000_000),
        ("0.000000001", 1),
        (" 2.0 ", 2 * NANO_PER_GSTD),
        ("9223372036.854775807", MAX_NANO),
    ],
)
def test_decimal_amounts_are_read_exactly(text: str, nano: int) -> None:
    assert parse_gstd(text) == nano


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "1e3",
        "1,5",
        "1_000",
        ".5",
        "1.",
        "1.0000000001",
        "0x10",
        "NaN",
        "inf",
        "1 2",
        "9223372036.854775808",
        "99999999999",
        "\u0661",
    ],
)
def test_anything_but_a_plain_decimal_within_the_ledger_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"GSTD|ledger"):
        parse_gstd(text)


@given(st.integers(-MAX_NANO, -1))
def test_negative_amounts_carry_one_sign(nano: int) -> None:
    assert format_gstd(nano) == "-" + format_gstd(-nano)


@given(amounts, shares)
def test_a_share_is_the_smallest_integer_not_below_the_exact_one(amount: int, bps: int) -> None:
    exact = Fraction(amount * bps, BASIS_POINTS)
    share = ceil_share(amount, bps)
    assert exact <= share < exact + 1
    assert share <= amount


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=8), shares)
def test_fees_of_parts_never_cost_less_than_the_fee_of_the_whole(
    parts: list[int], bps: int
) -> None:
    whole = ceil_share(sum(parts), bps)
    assert 0 <= sum(ceil_share(part, bps) for part in parts) - whole < len(parts)
