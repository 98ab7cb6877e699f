"""Takes a module apart into its sections and puts it together again, metered."""

from __future__ import annotations

from typing import Final

import msgspec

from gstd.sandbox.binary import Reader, too_many
from gstd.sandbox.errors import (
    ModuleMemoryTooLarge,
    ModuleReservedName,
    ModuleUnsupportedFeature,
)
from gstd.sandbox.metering.decode import Arity
from gstd.sandbox.metering.emit import u32
from gstd.sandbox.sections import FUNCTION, MAX_TABLES, FuncType, Sections

ORDER: Final[tuple[int, ...]] = (1, 2, 3, 4, 5, 6, 7, 9, 12, 10, 11)
"""Sections of a metered module in their order: no custom ones (0), no start (8)."""

TYPES, TABLES, MEMORIES, GLOBALS, EXPORTS, CODE = 1, 4, 5, 6, 7, 10
RESERVED: Final = "gstd_"


class MeteringLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a metered module may grow to; they are written into it."""

    max_pages: int = 4_096
    max_table_elements: int = 65_536


class TableType(msgspec.Struct, frozen=True):
    """``maximum`` is what the metered module declares."""

    element: int
    minimum: int
    maximum: int


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What rewriting a function needs to know of its module."""

    arities: list[Arity]
    functions: list[int]
    tables: list[TableType]
    max_pages: int
    fuel: int
    depth: int
    types: list[FuncType]
    block_types: dict[bytes, int]
    """Types made for blocks with several results, by the results."""

    def block_type(self, results: bytes) -> bytes:
        """The type of a block without parameters."""
        if len(results) < 2:
            return results or b"\x40"
        index = self.block_types.setdefault(results, len(self.types) + len(self.block_types))
        return signed_index(index)


def signed_index(index: int) -> bytes:
    """A type index as a block type: a signed LEB128, so that bit 6 of its end stays clear."""
    out = bytearray()
    while index > 0x3F:
        out.append(index & 0x7F | 0x80)
        index >>= 7
    out.append(index)
    return bytes(out)


def split(data: bytes) -> dict[int, tuple[int, int]]:
    """Where the contents of each section begin and end. ``data`` has passed ``read_sections``."""
    reader = Reader(data, 8, len(data))
    found: dict[int, tuple[int, int]] = {}
    while reader.left:
        number = reader.byte()
        section = reader.part(reader.u32())
        found[number] = (section.position, reader.position)
    return found


def lay_out(data: bytes, sections: Sections, limits: MeteringLimits) -> Layout:
    """Check what metering refuses outside functions."""
    _check_names(sections)
    imported = [item.type_index for item in sections.imports]
    globals_before = len(sections.global_types)
    where = split(data).get(TABLES)
    return Layout(
        arities=[(len(kind.params), len(kind.results)) for kind in sections.types],
        functions=imported + sections.functions,
        tables=_tables(Reader(data, *where), limits) if where else [],
        max_pages=_max_pages(sections, limits),
        fuel=globals_before,
        depth=globals_before + 1,
        types=sections.types,
        block_types={},
    )


def _check_names(sections: Sections) -> None:
    for item in sections.imports:
        if item.kind != FUNCTION:
            raise ModuleUnsupportedFeature(
                f"The module imports {item.module}.{item.name}, which is not a function."
            )
    names = [name for item in sections.imports for name in (item.module, item.name)]
    for name in (*names, *(item.name for item in sections.exports)):
        if name.startswith(RESERVED):
            raise ModuleReservedName(f"The module imports or exports the name {name!r}.")


def _max_pages(sections: Sections, limits: MeteringLimits) -> int:
    if len(sections.memories) > 1:
        raise ModuleUnsupportedFeature(f"The module has {len(sections.memories)} memories.")
    if not sections.memories:
        return 0
    memory = sections.memories[0]
    if memory.min_pages > limits.max_pages:
        raise ModuleMemoryTooLarge(
            f"The module starts with {memory.min_pages} pages of memory; "
            f"at most {limits.max_pages} are allowed."
        )
    declared = limits.max_pages if memory.max_pages is None else memory.max_pages
    return min(declared, limits.max_pages)


def _tables(reader: Reader, limits: MeteringLimits) -> list[TableType]:
    found = []
    for _ in range(reader.count("tables", MAX_TABLES)):
        element = reader.byte()
        if element == 0x40:
            raise ModuleUnsupportedFeature("A table has an initial value (typed references).")
        bounded, minimum = reader.byte(), reader.u32()
        declared = reader.u32() if bounded else limits.max_table_elements
        if minimum > limits.max_table_elements:
            too_many("elements in a table", minimum, limits.max_table_elements)
        found.append(TableType(element, minimum, min(declared, limits.max_table_elements)))
    return found


def assemble(contents: dict[int, bytes]) -> bytes:
    """A module of these sections."""
    parts = [b"\0asm\1\0\0\0"]
    for number in ORDER:
        if number in contents:
            parts += (bytes((number,)), u32(len(contents[number])), contents[number])
    return b"".join(parts)


def append(content: bytes | None, items: list[bytes]) -> bytes:
    """A section's vector with ``items`` at its end."""
    reader = Reader(content or b"\0", 0, len(content or b"\0"))
    count = reader.u32()
    rest = reader.take(reader.left)
    return u32(count + len(items)) + rest + b"".join(items)


def exported(name: str, kind: int, index: int) -> bytes:
    """An entry of the export section."""
    text = name.encode()
    return u32(len(text)) + text + bytes((kind,)) + u32(index)
