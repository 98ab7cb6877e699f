"""Runs modules, metered or as they were, and reads the sentinels as a host does."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import wasmtime

from gstd.sandbox.child import _FEATURES_OFF
from gstd.sandbox.metering import MeteringLimits, rewrite
from gstd.sandbox.metering.emit import HOST_FAULT

PLENTY: Final = 1 << 50


def engine(**switches: Any) -> wasmtime.Engine:
    config = wasmtime.Config()
    for feature in _FEATURES_OFF:
        setattr(config, feature, False)
    for name, value in switches.items():
        setattr(config, name, value)
    return wasmtime.Engine(config)


PLAIN: Final = engine()
CANONICAL: Final = engine(cranelift_nan_canonicalization=True)


def wasm(body: str) -> bytes:
    return bytes(wasmtime.wat2wasm(f"(module {body})"))


class Instance:
    """An instance without imports. ``status`` follows docs/reference/metering.md."""

    def __init__(self, module: bytes, on: wasmtime.Engine = PLAIN, max_bytes: int = -1) -> None:
        self.store = wasmtime.Store(on)
        self.store.set_limits(memory_size=max_bytes)
        linked = wasmtime.Instance(self.store, wasmtime.Module(on, module), [])
        self.exports = linked.exports(self.store)

    def call(self, name: str, *args: Any) -> Any:
        """The results, or ``"trap"``."""
        function = self.exports[name]
        assert isinstance(function, wasmtime.Func)
        try:
            return function(self.store, *args)
        except wasmtime.Trap:
            return "trap"

    def memory(self) -> str:
        found = self.exports["memory"]
        assert isinstance(found, wasmtime.Memory)
        return hashlib.sha256(found.read(self.store)).hexdigest()

    def read(self, start: int, size: int) -> bytes:
        found = self.exports["memory"]
        assert isinstance(found, wasmtime.Memory)
        return bytes(found.read(self.store, start, start + size))

    def _global(self, name: str) -> wasmtime.Global:
        found = self.exports[name]
        assert isinstance(found, wasmtime.Global)
        return found

    @property
    def fuel(self) -> int:
        return int(self._global("gstd_fuel").value(self.store))

    @fuel.setter
    def fuel(self, value: int) -> None:
        self._global("gstd_fuel").set_value(self.store, wasmtime.Val.i64(value))

    @property
    def depth(self) -> int:
        return int(self._global("gstd_depth").value(self.store))

    def status(self, result: Any) -> str:
        if result != "trap":
            return "ok"
        if self.fuel == HOST_FAULT:
            return "host_fault"
        if self.fuel < 0:
            return "out_of_fuel"
        return "stack_limit" if self.depth < 0 else "trap"


def metered(module: bytes, fuel: int = PLENTY, limits: MeteringLimits | None = None) -> Instance:
    """An instance of the rewritten module with so much fuel."""
    instance = Instance(rewrite(module, limits).wasm)
    instance.fuel = fuel
    return instance


def used(body: str, *args: Any, name: str = "f") -> int:
    """Fuel of one call that must end well."""
    instance = metered(wasm(body))
    assert instance.status(instance.call(name, *args)) == "ok"
    return PLENTY - instance.fuel
