"""Amounts: integers of nano, never floats. 1 GSTD = 1 000 000 000 nano."""

from __future__ import annotations

import re

NANO_PER_GSTD = 1_000_000_000
MAX_NANO = 2**63 - 1
"""The largest amount the ledger's BIGINT columns can hold."""

BASIS_POINTS = 10_000

_DECIMAL = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,9}))?")


def parse_gstd(text: str) -> int:
    """Nano for a decimal GSTD amount such as ``"1.5"``.

    Raises ``ValueError`` for signs, exponents, more than nine decimals or amounts the ledger
    cannot hold.
    """
    match = _DECIMAL.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not an amount of GSTD with at most nine decimals")
    whole, fraction = match.groups()
    nano = int(whole) * NANO_PER_GSTD + int((fraction or "").ljust(9, "0"))
    if nano > MAX_NANO:
        raise ValueError(f"{text!r} is more than the ledger can hold")
    return nano


def format_gstd(nano: int) -> str:
    """Exact decimal GSTD for an amount in nano, without trailing zeros."""
    sign = "-" if nano < 0 else ""
    whole, fraction = divmod(abs(nano), NANO_PER_GSTD)
    if fraction == 0:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:09d}".rstrip("0")


def ceil_share(amount: int, basis_points: int) -> int:
    """``amount * basis_points / 10 000`` rounded up: what a fee on ``amount`` costs."""
    return -(-amount * basis_points // BASIS_POINTS)
