"""How fast modules are rewritten, and what metering costs them when they run.

    python -m benchmarks.metering

Prints MB/s of rewriting, then for each program its time metered and under wasmtime's own fuel
and NaN switches, both relative to the module as it was, the same in V8's optimising compiler where
node is installed, and the geometric means. The best of several runs counts, because the machine
is shared.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import geometric_mean

import wasmtime

from gstd.sandbox.metering import rewrite

MANDELBROT = Path(__file__).parents[1] / "examples/mandelbrot/mandelbrot.wasm"
RUNS = 5
PLENTY = 1 << 60

PROGRAMS = {
    "calls (fib)": """
        (func $fib (param i32) (result i32)
            (if (result i32) (i32.lt_s (local.get 0) (i32.const 2))
                (then (local.get 0))
                (else (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1)))
                               (call $fib (i32.sub (local.get 0) (i32.const 2)))))))
        (func (export "_start") (drop (call $fib (i32.const 30))))""",
    "bytes (sieve)": """(memory 64)
        (func (export "_start") (local $i i32) (local $k i32)
            (local.set $i (i32.const 2))
            (loop $next
                (if (i32.eqz (i32.load8_u (local.get $i))) (then
                    (local.set $k (i32.shl (local.get $i) (i32.const 1)))
                    (block $done (loop $strike
                        (br_if $done (i32.ge_u (local.get $k) (i32.const 4000000)))
                        (i32.store8 (local.get $k) (i32.const 1))
                        (local.set $k (i32.add (local.get $k) (local.get $i)))
                        (br $strike)))))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $i) (i32.const 2000000)))))""",
    "integers (mix)": """
        (func (export "_start") (local $n i32) (local $a i64)
            (local.set $a (i64.const 88172645463325252))
            (loop $l
                (local.set $a (i64.xor (local.get $a) (i64.shl (local.get $a) (i64.const 13))))
                (local.set $a (i64.xor (local.get $a) (i64.shr_u (local.get $a) (i64.const 7))))
                (local.set $a (i64.mul (i64.xor (local.get $a)
                    (i64.shl (local.get $a) (i64.const 17))) (i64.const 0x2545F4914F6CDD1D)))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $l (i32.lt_u (local.get $n) (i32.const 20000000)))))""",
    "floats (dot)": """(memory 16)
        (func (export "_start") (local $n i32) (local $r i32) (local $s f64)
            (loop $again (local.set $n (i32.const 0))
                (loop $l
                    (local.set $s (f64.add (local.get $s) (f64.mul
                        (f64.load (local.get $n)) (f64.load offset=262144 (local.get $n)))))
                    (local.set $n (i32.add (local.get $n) (i32.const 8)))
                    (br_if $l (i32.lt_u (local.get $n) (i32.const 262144))))
                (f64.store (i32.const 0) (local.get $s))
                (local.set $r (i32.add (local.get $r) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $r) (i32.const 500)))))""",
    "lanes (saxpy)": """(memory 16)
        (func (export "_start") (local $n i32) (local $r i32)
            (loop $again (local.set $n (i32.const 0))
                (loop $l
                    (v128.store (local.get $n) (f32x4.add (v128.load (local.get $n)) (f32x4.mul
                        (v128.const f32x4 1.5 1.5 1.5 1.5) (v128.load offset=262144
                        (local.get $n)))))
                    (local.set $n (i32.add (local.get $n) (i32.const 16)))
                    (br_if $l (i32.lt_u (local.get $n) (i32.const 262144))))
                (local.set $r (i32.add (local.get $r) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $r) (i32.const 1000)))))""",
}


def _engine(peer: bool) -> wasmtime.Engine:
    config = wasmtime.Config()
    config.consume_fuel = peer
    config.cranelift_nan_canonicalization = peer
    return wasmtime.Engine(config)


def _starter(module: bytes, peer: bool) -> Callable[[], None]:
    """A compiled module; each call instantiates and runs it."""
    engine = _engine(peer)
    compiled = wasmtime.Module(engine, module)
    linker = wasmtime.Linker(engine)
    linker.define_wasi()

    def start() -> None:
        store = wasmtime.Store(engine)
        wasi = wasmtime.WasiConfig()
        wasi.argv = ["mandelbrot", "1", "2", "4", "128", "600"]
        wasi.stdout_custom = len
        store.set_wasi(wasi)
        if peer:
            store.set_fuel(PLENTY)
        exports = linker.instantiate(store, compiled).exports(store)
        fuel, run = exports.get("gstd_fuel"), exports["_start"]
        if isinstance(fuel, wasmtime.Global):
            fuel.set_value(store, wasmtime.Val.i64(PLENTY))
        assert isinstance(run, wasmtime.Func)
        run(store)

    return start


def _cpu_seconds(start: Callable[[], None]) -> float:
    begin = time.process_time()
    start()
    return time.process_time() - begin


BODY = """(func $f{number} (param i32) (result i32) (local f64 i64 i32)
    (block $out (loop $l
        (br_if $out (i32.eqz (local.get 0)))
        (i32.store offset={number} (local.get 3) (i32.add (local.get 3)
            (i32.load offset=16 (i32.and (local.get 0) (i32.const 4092)))))
        (if (i32.and (local.get 0) (i32.const 1))
            (then (local.set 1 (f64.mul (f64.add (local.get 1) (f64.const 1.25))
                (f64.convert_i32_s (local.get 0)))))
            (else (local.set 2 (i64.xor (i64.rotl (local.get 2) (i64.const 7))
                (i64.const {number})))))
        (local.set 3 (i32.wrap_i64 (i64.add (local.get 2) (i64.trunc_sat_f64_s (local.get 1)))))
        (local.set 0 (call $f{next} (i32.shr_u (local.get 0) (i32.const 1))))
        (br $l)))
    (local.get 3))"""


def _large(functions: int = 8_000) -> bytes:
    """A module of about a megabyte in which each function has loops, calls, memory and floats."""
    bodies = (BODY.format(number=n, next=(n + 1) % functions) for n in range(functions))
    return bytes(wasmtime.wat2wasm(f"(module (memory 2) {' '.join(bodies)})"))


def _rewriting(module: bytes, name: str) -> None:
    begin = time.process_time()
    metered = rewrite(module)
    megabytes = len(module) / 1e6
    speed = megabytes / (time.process_time() - begin)
    growth = len(metered.wasm) / len(module)
    print(f"rewrite {name}: {megabytes:.2f} MB at {speed:.2f} MB/s, {growth:.2f} times the size")


def _slowdowns(module: bytes) -> tuple[float, float]:
    """Metered, and under wasmtime's switches, relative to the module as it was."""
    forms = _starter(module, False), _starter(rewrite(module).wasm, False), _starter(module, True)
    rounds = [[_cpu_seconds(form) for form in forms] for _ in range(RUNS)]
    plain, metered, peer = (min(times) for times in zip(*rounds, strict=True))
    return metered / plain, peer / plain


NODE = """
const fs = require("fs");
const time = (file) => {
  const module = new WebAssembly.Module(fs.readFileSync(file));
  let best = Infinity;
  for (let run = 0; run < 5; run++) {
    const { exports } = new WebAssembly.Instance(module);
    if (exports.gstd_fuel) exports.gstd_fuel.value = 1n << 60n;
    const start = process.cpuUsage();
    exports._start();
    best = Math.min(best, process.cpuUsage(start).user);
  }
  return best;
};
const [plain, metered] = process.argv.slice(-2).map(time);
console.log(metered / plain);
"""


def _slowdown_in_v8(module: bytes) -> float:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "plain.wasm", Path(folder) / "metered.wasm"]
        files[0].write_bytes(module)
        files[1].write_bytes(rewrite(module).wasm)
        command = ["node", "--no-liftoff", "-e", NODE, "--", *map(str, files)]
        answer = subprocess.run(command, capture_output=True, check=True, text=True)
    return float(answer.stdout)


def main() -> None:
    """Print everything; further modules to rewrite may be named on the command line."""
    _rewriting(_large(), "generated")
    for path in sys.argv[1:]:
        _rewriting(Path(path).read_bytes(), Path(path).name)
    modules = {name: bytes(wasmtime.wat2wasm(f"(module {t})")) for name, t in PROGRAMS.items()}
    modules["mandelbrot"] = MANDELBROT.read_bytes()
    ours, theirs = [], []
    for name, module in modules.items():
        metered, peer = _slowdowns(module)
        ours.append(metered)
        theirs.append(peer)
        print(f"{name:16} metered {metered:.2f}x  wasmtime's fuel and NaN {peer:.2f}x")
    print(
        f"geometric mean   metered {geometric_mean(ours):.2f}x  "
        f"wasmtime's fuel and NaN {geometric_mean(theirs):.2f}x"
    )
    if shutil.which("node"):
        found = {n: _slowdown_in_v8(m) for n, m in modules.items() if n != "mandelbrot"}
        for name, slowdown in found.items():
            print(f"{name:16} metered {slowdown:.2f}x in V8")
        print(f"geometric mean   metered {geometric_mean(found.values()):.2f}x in V8")


if __name__ == "__main__":
    main()
