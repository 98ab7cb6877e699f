"""Every accepted instruction: what follows its opcode and what it does to the operand stack.

An opcode here is the first byte, ``BULK`` + n after the prefix 0xFC, ``SIMD`` + n after 0xFD.
Signatures read ``operands:results`` with i I f F for i32 i64 f32 f64, v for v128, r for a
reference. Source: the WebAssembly core specification 2.0, chapter 5.4 and its index of
instructions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

BULK: Final = 0x100
SIMD: Final = 0x200
END_OF_OPCODES: Final = 0x300

UNREACHABLE, NOP, BLOCK, LOOP, IF, ELSE, END = 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x0B
BR, BR_IF, BR_TABLE, RETURN, CALL, CALL_INDIRECT = 0x0C, 0x0D, 0x0E, 0x0F, 0x10, 0x11
MEMORY_GROW = 0x40
MEMORY_INIT, MEMORY_COPY, MEMORY_FILL = BULK + 8, BULK + 10, BULK + 11
TABLE_INIT, TABLE_COPY, TABLE_GROW, TABLE_FILL = BULK + 12, BULK + 14, BULK + 15, BULK + 17

# What follows an opcode.
NOTHING, LEB, MEMARG, TWO_LEBS, LANE_MEMARG, FOUR, EIGHT, SIXTEEN, LANE = range(9)
TYPES, REFERENCE, BLOCK_TYPE, LABELS, UNKNOWN = range(9, 14)

SIGNATURES: Final[dict[int, str]] = {}
"""Of the instructions whose signature their opcode fixes."""

IMMEDIATES: Final[list[int]] = [UNKNOWN] * END_OF_OPCODES
"""By opcode, what follows it; ``UNKNOWN`` for what is not accepted."""


def _add(opcodes: Iterable[int], signature: str, immediate: int = NOTHING) -> None:
    for opcode in opcodes:
        SIGNATURES[opcode] = signature
        IMMEDIATES[opcode] = immediate


def _span(first: int, last: int) -> range:
    return range(first, last + 1)


def _simd(*numbers: int) -> list[int]:
    return [SIMD + number for number in numbers]


def _simd_span(first: int, last: int) -> range:
    return range(SIMD + first, SIMD + last + 1)


def _control() -> None:
    for opcode in (UNREACHABLE, NOP, ELSE, END, RETURN, 0x1A, 0x1B):  # 1A drop, 1B select
        IMMEDIATES[opcode] = NOTHING
    for opcode in (BLOCK, LOOP, IF):
        IMMEDIATES[opcode] = BLOCK_TYPE
    for opcode in (BR, BR_IF, CALL, *_span(0x20, 0x24)):  # 20-24: locals and globals
        IMMEDIATES[opcode] = LEB
    IMMEDIATES[BR_TABLE] = LABELS
    IMMEDIATES[CALL_INDIRECT] = TWO_LEBS
    IMMEDIATES[0x1C] = TYPES  # select with its type
    _add([0x41, 0x42], ":i", LEB)
    SIGNATURES[0x42] = ":I"
    _add([0x43], ":f", FOUR)
    _add([0x44], ":F", EIGHT)


def _memory_and_tables() -> None:
    for opcodes, signature in (
        ((0x28, *_span(0x2C, 0x2F)), "i:i"),
        ((0x29, *_span(0x30, 0x35)), "i:I"),
        ((0x2A,), "i:f"),
        ((0x2B,), "i:F"),
        ((0x36, 0x3A, 0x3B), "ii:"),
        ((0x37, 0x3C, 0x3D, 0x3E), "iI:"),
        ((0x38,), "if:"),
        ((0x39,), "iF:"),
    ):
        _add(opcodes, signature, MEMARG)
    _add([0x3F], ":i", LEB)
    _add([MEMORY_GROW], "i:i", LEB)
    _add([MEMORY_INIT, MEMORY_COPY, TABLE_INIT, TABLE_COPY], "iii:", TWO_LEBS)
    _add([MEMORY_FILL], "iii:", LEB)
    _add([BULK + 9, BULK + 13], ":", LEB)  # data.drop, elem.drop
    _add([TABLE_GROW], "ri:i", LEB)
    _add([BULK + 16], ":i", LEB)  # table.size
    _add([TABLE_FILL], "iri:", LEB)
    _add([0x25], "i:r", LEB)
    _add([0x26], "ir:", LEB)
    _add([0xD0], ":r", REFERENCE)
    _add([0xD1], "r:i")
    _add([0xD2], ":r", LEB)


def _numbers() -> None:
    for opcodes, signature in (
        ((0x45, *_span(0x67, 0x69), 0xC0, 0xC1), "i:i"),
        ((*_span(0x46, 0x4F), *_span(0x6A, 0x78)), "ii:i"),
        ((0x50, 0xA7), "I:i"),
        (_span(0x51, 0x5A), "II:i"),
        (_span(0x5B, 0x60), "ff:i"),
        (_span(0x61, 0x66), "FF:i"),
        ((*_span(0x79, 0x7B), *_span(0xC2, 0xC4)), "I:I"),
        (_span(0x7C, 0x8A), "II:I"),
        (_span(0x8B, 0x91), "f:f"),
        (_span(0x92, 0x98), "ff:f"),
        (_span(0x99, 0x9F), "F:F"),
        (_span(0xA0, 0xA6), "FF:F"),
        ((0xA8, 0xA9, 0xBC, BULK, BULK + 1), "f:i"),
        ((0xAA, 0xAB, BULK + 2, BULK + 3), "F:i"),
        ((0xAC, 0xAD), "i:I"),
        ((0xAE, 0xAF, BULK + 4, BULK + 5), "f:I"),
        ((0xB0, 0xB1, 0xBD, BULK + 6, BULK + 7), "F:I"),
        ((0xB2, 0xB3, 0xBE), "i:f"),
        ((0xB4, 0xB5), "I:f"),
        ((0xB6,), "F:f"),
        ((0xB7, 0xB8), "i:F"),
        ((0xB9, 0xBA, 0xBF), "I:F"),
        ((0xBB,), "f:F"),
    ):
        _add(opcodes, signature)


def _vectors() -> None:
    _add(_simd_span(35, 255), "vv:v")
    unary: tuple[int, ...] = (
        77,
        *_span(94, 98),
        *_span(103, 106),
        116,
        117,
        122,
        *_span(124, 129),
        148,
        160,
        161,
    )
    unary += (*_span(135, 138), *_span(167, 170), 192, 193, *_span(199, 202), 224, 225, 227)
    _add(_simd(*unary, 236, 237, 239, *_span(248, 255)), "v:v")
    _add(_simd(83, 99, 100, 131, 132, 163, 164, 195, 196), "v:i")
    _add(_simd(*_span(107, 109), *_span(139, 141), *_span(171, 173), *_span(203, 205)), "vi:v")
    _add(_simd(82), "vvv:v")
    _add(_simd(*range(11), 92, 93), "i:v", MEMARG)
    _add(_simd(11), "iv:", MEMARG)
    _add(_simd(12), ":v", SIXTEEN)
    _add(_simd(13), "vv:v", SIXTEEN)
    _add(_simd(14), "vv:v")
    for number, kind in ((15, "i"), (16, "i"), (17, "i"), (18, "I"), (19, "f"), (20, "F")):
        _add(_simd(number), f"{kind}:v")
    for number, signature in (
        *((number, "v:i") for number in (21, 22, 24, 25, 27)),
        *((number, "vi:v") for number in (23, 26, 28)),
        (29, "v:I"),
        (30, "vI:v"),
        (31, "v:f"),
        (32, "vf:v"),
        (33, "v:F"),
        (34, "vF:v"),
    ):
        _add(_simd(number), signature, LANE)
    _add(_simd(*_span(84, 87)), "iv:v", LANE_MEMARG)
    _add(_simd(*_span(88, 91)), "iv:", LANE_MEMARG)
    unused = (154, 162, 165, 166, 175, 176, 178, 179, 180, 187, 194, 197, 198, 207, 208, 210, 211)
    for opcode in _simd(*unused, 212, 226, 238):
        del SIGNATURES[opcode]
        IMMEDIATES[opcode] = UNKNOWN


_control()
_memory_and_tables()
_numbers()
_vectors()

F32X4: Final = "f32x4"
F64X2: Final = "f64x2"

MAKES_NAN: Final[dict[int, str]] = {
    **dict.fromkeys((*_span(0x8D, 0x98), 0xB6), "f"),  # ceil … max, demote
    **dict.fromkeys((*_span(0x9B, 0xA6), 0xBB), "F"),
    **dict.fromkeys(_simd(94, *_span(103, 106), 227, *_span(228, 233)), F32X4),
    **dict.fromkeys(_simd(95, 116, 117, 122, 148, 239, *_span(240, 245)), F64X2),
}
"""Instructions whose result may be a NaN of the engine's choice, with the shape of the result."""
for _copysign in (0x98, 0xA6):
    del MAKES_NAN[_copysign]

HIDES_NAN: Final[dict[int, str]] = {
    **dict.fromkeys((*_span(0x8D, 0x97), *_span(0x5B, 0x60), 0xA8, 0xA9, 0xAE, 0xAF, 0xBB), "f"),
    **dict.fromkeys((*_span(0x9B, 0xA5), *_span(0x61, 0x66), 0xAA, 0xAB, 0xB0, 0xB1, 0xB6), "F"),
    **dict.fromkeys((BULK, BULK + 1, BULK + 4, BULK + 5), "f"),
    **dict.fromkeys((BULK + 2, BULK + 3, BULK + 6, BULK + 7), "F"),
    **dict.fromkeys(_simd(*_span(103, 106), 95, 227, *_span(228, 233), *_span(65, 70)), F32X4),
    **dict.fromkeys(_simd(94, 116, 117, 122, 148, 239, *_span(240, 245), *_span(71, 76)), F64X2),
}
"""Instructions whose result does not depend on the bits of a NaN among their operands: they make
a NaN of their own, which is made canonical after them, or compare, or convert to an integer."""

TRAPS: Final = frozenset(
    (
        UNREACHABLE,
        CALL,
        CALL_INDIRECT,
        0x25,
        0x26,
        *_span(0x28, 0x3E),
        MEMORY_GROW,
        *_span(0x6D, 0x70),
        *_span(0x7F, 0x82),
        *_span(0xA8, 0xAB),
        *_span(0xAE, 0xB1),
        MEMORY_INIT,
        MEMORY_COPY,
        MEMORY_FILL,
        TABLE_INIT,
        TABLE_COPY,
        TABLE_GROW,
        TABLE_FILL,
        *_simd(*range(12), *_span(84, 93)),
    )
)
"""Instructions before which the host must be able to read the fuel."""
