"""Reads the sections of a module that decide whether it is accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from gstd.sandbox.binary import Reader, too_many
from gstd.sandbox.errors import (
    ModuleIsComponent,
    ModuleMalformed,
    ModuleMemory64,
    ModuleNotWasm,
    ModuleSharedMemory,
    ModuleUnsupportedFeature,
)

I32, I64, F32, F64, V128, FUNCREF, EXTERNREF = 0x7F, 0x7E, 0x7D, 0x7C, 0x7B, 0x70, 0x6F
NUMBERS: Final = frozenset((I32, I64, F32, F64))
VALUES: Final = NUMBERS | {V128, FUNCREF, EXTERNREF}

FUNCTION, TABLE, MEMORY, GLOBAL = range(4)
"""Kinds of imports and exports."""

MAX_TYPES: Final = 10_000
MAX_PARAMS: Final = 100
MAX_RESULTS: Final = 16
MAX_IMPORTS: Final = 64
MAX_EXPORTS: Final = 1_000
MAX_FUNCTIONS: Final = 50_000
MAX_TABLES: Final = 8
MAX_TABLE_ELEMENTS: Final = 65_536
MAX_GLOBALS: Final = 5_000
MAX_SEGMENTS: Final = 65_536
MAX_FUNCTION_LOCALS: Final = 5_000
MAX_LOCALS: Final = 1_000_000
MAX_NAME_BYTES: Final = 1_024
MAX_PAGES: Final = 65_536


class FuncType(msgspec.Struct, frozen=True):
    """Parameter and result types, one byte each."""

    params: bytes
    results: bytes


class Import(msgspec.Struct, frozen=True):
    """``type_index`` is 0 unless ``kind`` is ``FUNCTION``."""

    module: str
    name: str
    kind: int
    type_index: int


class Export(msgspec.Struct, frozen=True):
    """``index`` counts imports first."""

    name: str
    kind: int
    index: int


class MemoryLimits(msgspec.Struct, frozen=True):
    """In pages of 65 536 bytes."""

    min_pages: int
    max_pages: int | None


class Sections(msgspec.Struct):
    """What was read; ``functions`` are the type indices of the functions the module defines."""

    types: list[FuncType] = []
    imports: list[Import] = []
    functions: list[int] = []
    memories: list[MemoryLimits] = []
    global_types: list[int] = []
    exports: list[Export] = []
    start: int | None = None
    data_count: int | None = None
    bodies: int = 0
    imported_global_types: list[int] = []


def read_sections(data: bytes) -> Sections:
    """Read a whole module. Raises a ``ModuleRefused`` and nothing else, whatever ``data`` is."""
    _check_header(data)
    reader = Reader(data, 8, len(data))
    out = Sections()
    last = 0
    while reader.left:
        number = reader.byte()
        section = reader.part(reader.u32())
        if number == 0:  # custom: says nothing that a run depends on
            continue
        read, name, order = _section(number)
        if order <= last:
            raise ModuleMalformed(f"The {name} section is repeated or out of order.")
        last = order
        read(section, out)
        section.finish(f"the {name} section")
    if out.bodies != len(out.functions):
        raise ModuleMalformed(f"{len(out.functions)} functions have {out.bodies} bodies.")
    return out


def _check_header(data: bytes) -> None:
    if data[:4] != b"\0asm" or len(data) < 8:
        raise ModuleNotWasm
    version, layer = data[4:6], data[6:8]
    if layer == b"\1\0":
        raise ModuleIsComponent
    if version != b"\1\0" or layer != b"\0\0":
        raise ModuleNotWasm("The file has an unknown version of the WebAssembly format.")


def _section(number: int) -> tuple[Callable[[Reader, Sections], None], str, int]:
    if number == 13:
        raise ModuleUnsupportedFeature("The module declares exception tags.")
    if number not in _SECTIONS:
        raise ModuleMalformed(f"The module has a section of unknown number {number}.")
    return _SECTIONS[number]


def _types(reader: Reader, out: Sections) -> None:
    for _ in range(reader.count("types", MAX_TYPES)):
        form = reader.byte()
        if form != 0x60:
            raise ModuleUnsupportedFeature(f"The module has a type of form {form:#x}.")
        params = _value_types(reader, "parameters", MAX_PARAMS)
        out.types.append(FuncType(params, _value_types(reader, "results", MAX_RESULTS)))


def _value_types(reader: Reader, what: str, limit: int) -> bytes:
    values = reader.take(reader.count(what, limit))
    for value in values:
        _known_value(value)
    return values


def _known_value(value: int) -> int:
    if value not in VALUES:
        raise ModuleUnsupportedFeature(f"The module uses a value type {value:#x}.")
    return value


def _imports(reader: Reader, out: Sections) -> None:
    for _ in range(reader.count("imports", MAX_IMPORTS)):
        module, name = reader.name(MAX_NAME_BYTES), reader.name(MAX_NAME_BYTES)
        kind, type_index = reader.byte(), 0
        if kind == FUNCTION:
            type_index = _type_index(reader, out)
        elif kind == TABLE:
            _table_type(reader, reader.byte())
        elif kind == MEMORY:
            _memory_type(reader)
        elif kind == GLOBAL:
            out.imported_global_types.append(_global_type(reader))
        else:
            raise ModuleUnsupportedFeature(f"The module imports something of kind {kind}.")
        out.imports.append(Import(module, name, kind, type_index))


def _type_index(reader: Reader, out: Sections) -> int:
    index = reader.u32()
    if index >= len(out.types):
        raise ModuleMalformed(f"A function has type {index} of {len(out.types)}.")
    return index


def _functions(reader: Reader, out: Sections) -> None:
    for _ in range(reader.count("functions", MAX_FUNCTIONS)):
        out.functions.append(_type_index(reader, out))


def _tables(reader: Reader, _out: Sections) -> None:
    for _ in range(reader.count("tables", MAX_TABLES)):
        form = reader.byte()
        if form == 0x40:  # a table with an initial value for every element
            if reader.byte() != 0:
                raise ModuleMalformed("A table has an unknown form.")
            _table_type(reader, reader.byte())
            _constant(reader)
        else:
            _table_type(reader, form)


def _table_type(reader: Reader, element: int) -> None:
    if element not in (FUNCREF, EXTERNREF):
        raise ModuleUnsupportedFeature(f"A table holds references of type {element:#x}.")
    minimum = _limits(reader, 1 << 32, "table")[0]
    if minimum > MAX_TABLE_ELEMENTS:
        too_many("elements in a table", minimum, MAX_TABLE_ELEMENTS)


def _memories(reader: Reader, out: Sections) -> None:
    for _ in range(reader.count("memories", MAX_TABLES)):
        out.memories.append(_memory_type(reader))


def _memory_type(reader: Reader) -> MemoryLimits:
    minimum, maximum = _limits(reader, MAX_PAGES, "memory")
    return MemoryLimits(minimum, maximum)


def _limits(reader: Reader, most: int, what: str) -> tuple[int, int | None]:
    flags = reader.byte()
    if flags & 0x02:
        raise ModuleSharedMemory
    if flags & 0x04:
        raise ModuleMemory64
    if flags not in (0, 1):
        raise ModuleUnsupportedFeature(f"A {what} has unknown flags {flags:#x}.")
    minimum = reader.u32()
    maximum = reader.u32() if flags else None
    if minimum > most or (maximum is not None and not minimum <= maximum <= most):
        raise ModuleMalformed(f"A {what} has the limits {minimum} to {maximum}.")
    return minimum, maximum


def _globals(reader: Reader, out: Sections) -> None:
    for _ in range(reader.count("globals", MAX_GLOBALS)):
        out.global_types.append(_global_type(reader))
        _constant(reader)


def _global_type(reader: Reader) -> int:
    value = _known_value(reader.byte())
    if reader.byte() > 1:
        raise ModuleUnsupportedFeature("A global is neither constant nor variable.")
    return value


def _constant(reader: Reader) -> None:
    """Pass over a constant expression; whether its types fit is the compiler's to check."""
    while (op := reader.byte()) != 0x0B:
        if op in (0x41, 0x42):
            reader.skip_signed(32 if op == 0x41 else 64)
        elif op in (0x43, 0x44):
            reader.skip(4 if op == 0x43 else 8)
        elif op in (0x23, 0xD2):
            reader.u32()
        elif op == 0xD0:
            reader.byte()
        elif op == 0xFD:
            if reader.u32() != 12:
                raise ModuleMalformed("A constant uses an instruction that is not constant.")
            reader.skip(16)
        elif op not in (0x6A, 0x6B, 0x6C, 0x7C, 0x7D, 0x7E):
            raise ModuleUnsupportedFeature(f"A constant uses the instruction {op:#x}.")


def _exports(reader: Reader, out: Sections) -> None:
    seen: set[str] = set()
    for _ in range(reader.count("exports", MAX_EXPORTS)):
        name = reader.name(MAX_NAME_BYTES)
        kind, index = reader.byte(), reader.u32()
        if kind > GLOBAL:
            raise ModuleUnsupportedFeature(f"The export {name!r} is of kind {kind}.")
        if name in seen:
            raise ModuleMalformed(f"Two exports are called {name!r}.")
        seen.add(name)
        out.exports.append(Export(name, kind, index))


def _start(reader: Reader, out: Sections) -> None:
    out.start = reader.u32()


def _segments(reader: Reader, _out: Sections) -> None:
    reader.count("segments", MAX_SEGMENTS)
    reader.skip(reader.left)


def _data_count(reader: Reader, out: Sections) -> None:
    out.data_count = reader.u32()
    if out.data_count > MAX_SEGMENTS:
        too_many("segments", out.data_count, MAX_SEGMENTS)


def _code(reader: Reader, out: Sections) -> None:
    out.bodies = reader.count("function bodies", MAX_FUNCTIONS)
    total = 0
    for _ in range(out.bodies):
        total += _function_locals(reader.part(reader.u32()))
        if total > MAX_LOCALS:
            too_many("local variables", total, MAX_LOCALS)


def _function_locals(body: Reader) -> int:
    """How many locals one function declares: 16 KB can ask for 100 million of them."""
    total = 0
    for _ in range(body.count("groups of local variables", MAX_FUNCTION_LOCALS)):
        total += body.u32()
        _known_value(body.byte())
        if total > MAX_FUNCTION_LOCALS:
            too_many("local variables in one function", total, MAX_FUNCTION_LOCALS)
    return total


_SECTIONS: Final[dict[int, tuple[Callable[[Reader, Sections], None], str, int]]] = {
    1: (_types, "type", 1),
    2: (_imports, "import", 2),
    3: (_functions, "function", 3),
    4: (_tables, "table", 4),
    5: (_memories, "memory", 5),
    6: (_globals, "global", 6),
    7: (_exports, "export", 7),
    8: (_start, "start", 8),
    9: (_segments, "element", 9),
    12: (_data_count, "data count", 10),
    10: (_code, "code", 11),
    11: (_segments, "data", 12),
}
