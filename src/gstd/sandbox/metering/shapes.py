"""What copying an instruction has to count, in one row per opcode."""

from __future__ import annotations

from typing import Final

from gstd.sandbox.metering import opcodes
from gstd.sandbox.metering.costs import price
from gstd.sandbox.metering.opcodes import IMMEDIATES, MAKES_NAN, SIGNATURES, TRAPS, UNKNOWN

SPECIAL: Final = -1
"""In the place of the immediate: the instruction is rewritten, or refused."""

_REWRITTEN: Final = frozenset(
    (
        *range(opcodes.IF + 1),
        opcodes.ELSE,
        opcodes.END,
        opcodes.BR,
        opcodes.BR_IF,
        opcodes.BR_TABLE,
        opcodes.RETURN,
        opcodes.CALL,
        opcodes.CALL_INDIRECT,
        opcodes.MEMORY_GROW,
        opcodes.MEMORY_INIT,
        opcodes.MEMORY_COPY,
        opcodes.MEMORY_FILL,
        opcodes.TABLE_INIT,
        opcodes.TABLE_COPY,
        opcodes.TABLE_GROW,
        opcodes.TABLE_FILL,
        *MAKES_NAN,
    )
) - {opcodes.NOP}

_DELTAS: Final = {
    0x1A: -1,  # drop
    0x1B: -2,  # select
    0x1C: -2,
    0x20: 1,  # local.get
    0x21: -1,  # local.set
    0x23: 1,  # global.get
    0x24: -1,  # global.set
}


def _delta(opcode: int) -> int:
    """How many operands an instruction adds; the rewriting of control counts its own."""
    if opcode in SIGNATURES:
        operands, results = SIGNATURES[opcode].split(":")
        return len(results) - len(operands)
    return _DELTAS.get(opcode, 0)


def _shape(opcode: int) -> tuple[int, int, int, bool]:
    immediate = IMMEDIATES[opcode]
    if immediate == UNKNOWN or opcode in _REWRITTEN:
        immediate = SPECIAL
    return immediate, _delta(opcode), price(opcode), opcode in TRAPS


SHAPES: Final = [_shape(opcode) for opcode in range(opcodes.END_OF_OPCODES)]
"""Immediate, change of the operand stack, fuel, whether it may trap; by opcode."""
