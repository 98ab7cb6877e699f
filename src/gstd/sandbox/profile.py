"""The execution profile: which engine counts the fuel."""

from __future__ import annotations

from importlib.metadata import version

PROFILE = f"wasmtime-{version('wasmtime')}/fuel-1"
"""Part of every result hash. ``fuel-1`` is wasmtime's own fuel plus our price of host calls; our
own metering, equal in every engine, gets a profile of its own."""
