"""Finds where each instruction ends, and names those that are not accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NoReturn, TypeVar

from gstd.sandbox.errors import ModuleMalformed, ModuleRefused, ModuleUnsupportedFeature, Place
from gstd.sandbox.metering import opcodes
from gstd.sandbox.metering.opcodes import BULK, IMMEDIATES, SIMD, UNKNOWN
from gstd.sandbox.sections import EXTERNREF, FUNCREF, VALUES

T = TypeVar("T")
Arity = tuple[int, int]
"""How many parameters and how many results."""

_FIXED: Final = {
    opcodes.FOUR: 4,
    opcodes.EIGHT: 8,
    opcodes.SIXTEEN: 16,
    opcodes.LANE: 1,
}
_LEBS: Final = {opcodes.LEB: 1, opcodes.TWO_LEBS: 2}
_RELAXED_SIMD: Final = 0x100
_EMPTY_BLOCK: Final = 0x40

_FEATURES: Final[dict[int, str]] = {
    **dict.fromkeys((0x06, 0x07, 0x08, 0x09, 0x0A, 0x18, 0x19, 0x1F), "exceptions"),
    **dict.fromkeys((0x12, 0x13, 0x15), "tail calls"),
    **dict.fromkeys((0x14, 0xD4, 0xD5, 0xD6), "typed function references"),
    **dict.fromkeys((0xD3, 0xFB), "garbage collection"),
    **dict.fromkeys(range(0xE0, 0xE7), "stack switching"),
    0xFE: "threads",
    **dict.fromkeys(range(BULK + 19, BULK + 23), "wide arithmetic"),
}


def refuse(kind: type[ModuleRefused], what: str, place: Place) -> NoReturn:
    """Refuse the module for ``what`` was found at ``place``."""
    error = kind(f"{what} in function {place.function} at byte {place.offset}.")
    error.place = place
    raise error


def read_u32(code: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 and the position after it."""
    value = shift = 0
    while (byte := code[at]) > 0x7F:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if shift > 28:
            break
    return value | code[at] << shift, at + 1


class Decoder:
    """Walks over the instructions of one function."""

    def __init__(self, code: bytes, function: int, arities: Sequence[Arity]) -> None:
        self.code: Final = code
        self.function: Final = function
        self.arities: Final = arities

    def refuse(self, kind: type[ModuleRefused], what: str, at: int) -> NoReturn:
        """Refuse what stands at byte ``at`` of the module."""
        refuse(kind, what, Place(self.function, at))

    def opcode(self, at: int) -> tuple[int, int]:
        """The opcode that stands at ``at`` and the position of what follows it."""
        first = self.code[at]
        if first not in (0xFC, 0xFD):
            return first, at + 1
        number, after = read_u32(self.code, at + 1)
        if number >= _RELAXED_SIMD:
            feature = "relaxed SIMD" if first == 0xFD else "an unknown instruction"
            self.refuse(ModuleUnsupportedFeature, f"The module uses {feature}", at)
        return (BULK if first == 0xFC else SIMD) + number, after

    def refuse_unknown(self, opcode: int, at: int) -> NoReturn:
        """Refuse an opcode that is not accepted, naming its proposal where it has one."""
        feature = _FEATURES.get(opcode, f"the unknown instruction {opcode:#x}")
        self.refuse(ModuleUnsupportedFeature, f"The module uses {feature}", at)

    def instruction(self, at: int) -> tuple[int, int]:
        """The opcode that stands at ``at`` and the position of the next instruction."""
        opcode, after = self.opcode(at)
        if IMMEDIATES[opcode] == UNKNOWN:
            self.refuse_unknown(opcode, at)
        return opcode, self.skip(IMMEDIATES[opcode], after)

    def skip(self, immediate: int, at: int) -> int:
        """The position after an immediate of this kind."""
        if immediate in _LEBS:
            for _ in range(_LEBS[immediate]):
                at = self._skip_leb(at)
            return at
        if immediate in _FIXED:
            return at + _FIXED[immediate]
        if immediate in (opcodes.MEMARG, opcodes.LANE_MEMARG):
            if self.code[at] >= 0x40:
                self.refuse(ModuleUnsupportedFeature, "The module uses multiple memories", at)
            return self._skip_leb(self._skip_leb(at)) + (immediate == opcodes.LANE_MEMARG)
        return self._skip_list(immediate, at)

    def _skip_list(self, immediate: int, at: int) -> int:
        if immediate == opcodes.REFERENCE:
            return self._reference(at)
        if immediate == opcodes.BLOCK_TYPE:
            return self.block_type(at)[1]
        if immediate == opcodes.NOTHING:
            return at
        count, at = read_u32(self.code, at)
        if immediate == opcodes.TYPES:
            return self._types(count, at)
        if count > len(self.code):
            self.refuse(ModuleMalformed, f"A br_table promises {count} labels", at)
        for _ in range(count + 1):
            at = self._skip_leb(at)
        return at

    def _skip_leb(self, at: int) -> int:
        while self.code[at] > 0x7F:
            at += 1
        return at + 1

    def _types(self, count: int, at: int) -> int:
        if count != 1 or self.code[at] not in VALUES:
            self.refuse(ModuleUnsupportedFeature, "The module uses a select of unknown type", at)
        return at + 1

    def _reference(self, at: int) -> int:
        if self.code[at] not in (FUNCREF, EXTERNREF):
            self.refuse(ModuleUnsupportedFeature, "The module uses typed references", at)
        return at + 1

    def block_type(self, at: int) -> tuple[Arity, int]:
        """The arity of a block and the position after its type."""
        first = self.code[at]
        if first == _EMPTY_BLOCK:
            return (0, 0), at + 1
        if first in VALUES:
            return (0, 1), at + 1
        if _EMPTY_BLOCK < first < 0x80:
            self.refuse(ModuleUnsupportedFeature, f"A block has the type {first:#x}", at)
        index, after = read_u32(self.code, at)
        return self.item(self.arities, index, "type", at), after

    def item(self, items: Sequence[T], index: int, what: str, at: int) -> T:
        """``items[index]``, which the instruction at ``at`` names."""
        if index >= len(items):
            self.refuse(ModuleMalformed, f"A {what} {index} of {len(items)} is named", at)
        return items[index]
