"""Why a module is refused, and why a run ended without an outcome."""

from __future__ import annotations

import msgspec

from gstd.kernel.errors import GstdError


class Place(msgspec.Struct, frozen=True):
    """Where in a module: the index of a function, imports first, and a byte of the file."""

    function: int
    offset: int


class ModuleRefused(GstdError):  # noqa: N818 - its subclasses read as what the module is
    """The module cannot be accepted."""

    code = "module_refused"
    status = 422
    hint = "Build a WASI preview 1 command: clang --target=wasm32-wasi, or Rust's wasm32-wasip1."
    place: Place | None = None


class ModuleTooLarge(ModuleRefused):
    """The module has more bytes than are accepted."""

    code = "module_too_large"
    status = 413
    hint = "Strip it (-Wl,--strip-all, wasm-opt -Oz) and move data into the task's input."


class ModuleNotWasm(ModuleRefused):
    """The file is not a WebAssembly module."""

    code = "module_not_wasm"
    hint = "Upload the binary .wasm file itself: not text (.wat), not an archive, not a script."


class ModuleIsComponent(ModuleRefused):
    """The file is a component, not a core module."""

    code = "module_is_component"
    hint = "Build for wasm32-wasip1 (preview 1), or use `wasm-tools component unbundle`."


class ModuleMalformed(ModuleRefused):
    """The module breaks the WebAssembly binary format."""

    code = "module_malformed"
    hint = "Build it again and compare the SHA-256 of both files; validate with `wasm-validate`."


class ModuleTruncated(ModuleMalformed):
    """The module ends before its contents do."""

    code = "module_truncated"
    hint = "Upload the whole file again: part of it is missing."


class ModuleUnsupportedFeature(ModuleRefused):
    """The module uses a WebAssembly proposal that is not allowed here."""

    code = "module_unsupported_feature"
    hint = "Build without threads, exceptions, GC, tail calls, relaxed SIMD and memory64."


class ModuleForbiddenImport(ModuleRefused):
    """The module imports something other than WASI preview 1 functions."""

    code = "module_forbidden_import"
    hint = "Import functions of wasi_snapshot_preview1 only, with their exact signatures."


class ModuleIsEmscripten(ModuleForbiddenImport):
    """The module was built by Emscripten and needs its JavaScript."""

    code = "module_is_emscripten"
    hint = "Build with clang --target=wasm32-wasi (wasi-libc) or `emcc -sSTANDALONE_WASM`."


class ModuleIsBindgen(ModuleForbiddenImport):
    """The module was built by wasm-bindgen and needs its JavaScript."""

    code = "module_is_bindgen"
    hint = "Build a program with `cargo build --target wasm32-wasip1`, without wasm-bindgen."


class ModuleIsReactor(ModuleRefused):
    """The module is a WASI reactor (a library), not a command."""

    code = "module_is_reactor"
    hint = "Build a command with a main function: drop -mexec-model=reactor or --no-entry."


class ModuleNoStart(ModuleRefused):
    """The module does not export a function `_start` without parameters and results."""

    code = "module_no_start"
    hint = "Build a WASI command: a program with a main function for wasm32-wasip1."


class ModuleNoMemory(ModuleRefused):
    """The module does not define one memory and export it as `memory`."""

    code = "module_no_memory"
    hint = "Let the module define its memory and export it by the name `memory`."


class ModuleMemoryTooLarge(ModuleRefused):
    """The module starts with more memory than it may have."""

    code = "module_memory_too_large"
    hint = "Lower -Wl,--initial-memory, or raise the memory limit of the job."


class ModuleSharedMemory(ModuleRefused):
    """The module uses shared memory (threads)."""

    code = "module_shared_memory"
    hint = "Build without -pthread and -matomics: a task is one thread; split work into tasks."


class ModuleMemory64(ModuleRefused):
    """The module uses 64-bit memory or tables."""

    code = "module_memory64"
    hint = "Build for wasm32 instead of wasm64."


class ModuleBadExportSignature(ModuleRefused):
    """An export has a type other than i32, i64, f32 and f64."""

    code = "module_bad_export_signature"
    hint = "Do not export functions or globals that use v128 or references; _start is enough."


class ModuleLimitExceeded(ModuleRefused):
    """The module has more of something than is accepted."""

    code = "module_limit_exceeded"
    hint = "Split the program, strip unused code, and export only _start and memory."


class ModuleReservedName(ModuleRefused):
    """The module uses a name that begins with ``gstd_``, which metering reserves."""

    code = "module_reserved_name"
    hint = "Upload the module as its compiler made it, not one that is metered already."


class ModuleDoesNotCompile(ModuleRefused):
    """The module is not valid or cannot be compiled within the limits."""

    code = "module_does_not_compile"
    hint = "Validate it with `wasm-validate`; very large or deeply nested functions take too long."


class RunFailed(GstdError):  # noqa: N818 - its subclasses read as what happened
    """The run ended without an outcome, for a reason that says nothing about the module."""

    code = "run_failed"
    status = 503


class HostFault(RunFailed):
    """The machine failed the run, for example by refusing memory."""

    code = "host_fault"
    hint = "Let another device run the task."


class WallClockExceeded(RunFailed):
    """The run took longer than its wall clock allows."""

    code = "wall_clock"
    status = 504
    hint = "Let a faster device run the task, or split it into smaller ones."


def _all_refusals() -> dict[str, type[ModuleRefused]]:
    found: list[type[ModuleRefused]] = [ModuleRefused]
    for kind in found:
        found.extend(kind.__subclasses__())
    return {kind.code: kind for kind in found}


REFUSALS = _all_refusals()
"""Every refusal by its code: children report codes, the parent raises classes."""
