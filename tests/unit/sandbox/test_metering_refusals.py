"""What the rewriter refuses, where it says so, and that nothing else ever comes out of it."""

from __future__ import annotations

import os

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from gstd.sandbox.errors import ModuleRefused, Place
from gstd.sandbox.metering import MeteringLimits, rewrite
from gstd.sandbox.metering.emit import u32
from tests.metered import PLAIN, wasm

HEAD = b"\0asm\1\0\0\0"
PREFIX = b"\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00"  # one function of type [] -> []
SCALE = int(os.environ.get("GSTD_TEST_SCALE", "1"))


def body(code: bytes) -> bytes:
    """A module of one function, whose first instruction stands at byte 23."""
    function = b"\x00" + code
    section = b"\x01" + u32(len(function)) + function
    return HEAD + PREFIX + b"\x0a" + u32(len(section)) + section


FEATURES = [
    (b"\xfe\x10\x02\x00\x0b", "threads"),
    (b"\x06\x40\x0b\x0b", "exceptions"),
    (b"\x08\x00\x0b", "exceptions"),
    (b"\x1f\x40\x00\x0b\x0b", "exceptions"),
    (b"\xfb\x00\x00\x0b", "garbage collection"),
    (b"\xd3\x0b", "garbage collection"),
    (b"\x12\x00\x0b", "tail calls"),
    (b"\x13\x00\x00\x0b", "tail calls"),
    (b"\x14\x00\x0b", "typed function references"),
    (b"\xd4\x0b", "typed function references"),
    (b"\xd0\x6e\x0b", "typed references"),
    (b"\xfd\x80\x02\x0b", "relaxed SIMD"),
    (b"\xfd\x9a\x01\x0b", "unknown instruction 0x29a"),
    (b"\xfc\x13\x0b", "wide arithmetic"),
    (b"\x28\x42\x01\x00\x0b", "multiple memories"),
    (b"\xe0\x00\x0b", "stack switching"),
    (b"\xff\x0b", "unknown instruction 0xff"),
    (b"\x02\x63\x00\x0b\x0b", "type 0x63"),
]


@pytest.mark.parametrize(("code", "reason"), FEATURES)
@pytest.mark.parametrize("before", [b"", b"\x01\x00"])
def test_features_are_refused_by_name_and_place(code: bytes, reason: str, before: bytes) -> None:
    with pytest.raises(ModuleRefused) as refused:
        rewrite(body(before + code))
    assert refused.value.code == "module_unsupported_feature"
    assert reason in refused.value.detail
    assert refused.value.advice
    place = refused.value.place
    assert place is not None
    assert place.function == 0
    assert place.offset in (23 + len(before), 24 + len(before))


def refusal(module: bytes, limits: MeteringLimits | None = None) -> tuple[str, Place | None]:
    with pytest.raises(ModuleRefused) as refused:
        rewrite(module, limits)
    return refused.value.code, refused.value.place


def test_malformed_functions_are_refused_with_their_place() -> None:
    assert refusal(body(b"\x0b\x0b")) == ("module_malformed", Place(0, 24))
    assert refusal(body(b"\x10\x07\x0b")) == ("module_malformed", Place(0, 23))
    assert refusal(body(b"\xfc\x0f\x00\x0b")) == ("module_malformed", Place(0, 23))
    assert refusal(body(b"\x02\x40\x0b"))[0] == "module_truncated"
    assert refusal(body(b"\x00\x02\x40\x0b"))[0] == "module_truncated"
    deep = b"\x02\x40" * 513 + b"\x0b" * 514
    assert refusal(body(deep))[0] == "module_limit_exceeded"
    rewrite(body(b"\x02\x40" * 512 + b"\x0b" * 513))


def test_sections_are_refused_with_a_reason() -> None:
    memories = HEAD + b"\x05\x05\x02\x00\x01\x00\x01"
    for module, code in (
        (b"\0asm\x0d\0\1\0", "module_is_component"),
        (HEAD + b"\x05\x04\x01\x03\x01\x01", "module_shared_memory"),
        (HEAD + b"\x05\x03\x01\x04\x01", "module_memory64"),
        (memories, "module_unsupported_feature"),
        (HEAD + b"\x0d\x03\x01\x00\x00", "module_unsupported_feature"),
        (HEAD + b"\x04\x09\x01\x40\x00\x70\x00\x01\xd0\x70\x0b", "module_unsupported_feature"),
        (wasm('(import "env" "memory" (memory 1))'), "module_unsupported_feature"),
        (wasm('(import "env" "g" (global i32))'), "module_unsupported_feature"),
        (HEAD + b"\x08\x01\x00", "module_malformed"),
    ):
        assert refusal(module)[0] == code
    assert refusal(wasm("(memory 5)"), MeteringLimits(max_pages=4))[0] == "module_memory_too_large"
    few = MeteringLimits(max_table_elements=4)
    assert refusal(wasm("(table 5 funcref)"), few)[0] == "module_limit_exceeded"


def test_a_metered_module_is_refused() -> None:
    once = rewrite(wasm("(func)"))
    assert refusal(once.wasm)[0] == "module_reserved_name"


def test_custom_sections_and_unreachable_code_are_dropped() -> None:
    plain = wasm("(func (result i32) (i32.const 1) (return))")
    custom = plain + b"\x00\x05\x04name"
    padded = wasm("(func (result i32) (i32.const 1) (return) (block (drop (i32.const 7))))")
    assert len({rewrite(module).wasm for module in (plain, custom, padded)}) == 1


RICH = wasm(
    """
    (type $pair (func (param i32) (result i32 f64)))
    (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
    (memory (export "memory") 1 9) (table 2 funcref) (table 1 7 externref) (elem (i32.const 0) 1)
    (global (mut v128) (v128.const i64x2 0 0))
    (func $a (type $pair)
        (local f32 v128 externref)
        (loop $l (result i32 f64)
            (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))
            (local.set 1 (f32.mul (local.get 1) (f32.sqrt (local.get 1))))
            (local.set 2 (f32x4.add (local.get 2) (v128.load (local.get 0))))
            (drop (table.grow 1 (local.get 3) (i32.const 1)))
            (memory.fill (i32.const 0) (i32.const 1) (memory.grow (local.get 0)))
            (call_indirect 0 (type $pair) (local.get 0) (i32.const 0))))
    (func (export "_start") (drop) (drop) (block (result i32 f64) (call $a (i32.const 3)))
        (drop) (drop) (return) (br_table 0 0 (i32.const 1)))
    (start 2) (data "abc")
""".replace('(export "_start") (drop) (drop)', '(export "_start")')
)


@settings(max_examples=400 * SCALE, deadline=None)
@given(
    st.lists(st.tuples(st.integers(8, len(RICH) - 1), st.integers(0, 255)), max_size=4),
    st.none() | st.integers(8, len(RICH)),
)
def test_mutated_modules_are_refused_or_stay_valid(
    changes: list[tuple[int, int]], cut: int | None
) -> None:
    mutant = bytearray(RICH)
    for position, value in changes:
        mutant[position] = value
    module = bytes(mutant[:cut])
    try:
        wasmtime.Module.validate(PLAIN, module)
        valid = True
    except wasmtime.WasmtimeError:
        valid = False
    try:
        metered = rewrite(module)
    except ModuleRefused:
        return
    assert metered == rewrite(module)
    if valid:
        wasmtime.Module.validate(PLAIN, metered.wasm)
