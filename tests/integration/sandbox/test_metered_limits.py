"""Fuel, depth, growth and NaNs of a metered module, as a host sees them."""

from __future__ import annotations

import hashlib
import random
import struct
from pathlib import Path

import pytest
import wasmtime

from gstd.sandbox.metering import MeteringLimits, rewrite
from gstd.sandbox.metering.costs import DEPTH_WORDS
from tests.metered import PLENTY, Instance, engine, metered, used, wasm

MANDELBROT = Path(__file__).parents[3] / "examples/mandelbrot/mandelbrot.wasm"
MEMORY = '(memory (export "memory") 1 4)'
EXPORT = '(func (export "f")'
LOOP = f"""{MEMORY} (func $fill (param i32) (local $n i32)
        (loop $l
            (i32.store8 (local.get $n) (i32.xor (local.get 0) (local.get $n)))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $n) (i32.const 60)))))
    {EXPORT} (local $k i32)
        (loop $l
            (call $fill (local.get $k))
            (memory.copy (local.get $k) (i32.const 16) (i32.const 40))
            (local.set $k (i32.add (local.get $k) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $k) (i32.const 20)))))"""

FIGURES = [
    (f"{EXPORT})", (), 1),
    (f"{EXPORT} (local i64 v128 f64))", (), 2),
    (f"{EXPORT} (drop (i32.add (i32.const 1) (i32.const 2))))", (), 4),
    (f"{EXPORT} (drop (i32.div_u (i32.const 1) (i32.const 2))))", (), 11),
    (f"{EXPORT} (return) (drop (i32.const 1)))", (), 2),
    (f"{EXPORT} (call $g)) (func $g)", (), 6),
    (f"{EXPORT} (param i32) (if (local.get 0) (then (nop)) (else (drop (i32.const 1)))))", (0,), 4),
    (f"{EXPORT} (param i32) (if (local.get 0) (then (nop)) (else (drop (i32.const 1)))))", (1,), 3),
    (f"{MEMORY} {EXPORT} (drop (memory.grow (i32.const 2))))", (), 66 + 2 * 8192),
    (f"{MEMORY} {EXPORT} (drop (memory.grow (i32.const 4))))", (), 66),
    (
        f"{MEMORY} {EXPORT} (memory.fill (i32.const 0) (i32.const 1) (i32.const 100)))",
        (),
        20 + 12,
    ),
    (
        f"(table 1 9 funcref) {EXPORT} (drop (table.grow (ref.null func) (i32.const 5))))",
        (),
        67 + 10,
    ),
    (LOOP, (), 16_361),
]


@pytest.mark.parametrize(("body", "args", "fuel"), FIGURES)
def test_fuel_figures_are_fixed(body: str, args: tuple[int, ...], fuel: int) -> None:
    assert used(body, *args) == fuel


def test_bytes_are_fixed() -> None:
    rewritten = rewrite(wasm(LOOP)).wasm
    assert hashlib.sha256(rewritten).hexdigest() == (
        "a28230cb4e46ec30ed5f583ff980f1bb9dd2b69bce9877bc907fdb7b273e4dbf"
    )


def test_any_fuel_limit_stops_once_with_one_memory() -> None:
    module = rewrite(wasm(LOOP)).wasm
    needed = used(LOOP)
    other = engine(cranelift_opt_level="none")
    cuts = random.Random(7).sample(range(needed), 60)  # noqa: S311 - wants the same cuts always
    for fuel in (0, 1, needed - 1, *cuts):
        ends = set()
        for on in (engine(), other):
            instance = Instance(module, on)
            instance.fuel = fuel
            assert instance.status(instance.call("f")) == "out_of_fuel"
            ends.add((instance.fuel, instance.memory()))
            assert instance.call("f") == "trap"
        assert len(ends) == 1
    exact = metered(wasm(LOOP), needed)
    assert exact.status(exact.call("f")) == "ok"
    assert exact.fuel == 0


def test_a_trap_tells_the_fuel_of_its_charge_block() -> None:
    body = f"""{MEMORY} {EXPORT} (param i32) (local i32)
        (loop $l
            (local.set 1 (i32.add (local.get 1) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get 1) (i32.const 50))))
        {{}})"""
    for end in ("(unreachable)", "(drop (i32.load (i32.const -4)))"):
        instance = metered(wasm(body.format(end)))
        assert instance.status(instance.call("f", 0)) == "trap"
        assert PLENTY - instance.fuel in (1 + 50 * 8 + 1, 1 + 50 * 8 + 2)


SHAPES = ["", "(local i64)", "(local f64 f64)", "(local " + "v128 " * 500 + ")"]


@pytest.mark.parametrize("declared", SHAPES)
def test_depth_ends_at_one_frame_whatever_the_engine(declared: str) -> None:
    body = f"""(global $n (export "n") (mut i32) (i32.const 0))
        {EXPORT} {declared} (global.set $n (i32.add (global.get $n) (i32.const 1))) (call 0))"""
    rewritten = rewrite(wasm(body)).wasm
    words = {"": 0, "(local i64)": 1, "(local f64 f64)": 4}.get(declared, 1000)
    frames = DEPTH_WORDS // (words + 2 + 8)
    for on in (engine(max_wasm_stack=1 << 20), engine(cranelift_opt_level="none")):
        instance = Instance(rewritten, on)
        instance.fuel = PLENTY
        assert instance.status(instance.call("f")) == "stack_limit"
        counted = instance.exports["n"]
        assert isinstance(counted, wasmtime.Global)
        assert counted.value(instance.store) == frames


def test_the_depth_is_given_back() -> None:
    body = "(func $g (result i32) (call $h) (return (i32.const 2))) (func $h)"
    instance = metered(wasm(f"{body} {EXPORT} (drop (call $g)) (call $h) (return))"))
    instance.call("f")
    assert instance.depth == DEPTH_WORDS


def test_refused_growth_is_the_hosts_fault_only_below_the_maximum() -> None:
    module = wasm(f"""{MEMORY} (table 1 9 funcref)
        {EXPORT} (param i32) (result i32) (memory.grow (local.get 0)))
        (func (export "t") (param i32) (result i32) (table.grow (ref.null func) (local.get 0)))""")
    generous = metered(module)
    assert [generous.call("f", n) for n in (1, 3, -1, 2, 0, 1)] == [1, -1, -1, 2, 4, -1]
    assert [generous.call("t", n) for n in (1, 8, -1, 7, 0, 1)] == [1, -1, -1, 2, 9, -1]
    poor = Instance(rewrite(module).wasm, max_bytes=2 << 16)
    poor.fuel = PLENTY
    assert poor.call("f", 4) == -1
    assert poor.status(poor.call("f", 2)) == "host_fault"


def test_maxima_are_written_into_the_module() -> None:
    body = '(memory (export "memory") 1) (table 1 funcref)'
    limits = MeteringLimits(max_pages=3, max_table_elements=5)
    facts = rewrite(wasm(body), limits)
    assert (facts.memory_min_pages, facts.memory_max_pages) == (1, 3)
    assert facts.table_max_elements == (5,)
    grow = f"{body} {EXPORT} (param i32) (result i32) (memory.grow (local.get 0)))"
    instance = metered(wasm(grow), limits=limits)
    assert [instance.call("f", n) for n in (3, 2, 1)] == [-1, 1, -1]


def test_the_start_function_waits_for_the_host() -> None:
    body = f"""{MEMORY} (func $s (i32.store (i32.const 0) (i32.const 77))) (start $s)"""
    instance = metered(wasm(body))
    assert instance.read(0, 1) == b"\0"
    assert instance.status(instance.call("gstd_start")) == "ok"
    assert instance.read(0, 1) == b"M"


NAN32, NAN64 = 0x7FC00000, 0x7FF80000_00000000
PROBES = [
    *((f"f32.{op}", "ff") for op in ("add", "sub", "mul", "div", "min", "max")),
    *((f"f32.{op}", "f") for op in ("sqrt", "ceil", "floor", "trunc", "nearest")),
    *((f"f64.{op}", "FF") for op in ("add", "sub", "mul", "div", "min", "max")),
    *((f"f64.{op}", "F") for op in ("sqrt", "ceil", "floor", "trunc", "nearest")),
    ("f32.demote_f64", "F"),
    ("f64.promote_f32", "f"),
]


def test_every_nan_is_the_canonical_one() -> None:
    loads = {"f": "(f32.load (i32.const {}))", "F": "(f64.load (i32.const {}))"}
    for op, operands in PROBES:
        args = " ".join(loads[kind].format(8 * n) for n, kind in enumerate(operands))
        body = f"{MEMORY} {EXPORT} ({op[:3]}.store (i32.const 64) ({op} {args})))"
        for strange in (0x7FA00001_FFA00001, -1, -0x7FFFFFFF_80000000 + 1):
            instance = metered(wasm(body))
            memory = instance.exports["memory"]
            assert isinstance(memory, wasmtime.Memory)
            # A strange f32 NaN in the low half, a strange f64 NaN in the whole.
            bits = struct.pack("<Q", (strange | 0x7FF00000_7F800001) & (1 << 64) - 1)
            memory.write(instance.store, bits * 2, 0)
            instance.call("f")
            wide = op.startswith("f64")
            got = int.from_bytes(instance.read(64, 8 if wide else 4), "little")
            assert got == (NAN64 if wide else NAN32), op


def test_lanes_are_canonical_even_under_another_shape() -> None:
    body = f"""{MEMORY} {EXPORT}
        (v128.store (i32.const 0) (f64x2.add
            (f32x4.div (v128.const i32x4 0 0 0x3f800000 0xff800001) (v128.const i32x4 0 0 0 0))
            (v128.const i64x2 0 0))))"""
    instance = metered(wasm(body))
    instance.call("f")
    infinity = 0x7F800000
    assert instance.read(0, 16) == struct.pack("<IIII", NAN32, NAN32, infinity, NAN32)


def run_wasi(module: bytes, folder: Path) -> bytes:
    config = wasmtime.WasiConfig()
    config.argv = ["mandelbrot", "1", "2", "4", "16", "200"]
    config.stdout_file = str(folder / "out")
    on = engine()
    linker, store = wasmtime.Linker(on), wasmtime.Store(on)
    linker.define_wasi()
    store.set_wasi(config)
    exports = linker.instantiate(store, wasmtime.Module(on, module)).exports(store)
    fuel = exports.get("gstd_fuel")
    if isinstance(fuel, wasmtime.Global):
        fuel.set_value(store, wasmtime.Val.i64(PLENTY))
    start = exports["_start"]
    assert isinstance(start, wasmtime.Func)
    try:
        start(store)
    except wasmtime.ExitTrap as end:
        assert end.code == 0  # noqa: PT017 - a normal end, too
    return (folder / "out").read_bytes()


def test_the_example_draws_the_same_picture(tmp_path: Path) -> None:
    original = MANDELBROT.read_bytes()
    picture = run_wasi(original, tmp_path)
    assert len(picture) == 16 * 16 * 3
    assert run_wasi(rewrite(original).wasm, tmp_path) == picture
