"""Honest and hostile modules in real children: every end has its right name."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import wasmtime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gstd.protocol.execution import STDERR_BYTES, Limits, Status, TaskInput
from gstd.sandbox import errors
from gstd.sandbox.runner import PROFILE, Sandbox
from gstd.sandbox.wasi import HOST_CALL_FUEL

MANDELBROT = Path(__file__).parents[3] / "examples/mandelbrot/mandelbrot.wasm"
MEMORY = '(memory (export "memory") 4)'
SMALL = Limits(fuel=50_000_000, memory_bytes=64 << 20, output_bytes=4096, wall_ms=20_000)


def wasi(name: str, params: str) -> str:
    short = name.rsplit("_", maxsplit=1)[-1]
    return (
        f'(import "wasi_snapshot_preview1" "{name}" (func ${short} (param {params}) (result i32)))'
    )


WRITE = wasi("fd_write", "i32 i32 i32 i32")
EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'


def program(body: str, before: str = "", after: str = "") -> bytes:
    text = f'(module {before} {MEMORY} {after} (func (export "_start") {body}))'
    return bytes(wasmtime.wat2wasm(text))


# Copies standard input, 8 random bytes and the clock to standard output.
ECHO = program(
    """
    (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 60000))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (call $args (i32.const 70000) (i32.const 71000)))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (drop (call $random (i32.const 16) (i32.const 8)))
    (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 24)))
    (i32.store (i32.const 40) (i32.const 16)) (i32.store (i32.const 44) (i32.const 16))
    (i32.store (i32.const 48) (i32.const 71000)) (i32.store (i32.const 52) (i32.const 64))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (call $write (i32.const 1) (i32.const 40) (i32.const 2) (i32.const 8)))
    """,
    WRITE
    + wasi("fd_read", "i32 i32 i32 i32")
    + wasi("args_get", "i32 i32").replace("$get", "$args")
    + wasi("random_get", "i32 i32").replace("$get", "$random")
    + wasi("clock_time_get", "i32 i64 i32").replace("$get", "$clock"),
)


def printer(fd: int) -> bytes:
    return program(
        f"""(i32.store (i32.const 4) (i32.const 1000))
        (loop $again
          (drop (call $write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 8)))
          (br $again))""",
        WRITE,
    )


FOREVER = program("(loop $l (br $l))")

ENDS: dict[str, tuple[bytes, Status, int]] = {
    "returns": (program(""), Status.OK, 0),
    "exits with 0": (program("(call $exit (i32.const 0))", EXIT), Status.OK, 0),
    "exits with 3": (program("(call $exit (i32.const 3))", EXIT), Status.EXIT, 3),
    "exits with -1": (
        program("(call $exit (i32.const -1))", EXIT),
        Status.EXIT,
        0xFFFF_FFFF,
    ),
    "unreachable": (program("unreachable"), Status.TRAP, 0),
    "divides by zero": (
        program("(drop (i32.div_u (i32.const 1) (i32.const 0)))"),
        Status.TRAP,
        0,
    ),
    "reads outside": (program("(drop (i32.load (i32.const -4)))"), Status.TRAP, 0),
    "data outside": (program("", after='(data (i32.const -1) "xy")'), Status.TRAP, 0),
    "loops": (FOREVER, Status.OUT_OF_FUEL, 0),
    "loops before start": (
        program("", after="(func $f (loop $l (br $l))) (start $f)"),
        Status.OUT_OF_FUEL,
        0,
    ),
    "exits before start": (
        program("unreachable", EXIT, "(func $f (call $exit (i32.const 9))) (start $f)"),
        Status.EXIT,
        9,
    ),
    "recurses": (
        program("(call $f)", after="(func $f (call $f) (call $f))"),
        Status.STACK_LIMIT,
        0,
    ),
    "fills its memory over and over": (
        program(
            "(drop (memory.grow (i32.const 800)))"
            "(loop $l (memory.fill (i32.const 0) (i32.const 7) (i32.const 50000000)) (br $l))"
        ),
        Status.OUT_OF_FUEL,
        0,
    ),
    "grows as far as it may": (
        program("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))"),
        Status.OK,
        0,
    ),
    "grows a table": (
        program(
            "(loop $l (br_if $l (i32.ne"
            " (table.grow $t (ref.null func) (i32.const 9999)) (i32.const -1))))",
            after="(table $t 1 funcref)",
        ),
        Status.OK,
        0,
    ),
    "prints forever": (printer(1), Status.OUTPUT_LIMIT, 0),
    "complains forever": (printer(2), Status.OUT_OF_FUEL, 0),
    "imports one function twice": (
        program("", EXIT + EXIT.replace("$exit", "$again")),
        Status.OK,
        0,
    ),
    "hostile vectors": (
        program(
            "(drop (call $write (i32.const 1) (i32.const -8) (i32.const 1) (i32.const 8)))"
            "(drop (call $write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 8)))"
            "(drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const -1)))",
            WRITE,
        ),
        Status.OK,
        0,
    ),
}


@pytest.mark.parametrize("name", ENDS)
async def test_ends_by_name(box: Sandbox, name: str) -> None:
    module, status, exit_code = ENDS[name]
    outcome = await box.run(module, TaskInput(), SMALL)
    assert (outcome.status, outcome.exit_code) == (status, exit_code)
    assert outcome.fuel <= SMALL.fuel
    if status is Status.OUT_OF_FUEL:
        assert outcome.fuel == SMALL.fuel
    again = await box.run(module, TaskInput(), SMALL)
    assert again == outcome


async def test_output_limit_keeps_exactly_the_limit(box: Sandbox) -> None:
    assert len((await box.run(printer(1), TaskInput(), SMALL)).stdout) == SMALL.output_bytes
    complaint = await box.run(printer(2), TaskInput(), SMALL)
    assert (len(complaint.stderr), complaint.stdout) == (STDERR_BYTES, b"")


async def test_reads_its_input_and_pays_for_calls(box: Sandbox) -> None:
    task = TaskInput(args=("one", "two"), stdin=b"hello", seed=5)
    outcome = await box.run(ECHO, task, SMALL)
    assert outcome.status is Status.OK
    assert outcome.stdout.startswith(b"hello")
    assert b"module\0one\0two\0" in outcome.stdout
    assert outcome.fuel > 6 * HOST_CALL_FUEL
    other = await box.run(ECHO, TaskInput(args=task.args, stdin=task.stdin, seed=6), SMALL)
    assert other.stdout != outcome.stdout
    assert other.fuel == outcome.fuel


@given(
    args=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=3),
    stdin=st.binary(max_size=500),
    seed=st.integers(0, 2**63 - 1),
    fuel=st.integers(1, 300_000),
)
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_the_same_input_has_the_same_outcome(
    box: Sandbox, args: list[str], stdin: bytes, seed: int, fuel: int
) -> None:
    task = TaskInput(args=tuple(args), stdin=stdin, seed=seed)
    limits = Limits(fuel=fuel, memory_bytes=1 << 20, output_bytes=300)
    assert await box.run(ECHO, task, limits) == await box.run(ECHO, task, limits)


def _bomb_locals() -> bytes:
    """Two thousand functions of 4 999 locals each: 16 KB that took 22 s to compile."""
    function = "(func (local " + "i64 " * 4999 + "))"
    return program("", after=function * 201)


def _bomb_nesting() -> bytes:
    """Deeply nested loops with many locals, small and very slow to compile."""
    return _one_function(b"\1\xe8\x07\x7e" + b"\x03\x40" * 20_000 + b"\x0b" * 20_000)


def _bomb_calls() -> bytes:
    """Millions of calls in one function, which take more memory to compile than there is."""
    return _one_function(b"\0" + b"\x10\0" * 3_700_000)


def _one_function(instructions: bytes) -> bytes:
    body = instructions + b"\x0b"
    size = _leb(len(body))
    code = b"\1" + size + body
    return (
        b"\0asm\1\0\0\0\1\4\1\x60\0\0\3\2\1\0\5\3\1\0\1"
        b"\7\x13\2\6memory\2\0\6_start\0\0"
        b"\x0a" + _leb(len(code)) + code
    )


def _leb(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


async def test_compile_bombs_are_refused_and_leave_the_box_alive(tmp_path: Path) -> None:
    async with Sandbox(tmp_path / "c", compile_cpu_seconds=1) as box:
        with pytest.raises(errors.ModuleLimitExceeded):
            await box.compile_check(_bomb_locals())
        before = box.zygote_pid
        with pytest.raises(errors.ModuleDoesNotCompile, match="too much processor time"):
            await box.compile_check(_bomb_nesting())
    async with Sandbox(tmp_path / "c") as box:
        before = box.zygote_pid
        with pytest.raises(errors.ModuleDoesNotCompile, match="gave up"):
            await box.compile_check(_bomb_calls())
        assert box.zygote_pid == before
        assert (await box.run(program(""), TaskInput(), SMALL)).status is Status.OK


async def test_modules_that_abort_the_engine_are_refused(box: Sandbox) -> None:
    text = f'(module {MEMORY} (func (export "_start")) (func (export "v") (param v128)))'
    with pytest.raises(errors.ModuleBadExportSignature):
        await box.run(bytes(wasmtime.wat2wasm(text)), TaskInput(), SMALL)


async def test_invalid_instructions_are_refused_with_the_reason(box: Sandbox) -> None:
    good = program("(drop (i32.const 1))")
    broken = good.replace(b"\x41\x01\x1a\x0b", b"\x42\x01\x6a\x0b")
    assert broken != good
    with pytest.raises(errors.ModuleDoesNotCompile) as refused:
        await box.compile_check(broken)
    assert "type mismatch" in refused.value.detail


async def test_the_compile_check_makes_the_first_run_warm(box: Sandbox) -> None:
    module = program("(drop (i32.const 77))")
    await box.compile_check(module)
    await box.compile_check(module)
    assert (await box.run(module, TaskInput(), SMALL)).status is Status.OK


async def test_more_memory_than_the_task_allows_is_refused(box: Sandbox) -> None:
    with pytest.raises(errors.ModuleMemoryTooLarge):
        await box.run(program(""), TaskInput(), Limits(memory_bytes=65_536))


async def test_memory_stops_at_the_limit_of_the_task(box: Sandbox) -> None:
    grown = program(
        "(if (i32.ne (memory.grow (i32.const 60)) (i32.const 4)) (then unreachable))"
        "(if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))"
    )
    limits = Limits(memory_bytes=64 * 65_536)
    assert (await box.run(grown, TaskInput(), limits)).status is Status.OK


async def test_the_wall_clock_is_no_outcome(box: Sandbox) -> None:
    started = time.monotonic()
    with pytest.raises(errors.WallClockExceeded):
        await box.run(FOREVER, TaskInput(), Limits(fuel=10**15, wall_ms=200))
    assert 0.2 <= time.monotonic() - started < 5


async def test_a_tile_of_the_example_costs_the_same_fuel_every_time(box: Sandbox) -> None:
    task = TaskInput(args=("3", "2", "8", "64", "500"))
    first = await box.run(MANDELBROT, task, Limits())
    assert first.status is Status.OK
    assert len(first.stdout) == 64 * 64 * 3
    assert len(set(first.stdout)) > 100
    assert await box.run(MANDELBROT, task, Limits()) == first
    nonsense = await box.run(MANDELBROT, TaskInput(args=("8", "0", "8", "64", "9")), Limits())
    assert (nonsense.status, nonsense.exit_code) == (Status.EXIT, 2)


def test_the_parent_never_loads_the_engine() -> None:
    code = "import sys, gstd.sandbox.runner; assert 'wasmtime' not in sys.modules"
    root = Path(__file__).parents[3] / "src"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(root)})
    assert PROFILE.startswith("wasmtime-")
    assert PROFILE.endswith("/fuel-1")
