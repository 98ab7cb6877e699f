"""The public function: one module in, the metered module and what it is out."""

from __future__ import annotations

import hashlib

import msgspec

from gstd.sandbox.binary import Reader
from gstd.sandbox.errors import ModuleMalformed
from gstd.sandbox.metering.body import rewrite_body
from gstd.sandbox.metering.costs import COST_TABLE, DEPTH_WORDS, METERING
from gstd.sandbox.metering.emit import i32_const, i64_const, u32
from gstd.sandbox.metering.layout import (
    CODE,
    EXPORTS,
    GLOBALS,
    MEMORIES,
    ORDER,
    TABLES,
    TYPES,
    Layout,
    MeteringLimits,
    append,
    assemble,
    exported,
    lay_out,
    split,
)
from gstd.sandbox.sections import FUNCTION, GLOBAL, I32, I64, FuncType, Sections, read_sections

_END = b"\x0b"


class Metered(msgspec.Struct, frozen=True, kw_only=True):
    """A metered module and its facts. Pages have 65 536 bytes; hashes are SHA-256 in hex."""

    wasm: bytes
    sha256: str
    original_sha256: str
    metering: str
    cost_table: str
    imports: tuple[str, ...]
    exports: tuple[str, ...]
    functions: int
    memory_min_pages: int
    memory_max_pages: int
    table_max_elements: tuple[int, ...]
    has_start: bool


def rewrite(module: bytes, limits: MeteringLimits | None = None) -> Metered:
    """Meter a valid module: the same bytes out for the same bytes in, everywhere.

    Raises a ``ModuleRefused`` and nothing else, whatever ``module`` is. Instructions are decoded,
    not validated: the caller validates ``module`` first, because what is dropped (custom
    sections, unreachable code) may hide a fault.
    """
    limits = limits or MeteringLimits()
    sections = read_sections(module)
    layout = lay_out(module, sections, limits)
    where = split(module)
    contents = {number: module[slice(*where[number])] for number in ORDER if number in where}
    if CODE in where:
        contents[CODE] = _code(module, where[CODE], sections, layout)
    _rewrite_declarations(contents, sections, layout)
    return _metered(module, assemble(contents), sections, layout)


def _code(module: bytes, where: tuple[int, int], sections: Sections, layout: Layout) -> bytes:
    reader = Reader(module, *where)
    bodies = [u32(reader.u32())]
    imported = len(sections.imports)
    for number, type_index in enumerate(sections.functions):
        part = reader.part(reader.u32())
        begin, end = part.position, part.position + part.left
        kind = sections.types[type_index]
        body = rewrite_body(module, (begin, end), imported + number, kind, layout)
        bodies += (u32(len(body)), body)
    return b"".join(bodies)


def _rewrite_declarations(contents: dict[int, bytes], sections: Sections, layout: Layout) -> None:
    if layout.block_types:
        added = [b"\x60\x00" + u32(len(results)) + results for results in layout.block_types]
        contents[TYPES] = append(contents.get(TYPES), added)
    if layout.tables:
        tables = (_limited(bytes((t.element,)), t.minimum, t.maximum) for t in layout.tables)
        contents[TABLES] = u32(len(layout.tables)) + b"".join(tables)
    for memory in sections.memories:
        contents[MEMORIES] = u32(1) + _limited(b"", memory.min_pages, layout.max_pages)
    fuel = bytes((I64, 1)) + i64_const(0) + _END
    depth = bytes((I32, 1)) + i32_const(DEPTH_WORDS) + _END
    contents[GLOBALS] = append(contents.get(GLOBALS), [fuel, depth])
    names = [
        exported("gstd_fuel", GLOBAL, layout.fuel),
        exported("gstd_depth", GLOBAL, layout.depth),
    ]
    if sections.start is not None:
        _check_start(sections, layout)
        names.append(exported("gstd_start", FUNCTION, sections.start))
    contents[EXPORTS] = append(contents.get(EXPORTS), names)


def _check_start(sections: Sections, layout: Layout) -> None:
    start = sections.start or 0
    if start >= len(layout.functions):
        raise ModuleMalformed(f"The start function {start} does not exist.")
    if sections.types[layout.functions[start]] != FuncType(b"", b""):
        raise ModuleMalformed("The start function has parameters or results.")


def _limited(head: bytes, minimum: int, maximum: int) -> bytes:
    return head + b"\x01" + u32(minimum) + u32(maximum)


def _metered(module: bytes, wasm: bytes, sections: Sections, layout: Layout) -> Metered:
    return Metered(
        wasm=wasm,
        sha256=hashlib.sha256(wasm).hexdigest(),
        original_sha256=hashlib.sha256(module).hexdigest(),
        metering=METERING,
        cost_table=COST_TABLE,
        imports=tuple(f"{item.module}.{item.name}" for item in sections.imports),
        exports=tuple(item.name for item in sections.exports),
        functions=len(sections.functions),
        memory_min_pages=sections.memories[0].min_pages if sections.memories else 0,
        memory_max_pages=layout.max_pages,
        table_max_elements=tuple(table.maximum for table in layout.tables),
        has_start=sections.start is not None,
    )
