"""What happens inside a disposable child: compile a module, or run one to its outcome.

Only the zygote and its children import this file. A child serves one request and dies; whatever
goes wrong in it is a host fault, unless the module itself did it.
"""

from __future__ import annotations

import ctypes
import mmap
from functools import partial
from typing import Final

import wasmtime

from gstd.protocol.execution import STDERR_BYTES, Limits, Outcome, Status, TaskInput
from gstd.sandbox.errors import ModuleDoesNotCompile, ModuleMemoryTooLarge, ModuleRefused
from gstd.sandbox.inspect import MAX_MEMORY_BYTES, PAGE_BYTES, inspect_module
from gstd.sandbox.sections import MAX_PAGES, MAX_TABLE_ELEMENTS, MAX_TABLES
from gstd.sandbox.wasi import FUNCTIONS, WASI_MODULE, Host, OutsideMemoryError, Stop
from gstd.sandbox.wire import JOBS, Artefact, Done, Fault, FromChild, Job, NotCompiled, Refused

_MASKS: Final = {"i": 0xFFFF_FFFF, "I": 0xFFFF_FFFF_FFFF_FFFF}
_REASON_CHARS: Final = 500

_FEATURES_OFF: Final = (
    "wasm_threads",
    "wasm_tail_call",
    "wasm_relaxed_simd",
    "wasm_memory64",
    "wasm_multi_memory",
    "wasm_exceptions",
    "wasm_function_references",
    "wasm_gc",
    "wasm_wide_arithmetic",
    "wasm_custom_page_sizes",
    "wasm_stack_switching",
    "wasm_component_model",
    "shared_memory",
)

_TRAPS: Final = {
    wasmtime.TrapCode.OUT_OF_FUEL: Status.OUT_OF_FUEL,
    wasmtime.TrapCode.STACK_OVERFLOW: Status.STACK_LIMIT,
    **dict.fromkeys(
        (
            wasmtime.TrapCode.MEMORY_OUT_OF_BOUNDS,
            wasmtime.TrapCode.HEAP_MISALIGNED,
            wasmtime.TrapCode.TABLE_OUT_OF_BOUNDS,
            wasmtime.TrapCode.INDIRECT_CALL_TO_NULL,
            wasmtime.TrapCode.BAD_SIGNATURE,
            wasmtime.TrapCode.INTEGER_OVERFLOW,
            wasmtime.TrapCode.INTEGER_DIVISION_BY_ZERO,
            wasmtime.TrapCode.BAD_CONVERSION_TO_INTEGER,
            wasmtime.TrapCode.UNREACHABLE,
            wasmtime.TrapCode.NULL_REFERENCE,
        ),
        Status.TRAP,
    ),
}
"""Ends that the module causes. Any other trap code is the host's fault."""


def _engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    config.consume_fuel = True
    config.parallel_compilation = False  # threads would escape the accounting of the child
    config.memory_init_cow = False  # it makes files, which RLIMIT_FSIZE forbids
    config.cranelift_nan_canonicalization = True
    for feature in _FEATURES_OFF:
        setattr(config, feature, False)
    return wasmtime.Engine(config)


def _reason(error: wasmtime.WasmtimeError) -> str:
    """The engine's words without control characters: they may quote names of the module."""
    text = "".join(char if char.isprintable() else " " for char in str(error)[:_REASON_CHARS])
    return " ".join(text.split())


def compile_module(data: bytes) -> FromChild:
    """Inspect and compile; the artefact may only ever be loaded by a child."""
    try:
        info = inspect_module(data)
        code = wasmtime.Module(_engine(), data).serialize()
    except ModuleRefused as refused:
        return Refused(refused.code, refused.detail)
    except wasmtime.WasmtimeError as error:
        return Refused(ModuleDoesNotCompile.code, _reason(error))
    maximum = MAX_PAGES if info.memory_max_pages is None else info.memory_max_pages
    return Artefact(info.memory_min_pages, maximum, bytes(code))


def run_module(artefact: Artefact, encoded_job: bytes) -> FromChild:
    """Run a compiled module to its end. ``encoded_job`` is a ``Job`` in msgpack."""
    job = JOBS.decode(encoded_job)
    limits = job.limits
    if artefact.memory_min_pages * PAGE_BYTES > limits.memory_bytes:
        return Refused(
            ModuleMemoryTooLarge.code,
            f"The module starts with {artefact.memory_min_pages * PAGE_BYTES} bytes of memory; "
            f"the task allows {limits.memory_bytes}.",
        )
    engine = _engine()
    try:
        module = wasmtime.Module.deserialize(engine, artefact.code)
    except wasmtime.WasmtimeError:
        return NotCompiled()  # made by another version or for another processor
    try:
        _probe_memory(artefact, limits)
    except OSError:
        return Fault("This machine has too little memory for the task.")
    return _Instance(engine, module, job).run()


def _probe_memory(artefact: Artefact, limits: Limits) -> None:
    """Ask for all the memory the module may grow to, so that growing cannot fail half-way."""
    wanted = min(artefact.memory_max_pages * PAGE_BYTES, limits.memory_bytes, MAX_MEMORY_BYTES)
    if wanted:
        mmap.mmap(-1, wanted, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()


class _GuestMemory:
    """The module's memory, every access checked against its present size."""

    def __init__(self, store: wasmtime.Store) -> None:
        self._store = store
        self._memory: wasmtime.Memory | None = None

    def find(self, caller: wasmtime.Caller) -> None:
        """Take the handle from the first call: a start function runs before exports exist."""
        if self._memory is None:
            found = caller.get("memory")
            if not isinstance(found, wasmtime.Memory):
                raise TypeError("an inspected module lost its memory")
            self._memory = found

    def _address(self, address: int, size: int) -> int:
        if self._memory is None:
            raise TypeError("memory is used outside a call")
        if address < 0 or size < 0 or address + size > self._memory.data_len(self._store):
            raise OutsideMemoryError
        return ctypes.addressof(self._memory.data_ptr(self._store).contents) + address

    def read(self, address: int, size: int) -> bytes:
        return ctypes.string_at(self._address(address, size), size) if size else self._none(address)

    def _none(self, address: int) -> bytes:
        self._address(address, 0)
        return b""

    def write(self, address: int, data: bytes) -> None:
        ctypes.memmove(self._address(address, len(data)), data, len(data))


class _Instance:
    """One module with its store and its host."""

    def __init__(self, engine: wasmtime.Engine, module: wasmtime.Module, job: Job) -> None:
        limits = job.limits
        self._fuel_limit = limits.fuel
        self._module = module
        self._store = wasmtime.Store(engine)
        self._store.set_limits(limits.memory_bytes, MAX_TABLE_ELEMENTS, 1, MAX_TABLES, 1)
        self._store.set_fuel(limits.fuel)
        self._memory = _GuestMemory(self._store)
        task = TaskInput(args=job.args, stdin=job.stdin, seed=job.seed)
        self._host = Host(task, limits.output_bytes, self._memory, self._charge)
        self._linker = wasmtime.Linker(engine)
        for name in {item.name for item in module.imports}:
            self._define(name or "")

    def _charge(self, fuel: int) -> None:
        left = self._store.get_fuel()
        if fuel > left:
            raise Stop(Status.OUT_OF_FUEL)
        self._store.set_fuel(left - fuel)

    def _define(self, name: str) -> None:
        """Link one function of the table; only imported ones, because each costs 0.1 ms."""
        params, results = FUNCTIONS[name]
        kinds = {"i": wasmtime.ValType.i32, "I": wasmtime.ValType.i64}
        kind = wasmtime.FuncType([kinds[p]() for p in params], [kinds[r]() for r in results])
        masks = [_MASKS[p] for p in params]
        answer = partial(self._answer, name, masks)
        self._linker.define_func(WASI_MODULE, name, kind, answer, access_caller=True)

    def _answer(
        self, name: str, masks: list[int], caller: wasmtime.Caller, *args: int
    ) -> int | None:
        self._memory.find(caller)
        # wasmtime-py gives signed integers; addresses and sizes are unsigned.
        return self._host.call(name, *(arg & mask for arg, mask in zip(args, masks, strict=True)))

    def run(self) -> FromChild:
        """Instantiate, call ``_start``, and tell how it ended."""
        try:
            instance = self._linker.instantiate(self._store, self._module)
            start = instance.exports(self._store)["_start"]
            if not isinstance(start, wasmtime.Func):
                return Fault("An inspected module lost its start function.")
            start(self._store)
        except Stop as stop:
            return self._done(stop.status, stop.exit_code)
        except wasmtime.Trap as trap:
            status = _TRAPS.get(trap.trap_code) if trap.trap_code else None
            return self._done(status) if status else Fault(f"Unknown trap {trap.trap_code}.")
        except wasmtime.WasmtimeError as error:
            return Fault(f"The engine failed: {_reason(error)}")
        return self._done(Status.OK)

    def _done(self, status: Status, exit_code: int = 0) -> FromChild:
        # Out of fuel reports the limit: how little was left says nothing about the work.
        left = 0 if status is Status.OUT_OF_FUEL else self._store.get_fuel()
        return Done(
            Outcome(
                status=status,
                exit_code=exit_code,
                fuel=self._fuel_limit - left,
                stdout=bytes(self._host.stdout),
                stderr=bytes(self._host.stderr[:STDERR_BYTES]),
            )
        )
