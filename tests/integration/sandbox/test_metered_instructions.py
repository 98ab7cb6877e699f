"""Every accepted instruction does in a metered module what it does in the original."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import wasmtime

from gstd.sandbox.metering import rewrite
from gstd.sandbox.metering.emit import i32_const, u32
from gstd.sandbox.metering.layout import assemble, exported
from gstd.sandbox.metering.opcodes import (
    BULK,
    EIGHT,
    FOUR,
    HIDES_NAN,
    IMMEDIATES,
    LANE,
    LANE_MEMARG,
    LEB,
    MAKES_NAN,
    MEMARG,
    NOTHING,
    REFERENCE,
    SIGNATURES,
    SIMD,
    SIXTEEN,
    TWO_LEBS,
)
from tests.metered import CANONICAL, PLENTY, Instance

VALUES = (
    0,
    1,
    -1,
    16,
    3,
    0x7F800001_7FC00001,  # NaNs with a payload, signalling and quiet
    -0x000FFFFF_FFFFFFFF,
    0x7FF00000_00000000,  # infinity
    0x3FF80000_3FC00000,  # 1.5
    -0x40080000_403FFFFF,
    -(1 << 63),
    0x41E00000_4F000000,  # 2 ** 31 as f64 and as f32
    0x80000000,
)
RESULT = 1024
PUSH = {  # an operand from the i64 parameter on the stack
    "i": b"\xa7",
    "I": b"",
    "f": b"\xa7\xbe",
    "F": b"\xbf",
    "v": b"\xfd\x12",
    "r": b"\xa7\x41\x03\x71\x25\x00",  # table.get (n & 3)
}
STORE = {  # a result into memory, behind its address
    "i": b"\x36\x02\x00",
    "I": b"\x37\x03\x00",
    "f": b"\x38\x02\x00",
    "F": b"\x39\x03\x00",
    "v": b"\xfd\x0b\x04\x00",
    "r": b"\xd1\x36\x02\x00",
}
RESULT_LOCAL = {"i": 0x7F, "I": 0x7E, "f": 0x7D, "F": 0x7C, "v": 0x7B, "r": 0x70}
IMMEDIATE = {
    NOTHING: b"",
    LEB: b"\x00",
    TWO_LEBS: b"\x00\x00",
    MEMARG: b"\x00\x08",
    LANE_MEMARG: b"\x00\x08\x01",
    FOUR: b"\x01\x02\xa0\xff",
    EIGHT: b"\x01\x02\x03\x04\x05\x06\xf0\xff",
    SIXTEEN: bytes(range(16)),
    LANE: b"\x01",
    REFERENCE: b"\x70",
}


def encoded(opcode: int) -> bytes:
    if opcode >= SIMD:
        head = b"\xfd" + u32(opcode - SIMD)
    elif opcode >= BULK:
        head = b"\xfc" + u32(opcode - BULK)
    else:
        head = bytes((opcode,))
    return head + IMMEDIATE[IMMEDIATES[opcode]]


def function(operands: str, code: bytes, results: str) -> bytes:
    """(param i64 …): the operands, the instructions, the result into memory."""
    local = len(operands)
    code = b"".join(b"\x20" + u32(n) + PUSH[kind] for n, kind in enumerate(operands)) + code
    if results:
        code += b"\x21" + u32(local) + i32_const(RESULT) + b"\x20" + u32(local) + STORE[results]
    declared = b"\x01\x01" + bytes((RESULT_LOCAL[results],)) if results else b"\x00"
    return declared + code + b"\x0b"


def every_instruction(opcodes: list[int]) -> bytes:
    cases = []
    for opcode in opcodes:
        operands, results = SIGNATURES[opcode].split(":")
        body = function(operands, encoded(opcode), results)
        cases.append((f"op_{opcode:x}", len(operands), body))
    return module(cases)


def module(cases: list[tuple[str, int, bytes]]) -> bytes:
    """Exported functions (name, arity, body), and a memory, a table and segments to work on."""
    names = [exported(case[0], 0, index) for index, case in enumerate(cases)]
    names.append(exported("memory", 2, 0))
    arities = [u32(case[1]) for case in cases]
    bodies = [u32(len(case[2])) + case[2] for case in cases]
    data = bytes(byte * 37 & 0xFF for byte in range(256))
    return assemble(
        {
            1: u32(4) + b"".join(b"\x60" + u32(n) + b"\x7e" * n + b"\x00" for n in range(4)),
            3: u32(len(arities)) + b"".join(arities),
            4: b"\x01\x70\x01\x04\x08",
            5: b"\x01\x01\x01\x03",
            6: b"\x01\x7e\x01\x42\x05\x0b",
            7: u32(len(names)) + b"".join(names),
            9: b"\x02\x00\x41\x01\x0b\x02\x00\x01\x01\x00\x02\x00\x01",
            12: b"\x02",
            10: u32(len(bodies)) + b"".join(bodies),
            11: b"\x02\x00\x41\x00\x0b" + u32(256) + data + b"\x01" + u32(256) + data,
        }
    )


def arguments(count: int) -> list[tuple[int, ...]]:
    if count < 3:
        return list(itertools.product(VALUES, repeat=count))
    return list(itertools.product(VALUES[:5], repeat=count))


def test_every_instruction_gives_the_same_result_and_memory() -> None:
    opcodes = sorted(SIGNATURES)
    assert len(opcodes) > 400
    assert sum(opcode >= SIMD for opcode in opcodes) == 236
    original = every_instruction(opcodes)
    before, after = Instance(original, CANONICAL), Instance(rewrite(original).wasm)
    traps = 0
    for opcode in opcodes:
        name = f"op_{opcode:x}"
        for args in arguments(len(SIGNATURES[opcode].split(":")[0])):
            after.fuel = PLENTY
            wanted, got = before.call(name, *args), after.call(name, *args)
            assert (got, after.read(RESULT, 16)) == (wanted, before.read(RESULT, 16)), (name, args)
            assert after.status(got) == ("trap" if wanted == "trap" else "ok")
            assert after.fuel < PLENTY, "the charge is stored before a trap, too"
            traps += wanted == "trap"
        assert after.memory() == before.memory(), name
    assert traps > 100


SHOWS_NAN = {77, 81, 224, 225, 234, 236, 237, 246}
"""Vector instructions through which the bits of a NaN are seen."""


def pairs() -> list[tuple[str, int, bytes]]:
    """Each instruction that makes a NaN, followed by each that consumes it."""
    cases = []
    for first, second in itertools.product(MAKES_NAN, SIGNATURES):
        before, made = SIGNATURES[first].split(":")
        taken, results = SIGNATURES[second].split(":")
        seen = second < SIMD or second in HIDES_NAN or second - SIMD in SHOWS_NAN
        if seen and taken.endswith(made) and len(taken) < 3:
            operands = taken[:-1] + before
            body = function(operands, encoded(first) + encoded(second), results)
            cases.append((f"op_{first:x}_{second:x}", len(operands), body))
    return cases


def test_no_instruction_shows_another_nan_than_the_canonical_one() -> None:
    cases = pairs()
    assert len(cases) > 1500
    strange = [VALUES[5], VALUES[6], VALUES[7], 0]
    for start in range(0, len(cases), 900):
        some = cases[start : start + 900]
        original = module(some)
        before, after = Instance(original, CANONICAL), Instance(rewrite(original).wasm)
        for name, arity, _ in some:
            for args in (strange[:arity], strange[1 : arity + 1], strange[::-1][:arity]):
                after.fuel = PLENTY
                wanted, got = before.call(name, *args), after.call(name, *args)
                assert (got, after.read(RESULT, 16)) == (wanted, before.read(RESULT, 16)), name


def test_the_metered_form_of_every_instruction_is_fixed() -> None:
    """A changed hash needs a new ``METERING`` or ``COST_TABLE``."""
    rewritten = rewrite(every_instruction(sorted(SIGNATURES))).wasm
    assert hashlib.sha256(rewritten).hexdigest() == (
        "8c0c8c62dd771d9d08a5c4dedc1bbe3e132fe1a71a3250560508e8eb0121eb22"
    )


NODE = """
const fs = require("fs"), hash = require("crypto").createHash("sha256");
const [file, list, plenty] = process.argv.slice(-3);
const { exports } = new WebAssembly.Instance(new WebAssembly.Module(fs.readFileSync(file)));
const ends = JSON.parse(fs.readFileSync(list)).map(([name, args]) => {
  exports.gstd_fuel.value = BigInt(plenty);
  let end = "ok";
  try { exports[name](...args.map(BigInt)); } catch { end = "trap"; }
  const bytes = Buffer.from(exports.memory.buffer, 1024, 16).toString("hex");
  return [end, String(exports.gstd_fuel.value), bytes];
});
hash.update(Buffer.from(exports.memory.buffer));
console.log(JSON.stringify([ends, hash.digest("hex")]));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize("tier", ["--liftoff-only", "--no-liftoff"])
def test_v8_gives_the_same_results_fuel_and_memory(tmp_path: Path, tier: str) -> None:
    opcodes = sorted(SIGNATURES)
    rewritten = rewrite(every_instruction(opcodes)).wasm
    calls = [
        (f"op_{opcode:x}", args)
        for opcode in opcodes
        for args in arguments(len(SIGNATURES[opcode].split(":")[0]))
    ]
    instance = Instance(rewritten)
    ends = []
    for name, args in calls:
        instance.fuel = PLENTY
        end = "trap" if instance.call(name, *args) == "trap" else "ok"
        ends.append([end, str(instance.fuel), instance.read(RESULT, 16).hex()])
    (tmp_path / "m.wasm").write_bytes(rewritten)
    (tmp_path / "calls").write_text(
        json.dumps([(name, [str(arg) for arg in args]) for name, args in calls])
    )
    files = [str(tmp_path / "m.wasm"), str(tmp_path / "calls")]
    command = ["node", tier, "-e", NODE, "--", *files, str(PLENTY)]
    answer = subprocess.run(command, capture_output=True, check=True, text=True)
    theirs, memory = json.loads(answer.stdout)
    assert theirs == ends
    assert memory == instance.memory()


CONTROL = """
    (memory (export "memory") 1)
    (type $pair (func (result i32 i64)))
    (type $one (func (param i32) (result i32)))
    (table funcref (elem $double $twice))
    (func $double (type $one) (i32.mul (local.get 0) (i32.const 2)))
    (func $twice (type $one) (call $double (call $double (local.get 0))))
    (func $pair (type $pair) (i32.const 7) (i64.const 8) (return) (unreachable))
    (func (export "f") (param i32) (result i32) (local i32 i64)
        (call $pair) (local.set 2) (local.set 1)
        (block (result i32 i64)
            (local.get 1) (local.get 2)
            (br_if 0 (local.get 0))
            (drop) (drop) (i32.const 100) (i64.const 50)
            (br 0) (i64.add) (block (nop) (loop (br 1))) (if (i32.const 0) (then) (else (nop))))
        (local.set 2) (local.set 1)
        (block $c (block $b (block $a
            (br_table $a $b $c (local.get 0)) (drop))
            (local.set 1 (i32.add (local.get 1) (i32.const 10))))
            (loop $l
                (local.set 1 (i32.add (local.get 1) (i32.const 3)))
                (br_if $l (i32.lt_u (local.get 1) (i32.const 90)))))
        (if (result i32) (i32.gt_s (local.get 0) (i32.const 2))
            (then (call_indirect (type $one) (local.get 1) (i32.const 1)))
            (else (return (call_indirect (type $one) (local.get 1) (local.get 0)))))
        (select (local.get 1) (i32.eq (local.get 0) (i32.const 5)))
        (i32.add (i32.wrap_i64 (local.get 2))))
"""


def test_control_flow_ends_in_the_same_place() -> None:
    original = bytes(wasmtime.wat2wasm(f"(module {CONTROL})"))
    rewritten = rewrite(original).wasm
    for argument in (*range(8), -1):
        before, after = Instance(original), Instance(rewritten)
        after.fuel = PLENTY
        wanted, got = before.call("f", argument), after.call("f", argument)
        assert got == wanted
        assert wanted == "trap" or after.depth == Instance(rewritten).depth
