"""Tables for spreadsheets: exact numbers that can be summed, texts that are never formulas."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Sequence
from decimal import Decimal

from gstd.kernel.money import NANO_PER_GSTD

Cell = str | int | Decimal | None

# What makes a spreadsheet read a formula, also in the wide forms that some fold into these.
_FORMULA = frozenset("=+-@＝＋－＠")
_QUOTES = "'\"`‘’“”"
_CONTROLS = ("\t", "\r", "\n")


class CsvWriter:
    """Writes a table line by line after RFC 4180: commas, CR LF, quotes where they are needed.

    Texts are neutralised (see ``neutral``). ``int`` and ``Decimal`` are numbers and stay numbers,
    negative ones too; ``None`` is an empty cell. The lines are to be encoded as UTF-8.
    """

    def __init__(self) -> None:
        self._buffer = io.StringIO(newline="")
        self._writer = csv.writer(self._buffer, lineterminator="\r\n")
        self._width: int | None = None

    def head(self, columns: Sequence[str]) -> str:
        """The first line. It fixes the number of columns."""
        if self._width is not None:
            raise ValueError("a table has one head")
        self._width = len(columns)
        return self.row(columns)

    def row(self, values: Sequence[Cell]) -> str:
        """One line. Raises ``ValueError`` unless it has a cell for every column of the head."""
        if len(values) != self._width:
            raise ValueError(f"a row of {len(values)} cells in a table of {self._width} columns")
        self._writer.writerow([_cell(value) for value in values])
        line = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return line


def gstd(nano: int) -> Decimal:
    """An amount in nano as a cell in GSTD, with all nine decimals.

    The file is exact; spreadsheets themselves calculate with fifteen digits.
    """
    # The parts are joined as text because arithmetic of Decimal rounds to the caller's context.
    sign = "-" if nano < 0 else ""
    whole, fraction = divmod(abs(nano), NANO_PER_GSTD)
    return Decimal(f"{sign}{whole}.{fraction:09d}")


def neutral(text: str) -> str:
    """``text``, with a single quote before it if a spreadsheet could run it as a formula.

    It could where a tab or a line break comes first, quotes aside, or one of ``= + - @``, quotes,
    blanks and invisible characters aside. The same holds of what is returned, so nothing is lost:
    to read a text back, take one single quote from those that are dangerous by this rule.
    """
    return f"'{text}" if _is_dangerous(text) else text


def _is_dangerous(text: str) -> bool:
    if text.lstrip(_QUOTES).startswith(_CONTROLS):
        return True
    first = next((char for char in text if not _is_skipped(char)), "")
    return first in _FORMULA


def _is_skipped(char: str) -> bool:
    # Z: spaces of all kinds; C: controls, marks of direction and byte order, what has no form.
    return char in _QUOTES or unicodedata.category(char)[0] in "ZC"


def _cell(value: Cell) -> str | int | None:
    if isinstance(value, str):
        return neutral(value)
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"{value} is not a number of a table")
        return format(value, "f")  # never 1E+3
    return value
