"""Inspection accepts WASI commands and refuses everything else by name."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from gstd.sandbox import errors
from gstd.sandbox.binary import Reader
from gstd.sandbox.inspect import inspect_module

MANDELBROT = Path(__file__).parents[3] / "examples/mandelbrot/mandelbrot.wasm"

MEMORY = '(memory (export "memory") 1)'
START = '(func (export "_start"))'
CLOCK = '(import "wasi_snapshot_preview1" "clock_time_get" (func (param {}) (result i32)))'


def wasm(body: str) -> bytes:
    return bytes(wasmtime.wat2wasm(f"(module {body})"))


RICH = wasm(f"""
    {CLOCK.format("i32 i64 i32")}
    (type $t (func (param i32 f64) (result i64)))
    {MEMORY} {START}
    (table 3 10 funcref) (elem (i32.const 0) $f $f)
    (global (mut i32) (i32.add (i32.const 5) (i32.const -7)))
    (global f64 (f64.const 1.5)) (global v128 (v128.const i64x2 1 2))
    (global funcref (ref.func $f)) (global externref (ref.null extern))
    (func $f (local i32 i64 i64)) (start $f)
    (data (i32.const 8) "hello") (data "passive")
    (func (memory.init 1 (i32.const 0) (i32.const 0) (i32.const 1)))
""")


def test_tells_what_a_module_is() -> None:
    info = inspect_module(RICH)
    assert info.imports == ("wasi_snapshot_preview1.clock_time_get",)
    assert info.exports == ("memory", "_start")
    assert (info.memory_min_pages, info.memory_max_pages) == (1, None)
    assert (info.functions, info.has_start, info.size) == (3, True, len(RICH))
    assert re.fullmatch(r"[0-9a-f]{64}", info.sha256)


def test_accepts_the_example() -> None:
    info = inspect_module(MANDELBROT.read_bytes())
    assert "wasi_snapshot_preview1.fd_write" in info.imports


def section(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes((number, len(content))) + content


HEAD = b"\0asm\1\0\0\0"

REFUSED: list[tuple[str, bytes]] = [
    ("module_not_wasm", b""),
    ("module_not_wasm", b"\x7fELF\2\1\1\0"),
    ("module_not_wasm", b"(module)"),
    ("module_not_wasm", b"\0asm\2\0\0\0"),
    ("module_is_component", b"\0asm\x0d\0\1\0"),
    ("module_truncated", RICH[:-3]),
    ("module_truncated", HEAD + b"\1\xff\xff\xff\xff\x0f"),
    ("module_truncated", HEAD + section(1, b"\x05")),
    ("module_malformed", HEAD + b"\1\xff\xff\xff\xff\xff\x0f"),
    ("module_malformed", HEAD + b"\1\xff\xff\xff\xff\x1f"),
    ("module_malformed", HEAD + section(14, b"")),
    ("module_malformed", HEAD + section(3, b"\1\0")),
    ("module_malformed", HEAD + section(1, b"\0") + section(1, b"\0")),
    ("module_malformed", HEAD + section(2, b"\0") + section(1, b"\0")),
    ("module_malformed", HEAD + section(1, b"\0\0")),
    ("module_malformed", HEAD + section(1, b"\1\x60\0\0") + section(3, b"\1\0")),
    ("module_malformed", HEAD + section(5, b"\1\1\2\1")),
    ("module_malformed", HEAD + section(7, b"\2\1a\2\0\1a\2\0")),
    ("module_malformed", HEAD + section(7, b"\1\1\xff\2\0")),
    ("module_limit_exceeded", HEAD + section(1, b"\xff\xff\x7f")),
    ("module_limit_exceeded", HEAD + section(3, b"\xff\xff\x7f")),
    ("module_limit_exceeded", HEAD + section(7, b"\xff\xff\x7f")),
    ("module_limit_exceeded", HEAD + section(10, b"\1\x08\1\xc0\x84\x3d\x7e\0\0\0")),
    ("module_unsupported_feature", HEAD + section(13, b"\0")),
    ("module_unsupported_feature", HEAD + section(1, b"\1\x5f\0")),
    ("module_unsupported_feature", HEAD + section(1, b"\1\x60\1\x69\0")),
    ("module_unsupported_feature", wasm(f"{MEMORY} (memory 1) {START}")),
    ("module_limit_exceeded", wasm(f"{MEMORY} {START} (table 70000 funcref)")),
    ("module_forbidden_import", wasm(f'(import "env" "f" (func)) {MEMORY} {START}')),
    ("module_forbidden_import", wasm(f'(import "env" "m" (memory 1)) {START}')),
    ("module_forbidden_import", wasm(f'(import "env" "g" (global v128)) {MEMORY} {START}')),
    ("module_forbidden_import", wasm(f'(import "env" "t" (table 1 funcref)) {MEMORY} {START}')),
    ("module_forbidden_import", wasm(CLOCK.format("i32 i32 i32") + MEMORY + START)),
    (
        "module_forbidden_import",
        wasm(f'(import "wasi_snapshot_preview1" "nope" (func)) {MEMORY} {START}'),
    ),
    ("module_is_emscripten", wasm(f'(import "a" "b" (func)) {MEMORY} {START}')),
    ("module_is_emscripten", wasm(f'(import "env" "emscripten_x" (func)) {MEMORY} {START}')),
    ("module_is_bindgen", wasm(f'(import "wbg" "x" (func)) {MEMORY} {START}')),
    ("module_is_reactor", wasm(f'{MEMORY} (func (export "_initialize"))')),
    ("module_no_start", wasm(MEMORY)),
    ("module_no_start", wasm(f'{MEMORY} (func (export "_start") (param i32))')),
    ("module_no_start", wasm(f'{MEMORY} (global (export "_start") i32 (i32.const 0))')),
    ("module_no_memory", wasm(START)),
    ("module_no_memory", wasm(f"(memory 1) {START}")),
    ("module_memory_too_large", wasm(f'(memory (export "memory") 4097) {START}')),
    ("module_shared_memory", wasm(f'(memory (export "memory") 1 2 shared) {START}')),
    ("module_memory64", wasm(f'(memory (export "memory") i64 1) {START}')),
    (
        "module_bad_export_signature",
        wasm(f'{MEMORY} {START} (func (export "v") (param v128))'),
    ),
    (
        "module_bad_export_signature",
        wasm(f'{MEMORY} {START} (func (export "r") (result externref) (ref.null extern))'),
    ),
    (
        "module_bad_export_signature",
        wasm(f'{MEMORY} {START} (global (export "g") v128 (v128.const i64x2 0 0))'),
    ),
]


@pytest.mark.parametrize(
    ("code", "data"), REFUSED, ids=[f"{c}-{i}" for i, (c, _) in enumerate(REFUSED)]
)
def test_refuses_by_name(code: str, data: bytes) -> None:
    with pytest.raises(errors.ModuleRefused) as refused:
        inspect_module(data, max_memory_bytes=256 << 20)
    assert refused.value.code == code
    assert refused.value.status == 422
    assert refused.value.detail
    assert refused.value.advice


def test_refuses_large_files_unread() -> None:
    with pytest.raises(errors.ModuleTooLarge) as refused:
        inspect_module(b"anything", max_bytes=7)
    assert refused.value.status == 413


def test_every_refusal_has_its_own_code_and_hint() -> None:
    kinds = errors.REFUSALS.values()
    assert all(kind.code == code for code, kind in errors.REFUSALS.items())
    assert len({kind.hint for kind in kinds}) >= len(errors.REFUSALS) - 1


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_mutated_modules_are_judged_and_never_crash_the_parser(data: st.DataObject) -> None:
    module = bytearray(RICH)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(module) - 1))
        if data.draw(st.booleans()):
            module[at] = data.draw(st.integers(0, 255))
        else:
            module[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))
        if not module:
            break
    with contextlib.suppress(errors.ModuleRefused):
        inspect_module(bytes(module))


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_random_sections_never_crash_the_parser(tail: bytes) -> None:
    with pytest.raises(errors.ModuleRefused):
        inspect_module(HEAD + tail)


@given(st.integers(0, 2**32 - 1), st.integers(0, 4))
def test_reads_every_u32_in_any_accepted_length(value: int, padding: int) -> None:
    groups = [value >> shift & 0x7F for shift in range(0, 35, 7)]
    while len(groups) > 1 and groups[-1] == 0 and len(groups) > padding + 1:
        groups.pop()
    encoded = bytes(g | 0x80 for g in groups[:-1]) + bytes(groups[-1:])
    assert Reader(encoded, 0, len(encoded)).u32() == value
