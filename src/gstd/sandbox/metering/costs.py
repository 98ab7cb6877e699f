"""What everything costs. A changed number is a new ``COST_TABLE``."""

from __future__ import annotations

from typing import Final

from gstd.sandbox.metering.opcodes import (
    CALL,
    CALL_INDIRECT,
    MEMORY_COPY,
    MEMORY_FILL,
    MEMORY_GROW,
    MEMORY_INIT,
    SIMD,
    TABLE_COPY,
    TABLE_FILL,
    TABLE_GROW,
    TABLE_INIT,
)

METERING: Final = "gstd-metering/1"
"""Names the shape of the rewritten module: charge points, sentinels, layout."""

COST_TABLE: Final = "gstd-fuel/1"
"""Names the numbers of this file."""

DEPTH_WORDS: Final = 24_576
"""Budget of the call stack in words of 8 bytes: below what every browser's worker has."""

FRAME_WORDS: Final = 8
LEAF_WORDS: Final = 64
"""A function without calls whose frame is at most this large is not counted against the depth."""

LOCALS_PER_FUEL: Final = 4
"""Entering a function costs 1 and 1 more per so many declared words, which must be zeroed."""

_FREE: Final = frozenset((0x01, 0x02, 0x03, 0x05, 0x0B, 0x1A))  # nop block loop else end drop

_DEAR: Final[dict[int, int]] = {
    CALL: 4,
    CALL_INDIRECT: 8,
    **dict.fromkeys((0x6D, 0x6E, 0x6F, 0x70, 0x7F, 0x80, 0x81, 0x82), 8),  # div, rem
    **dict.fromkeys((0x91, 0x95, 0x9F, 0xA3), 8),  # sqrt, div of floats
    **dict.fromkeys((SIMD + 227, SIMD + 231, SIMD + 239, SIMD + 243), 16),  # sqrt, div of lanes
    **dict.fromkeys((MEMORY_GROW, TABLE_GROW), 64),
    **dict.fromkeys((MEMORY_INIT, MEMORY_COPY, MEMORY_FILL), 16),
    **dict.fromkeys((TABLE_INIT, TABLE_COPY, TABLE_FILL), 16),
}

BYTES_SHIFT: Final = 3
"""Bulk memory instructions cost one more per 8 whole bytes."""

PAGES_SHIFT: Final = 13
"""Growing memory costs 8192 more per page."""

ELEMENTS_SHIFT: Final = 1
"""Bulk table instructions and growing a table cost 2 more per element."""


def price(opcode: int) -> int:
    """Fuel of one instruction, without what depends on its operands."""
    return 0 if opcode in _FREE else _DEAR.get(opcode, 1)


def entry_price(declared_words: int) -> int:
    """Fuel of entering a function."""
    return 1 + declared_words // LOCALS_PER_FUEL
