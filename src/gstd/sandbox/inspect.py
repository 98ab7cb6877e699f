"""Decides from a module's bytes alone whether it is accepted, and says what it needs.

Runs no foreign code: wasmtime's own reading of types can abort the process on hostile modules,
so nothing here asks it.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from gstd.sandbox.errors import (
    ModuleBadExportSignature,
    ModuleForbiddenImport,
    ModuleIsBindgen,
    ModuleIsEmscripten,
    ModuleIsReactor,
    ModuleMalformed,
    ModuleMemoryTooLarge,
    ModuleNoMemory,
    ModuleNoStart,
    ModuleTooLarge,
    ModuleUnsupportedFeature,
)
from gstd.sandbox.sections import (
    FUNCTION,
    GLOBAL,
    MAX_PAGES,
    MEMORY,
    NUMBERS,
    Export,
    FuncType,
    Import,
    Sections,
    read_sections,
)
from gstd.sandbox.wasi import FUNCTIONS, WASI_MODULE

PAGE_BYTES: Final = 65_536
MAX_MODULE_BYTES: Final = 32 << 20
MAX_MEMORY_BYTES: Final = MAX_PAGES * PAGE_BYTES

_EMSCRIPTEN_NAMES: Final = ("emscripten_", "_emscripten", "invoke_", "__syscall_", "__cxa_", "_emb")
_BINDGEN_MODULES: Final = ("wbg", "__wbindgen", "rb-js-abi-host")
_VALUE_BYTES: Final = {"i": 0x7F, "I": 0x7E}


class ModuleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What an accepted module is. Pages have 65 536 bytes; imports read ``module.name``."""

    sha256: str
    size: int
    imports: tuple[str, ...]
    exports: tuple[str, ...]
    memory_min_pages: int
    memory_max_pages: int | None
    functions: int
    has_start: bool


def inspect_module(
    data: bytes,
    *,
    max_bytes: int = MAX_MODULE_BYTES,
    max_memory_bytes: int = MAX_MEMORY_BYTES,
) -> ModuleInfo:
    """Read and judge a module. Raises a subclass of ``ModuleRefused`` and nothing else.

    ``max_memory_bytes`` bounds the memory a module starts with; what it may grow to is bounded
    by the limits of each run. That the instructions are valid is left to the compiler.
    """
    if len(data) > max_bytes:
        raise ModuleTooLarge(f"The module has {len(data)} bytes; at most {max_bytes} are accepted.")
    found = read_sections(data)
    for item in found.imports:
        _check_import(item, found)
    _check_exports(found)
    memory = _check_memory(found, max_memory_bytes)
    _check_start(found)
    return ModuleInfo(
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        imports=tuple(f"{item.module}.{item.name}" for item in found.imports),
        exports=tuple(item.name for item in found.exports),
        memory_min_pages=memory[0],
        memory_max_pages=memory[1],
        functions=len(found.functions),
        has_start=found.start is not None,
    )


def _check_import(item: Import, found: Sections) -> None:
    full = f"{item.module}.{item.name}"
    if item.module == "a" or (item.module == "env" and item.name.startswith(_EMSCRIPTEN_NAMES)):
        raise ModuleIsEmscripten(f"The module imports {full!r}, which Emscripten's glue provides.")
    if item.module.startswith(_BINDGEN_MODULES):
        raise ModuleIsBindgen(f"The module imports {full!r}, which JavaScript glue provides.")
    if item.module != WASI_MODULE or item.kind != FUNCTION or item.name not in FUNCTIONS:
        raise ModuleForbiddenImport(f"The module imports {full!r}.")
    params, results = FUNCTIONS[item.name]
    wanted = FuncType(_value_bytes(params), _value_bytes(results))
    if found.types[item.type_index] != wanted:
        raise ModuleForbiddenImport(f"The module imports {full!r} with another signature.")


def _value_bytes(letters: str) -> bytes:
    return bytes(_VALUE_BYTES[letter] for letter in letters)


def _function_type(found: Sections, index: int) -> FuncType:
    imported = [item.type_index for item in found.imports if item.kind == FUNCTION]
    if index < len(imported):
        return found.types[imported[index]]
    if index - len(imported) >= len(found.functions):
        raise ModuleMalformed(f"Function {index} is named but does not exist.")
    return found.types[found.functions[index - len(imported)]]


def _check_exports(found: Sections) -> None:
    global_types = found.imported_global_types + found.global_types
    for item in found.exports:
        if item.kind == FUNCTION:
            kind = _function_type(found, item.index)
            values = set(kind.params + kind.results)
        elif item.kind == GLOBAL:
            if item.index >= len(global_types):
                raise ModuleMalformed(f"The export {item.name!r} names no global.")
            values = {global_types[item.index]}
        else:
            continue
        if not values <= NUMBERS:
            raise ModuleBadExportSignature(
                f"The export {item.name!r} uses a type other than i32, i64, f32 and f64."
            )


def _find(found: Sections, name: str, kind: int) -> Export | None:
    return next((e for e in found.exports if e.name == name and e.kind == kind), None)


def _check_memory(found: Sections, max_memory_bytes: int) -> tuple[int, int | None]:
    if len(found.memories) > 1:
        raise ModuleUnsupportedFeature(f"The module has {len(found.memories)} memories.")
    exported = _find(found, "memory", MEMORY)
    if not found.memories or exported is None:
        raise ModuleNoMemory
    if exported.index != 0:
        raise ModuleMalformed("The export 'memory' names no memory.")
    memory = found.memories[0]
    if memory.min_pages * PAGE_BYTES > max_memory_bytes:
        raise ModuleMemoryTooLarge(
            f"The module starts with {memory.min_pages * PAGE_BYTES} bytes of memory; "
            f"at most {max_memory_bytes} are allowed."
        )
    return memory.min_pages, memory.max_pages


def _check_start(found: Sections) -> None:
    if found.start is not None and _function_type(found, found.start) != FuncType(b"", b""):
        raise ModuleMalformed("The start function has parameters or results.")
    exported = _find(found, "_start", FUNCTION)
    if exported is None:
        if _find(found, "_initialize", FUNCTION) is not None:
            raise ModuleIsReactor
        raise ModuleNoStart
    if _function_type(found, exported.index) != FuncType(b"", b""):
        raise ModuleNoStart("The export '_start' has parameters or results.")
