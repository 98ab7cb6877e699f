"""Rewrites one function: charges, depth, canonical NaNs, guarded growth.

Instructions that need nothing are copied in runs. ``run`` is where the present run began,
``segment`` holds what the present charge block has so far, ``out`` the finished ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gstd.sandbox.errors import ModuleLimitExceeded, ModuleMalformed, ModuleTruncated
from gstd.sandbox.metering import costs, emit, opcodes
from gstd.sandbox.metering.decode import Decoder, read_u32
from gstd.sandbox.metering.layout import Layout
from gstd.sandbox.metering.opcodes import BULK, HIDES_NAN, MAKES_NAN, SIMD
from gstd.sandbox.metering.shapes import SHAPES, SPECIAL
from gstd.sandbox.sections import (
    EXTERNREF,
    F64,
    FUNCREF,
    I32,
    I64,
    V128,
    FuncType,
)

MAX_NESTING: Final = 512
_WIDE: Final = (F64, V128)


class _Frame:
    __slots__ = ("base", "params", "results")

    def __init__(self, base: int, params: int, results: int) -> None:
        self.base: Final = base
        self.params: Final = params
        self.results: Final = results


def rewrite_body(
    code: bytes, where: tuple[int, int], index: int, kind: FuncType, layout: Layout
) -> bytes:
    """The metered form of the function body at ``where``: its locals, then its instructions."""
    body = Body(code, where, index, kind, layout)
    try:
        body.walk()
    except IndexError:
        raise ModuleTruncated(f"Function {index} ends inside an instruction.") from None
    return body.assemble()


def _words(values: bytes) -> int:
    return len(values) + sum(value in _WIDE for value in values)


class Body:
    """One function on its way."""

    def __init__(
        self, code: bytes, where: tuple[int, int], index: int, kind: FuncType, layout: Layout
    ) -> None:
        self.code: Final = code
        self.end: Final = where[1]
        self.kind: Final = kind
        self.layout: Final = layout
        self.decoder: Final = Decoder(code, index, layout.arities)
        self.added: list[int] = []
        self.scratch: dict[int, int] = {}
        self._read_locals(where[0])
        self.fuel: Final = self._local(I64)
        self.frames: list[_Frame] = [_Frame(0, 0, len(kind.results))]
        self.out: list[bytes] = []
        self.segment: list[bytes] = []
        self.cost = costs.entry_price(self.declared_words)
        self.spill = self.calls = False
        self.height = self.highest = 0

    def _read_locals(self, at: int) -> None:
        """Where the locals' declarations lie; ``read_sections`` has bounded them."""
        groups, at = read_u32(self.code, at)
        self.groups = groups
        begin, count, words = at, 0, 0
        for _ in range(groups):
            number, at = read_u32(self.code, at)
            count += number
            words += number * (1 + (self.code[at] in _WIDE))
            at += 1
        self.declarations = self.code[begin:at]
        self.declared_words = words
        self.locals = len(self.kind.params) + count
        self.at = self.run = at

    def _local(self, kind: int) -> int:
        """A scratch local of this type, behind the function's own."""
        if kind not in self.scratch:
            self.scratch[kind] = self.locals + len(self.added)
            self.added.append(kind)
        return self.scratch[kind]

    def walk(self) -> None:
        """Rewrite instruction by instruction up to the function's end."""
        while self.frames:
            opcode, start = self._copy_plain()
            handler = HANDLERS.get(opcode)
            if handler is None:
                self.decoder.refuse_unknown(opcode, start)
            handler(self, opcode, start)
            if self.at > self.end:
                self.decoder.refuse(ModuleMalformed, "An instruction is cut off", start)
        if self.at != self.end:
            self.decoder.refuse(ModuleMalformed, "There are bytes after the end", self.at)

    def _copy_plain(self) -> tuple[int, int]:
        """Pass over what is copied as it is; the first opcode that is not, and its position."""
        code, at, skip, shapes = self.code, self.at, self.decoder.skip, SHAPES
        height, highest, cost, spill = self.height, self.highest, self.cost, self.spill
        while True:
            start = at
            opcode = code[at]
            at += 1
            if opcode >= 0xFC:
                opcode, at = self.decoder.opcode(start)
            immediate, delta, price, traps = shapes[opcode]
            cost += price
            spill = spill or traps
            height += delta
            if height > highest:  # noqa: PLR1730 - max() takes twice the time
                highest = height
            if immediate == opcodes.LEB:
                while code[at] > 0x7F:
                    at += 1
                at += 1
            elif immediate == SPECIAL:
                break
            elif immediate:
                at = skip(immediate, at)
        self.at = at
        self.height, self.highest, self.cost, self.spill = height, highest, cost, spill
        return opcode, start

    def change(self, delta: int) -> None:
        """Count a change of the operand stack."""
        self.height += delta
        self.highest = max(self.highest, self.height)

    def operand(self) -> int:
        """The next immediate, an index."""
        value, self.at = read_u32(self.code, self.at)
        return value

    def replace(self, start: int, instructions: bytes) -> None:
        """Put ``instructions`` in the place of what lies between ``start`` and here."""
        self.segment += (self.code[self.run : start], instructions)
        self.run = self.at

    def insert(self, instructions: bytes) -> None:
        """Put ``instructions`` here."""
        self.replace(self.at, instructions)

    def close(self) -> None:
        """End the charge block here and put its charge before it."""
        self.segment.append(self.code[self.run : self.at])
        self.run = self.at
        if self.cost:
            self.out.append(emit.charge(self.cost, self.fuel, self.layout.fuel, self.spill))
        self.out += self.segment
        self.segment = []
        self.cost = 0
        self.spill = False

    def drop_unreachable(self) -> None:
        """End the charge block and skip to the ``else`` or ``end`` of the present block."""
        self.close()
        level, at = 0, self.at
        while True:
            start = at
            opcode, at = self.decoder.instruction(at)
            if opcode in (opcodes.BLOCK, opcodes.LOOP, opcodes.IF):
                level += 1
            elif level == 0 and opcode in (opcodes.ELSE, opcodes.END):
                break
            elif opcode == opcodes.END:
                level -= 1
        self.at = self.run = start

    def assemble(self) -> bytes:
        """Locals, prologue, the body in one block, epilogue."""
        layout = self.layout
        words = _words(self.kind.params) + self.declared_words + self.highest + costs.FRAME_WORDS
        counted = self.calls or words > costs.LEAF_WORDS
        added = b"".join(b"\x01" + bytes((kind,)) for kind in self.added)
        parts = [emit.u32(self.groups + len(self.added)), self.declarations, added]
        if counted:
            parts.append(emit.enter(layout.depth, words))
        parts += (emit.get_global(layout.fuel), emit.set_local(self.fuel))
        parts += (b"\x02", layout.block_type(self.kind.results), *self.out)
        parts += (emit.get_local(self.fuel), emit.set_global(layout.fuel))
        if counted:
            parts.append(emit.leave(layout.depth, words))
        return b"".join((*parts, b"\x0b"))

    def block(self, opcode: int, start: int) -> None:
        """``block``, ``loop`` and ``if``."""
        (params, results), self.at = self.decoder.block_type(self.at)
        if len(self.frames) > MAX_NESTING:
            self.decoder.refuse(
                ModuleLimitExceeded, f"Blocks nest deeper than {MAX_NESTING}", start
            )
        self.height -= opcode == opcodes.IF
        self.frames.append(_Frame(self.height - params, params, results))
        if opcode != opcodes.BLOCK:
            self.close()

    def otherwise(self, _opcode: int, _start: int) -> None:
        """``else``."""
        frame = self.frames[-1]
        self.height = frame.base + frame.params
        self.close()

    def finish(self, _opcode: int, _start: int) -> None:
        """``end``."""
        frame = self.frames.pop()
        self.height = frame.base
        self.change(frame.results)
        self.close()

    def jump(self, opcode: int, start: int) -> None:
        """``br``, ``br_table``, ``return`` and ``unreachable``: nothing after them runs."""
        if opcode == opcodes.RETURN:
            self.replace(start, b"\x0c" + emit.u32(len(self.frames) - 1))
        else:
            self.at = self.decoder.skip(opcodes.IMMEDIATES[opcode], self.at)
        self.drop_unreachable()

    def maybe(self, _opcode: int, _start: int) -> None:
        """``br_if``."""
        self.operand()
        self.height -= 1
        self.close()

    def call(self, opcode: int, start: int) -> None:
        """``call`` and ``call_indirect``: the callee counts on in the global."""
        decoder, index = self.decoder, self.operand()
        if opcode == opcodes.CALL_INDIRECT:
            self.operand()
            self.height -= 1
        else:
            index = decoder.item(self.layout.functions, index, "function", start)
        params, results = decoder.item(decoder.arities, index, "type", start)
        self.change(results - params)
        self.calls = True
        self.insert(emit.get_global(self.layout.fuel) + emit.set_local(self.fuel))

    def canonicalise(self, opcode: int, _start: int) -> None:
        """A float instruction that may make a NaN."""
        shape = MAKES_NAN[opcode]
        following = self.code[self.at]
        if following in (0xFC, 0xFD):
            number, _ = read_u32(self.code, self.at + 1)
            following = number + (BULK if following == 0xFC else SIMD)
        if HIDES_NAN.get(following) != shape:
            self.insert(emit.canonical(shape, self._local(emit.NAN_LOCALS[shape])))

    def bulk(self, opcode: int, start: int) -> None:
        """Instructions that cost by the count on top of the stack."""
        self.at = self.decoder.skip(opcodes.IMMEDIATES[opcode], self.at)
        count = self._local(I32)
        charge = self._charge_operand(count, *_SCALES[opcode])
        self.replace(start, emit.tee_local(count) + charge + self.code[start : self.at])

    def grow_memory(self, _opcode: int, start: int) -> None:
        """``memory.grow``."""
        self.operand()
        grow = self.code[start : self.at]
        self._grow(start, grow, emit.MEMORY_SIZE, self.layout.max_pages, None)

    def grow_table(self, _opcode: int, start: int) -> None:
        """``table.grow``."""
        index = self.operand()
        table = self.decoder.item(self.layout.tables, index, "table", start)
        value = self._local(EXTERNREF if table.element == EXTERNREF else FUNCREF)
        size = b"\xfc\x10" + emit.u32(index)
        self._grow(start, self.code[start : self.at], size, table.maximum, value)

    def _grow(self, start: int, grow: bytes, size: bytes, maximum: int, value: int | None) -> None:
        count = self._local(I32)
        table = value is not None
        shift = costs.ELEMENTS_SHIFT if table else costs.PAGES_SHIFT
        charge = self._charge_operand(count, shift, emit.I64_SHL)
        guarded = emit.grow(grow, size, maximum, count, value, charge)
        self.replace(start, guarded + emit.grow_end(count, self.layout.fuel))

    def _charge_operand(self, count: int, shift: int, operation: bytes) -> bytes:
        scale = emit.scaled(shift, operation)
        return emit.charge_operand(count, scale, self.fuel, self.layout.fuel)


_SCALES: Final[dict[int, tuple[int, bytes]]] = {
    **dict.fromkeys(
        (opcodes.MEMORY_INIT, opcodes.MEMORY_COPY, opcodes.MEMORY_FILL),
        (costs.BYTES_SHIFT, emit.I64_SHR_U),
    ),
    **dict.fromkeys(
        (opcodes.TABLE_INIT, opcodes.TABLE_COPY, opcodes.TABLE_FILL),
        (costs.ELEMENTS_SHIFT, emit.I64_SHL),
    ),
}

HANDLERS: Final[dict[int, Callable[[Body, int, int], None]]] = {
    **dict.fromkeys((opcodes.BLOCK, opcodes.LOOP, opcodes.IF), Body.block),
    opcodes.ELSE: Body.otherwise,
    opcodes.END: Body.finish,
    **dict.fromkeys((opcodes.BR, opcodes.BR_TABLE, opcodes.RETURN, opcodes.UNREACHABLE), Body.jump),
    opcodes.BR_IF: Body.maybe,
    **dict.fromkeys((opcodes.CALL, opcodes.CALL_INDIRECT), Body.call),
    **dict.fromkeys(MAKES_NAN, Body.canonicalise),
    **dict.fromkeys(_SCALES, Body.bulk),
    opcodes.MEMORY_GROW: Body.grow_memory,
    opcodes.TABLE_GROW: Body.grow_table,
}
