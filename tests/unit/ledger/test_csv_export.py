"""Texts are never formulas, numbers can be summed, and nothing is lost on the way."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gstd.kernel.money import MAX_NANO, format_gstd
from gstd.ledger.csv_export import CsvWriter, gstd, neutral

# Without surrogates, which UTF-8 cannot hold.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TRICKY = st.text("=+-@\t\r\n'\" ,;x1\ufeff\u00a0＝", max_size=6)

DANGEROUS = [
    "=1+1",
    '=HYPERLINK("http://x")',
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "\nx",
    " =1",
    "\u00a0=1",
    "\ufeff=1",
    "\u200b=1",
    "\x00=1",
    "'=1",
    '"=1',
    '""=1',
    "' \" =1",
    '"\t=1',
    "'\tx",
    "＝1",
    "＋1",
    "－1",
    "＠x",
    "-",
]
HARMLESS = ["", "reward", "a=b", "1-2", "0195f1f0-aaaa-7000", "mail@host", "'quoted'", " x", "O'=x"]


def read(text: str) -> list[list[str]]:
    """The cells as another program reads them after the bytes crossed the network."""
    return list(csv.reader(io.StringIO(text.encode().decode(), newline=""), strict=True))


@pytest.mark.parametrize("text", DANGEROUS)
def test_what_a_spreadsheet_could_run_begins_with_a_single_quote(text: str) -> None:
    assert neutral(text) == "'" + text
    writer = CsvWriter()
    assert read(writer.head(["a", "b"]) + writer.row([text, 1]))[1] == ["'" + text, "1"]


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert neutral(text) == text


@given(TEXTS | TRICKY)
def test_a_neutral_text_can_be_read_back(text: str) -> None:
    cell = neutral(text)
    assert cell[:1] not in set("=+-@\t\r\n")
    is_dangerous = neutral(cell) != cell
    assert (cell[1:] if is_dangerous else cell) == text


@given(st.lists(st.lists(TEXTS | TRICKY, min_size=3, max_size=3), max_size=5))
def test_every_row_comes_back_from_a_csv_reader(rows: list[list[str]]) -> None:
    writer = CsvWriter()
    text = writer.head(["a", "b", "c"]) + "".join(writer.row(row) for row in rows)
    assert read(text) == [["a", "b", "c"], *([neutral(cell) for cell in row] for row in rows)]


@given(st.lists(st.integers(-MAX_NANO, MAX_NANO), max_size=20))
def test_amounts_stay_numbers_with_the_exact_sum(amounts: list[int]) -> None:
    writer = CsvWriter()
    text = writer.head(["gstd", "nano"]) + "".join(writer.row([gstd(n), n]) for n in amounts)
    rows = read(text)[1:]
    assert [int(nano) for _, nano in rows] == amounts
    assert sum((Decimal(cell) for cell, _ in rows), Decimal(0)) == Decimal(
        format_gstd(sum(amounts))
    )
    assert all("e" not in cell.lower() for row in rows for cell in row)


def test_lines_end_and_cells_are_quoted_after_rfc_4180() -> None:
    writer = CsvWriter()
    assert writer.head(["id", "what", "gstd", "note"]) == "id,what,gstd,note\r\n"
    assert writer.row([7, 'say "a, b"', gstd(-1), None]) == '7,"say ""a, b""",-0.000000001,\r\n'
    assert writer.row([8, "two\r\nlines", Decimal("1E+3"), ""]) == '8,"two\r\nlines",1000,\r\n'


def test_a_table_has_one_head_and_rows_as_wide() -> None:
    writer = CsvWriter()
    with pytest.raises(ValueError, match="columns"):
        writer.row([1])
    writer.head(["a", "b"])
    with pytest.raises(ValueError, match="one head"):
        writer.head(["a", "b"])
    with pytest.raises(ValueError, match="1 cells"):
        writer.row([1])


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_refused(value: str) -> None:
    writer = CsvWriter()
    writer.head(["a"])
    with pytest.raises(ValueError, match="number"):
        writer.row([Decimal(value)])
