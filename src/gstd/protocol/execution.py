"""What goes into a sandbox and what comes out: input, limits, outcome, and their hashes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from gstd.kernel.canonical import digest, sha256
from gstd.protocol.types import Text

MAX_WALL_MS = 60_000
"""No task may run longer than this (architecture, fixed limits)."""

STDERR_BYTES = 16_384
"""How much of standard error is kept; what comes after it is dropped and changes nothing."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one task may use. ``wall_ms`` only protects the device: it never makes a result."""

    fuel: Annotated[int, Meta(ge=1, le=10**15)] = 10_000_000_000
    memory_bytes: Annotated[int, Meta(ge=65_536, le=1 << 32)] = 256 << 20
    output_bytes: Annotated[int, Meta(ge=0, le=16 << 20)] = 1 << 20
    wall_ms: Annotated[int, Meta(ge=100, le=MAX_WALL_MS)] = MAX_WALL_MS


class TaskInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a module can read: arguments, standard input, and the seed of its random."""

    args: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()
    stdin: bytes = b""
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0

    def hash(self) -> bytes:
        """SHA-256 that names this input: ``gstd-input-v1``, seed, stdin, count of args, args."""
        return digest("gstd-input-v1", self.seed, self.stdin, len(self.args), *self.args)


class Status(StrEnum):
    """How a run ended. All of these are results that a device signs."""

    OK = "ok"
    EXIT = "exit"
    TRAP = "trap"
    OUT_OF_FUEL = "out_of_fuel"
    STACK_LIMIT = "stack_limit"
    OUTPUT_LIMIT = "output_limit"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One finished run. ``exit_code`` is 0 unless ``status`` is ``exit``."""

    status: Status
    exit_code: int
    fuel: int
    stdout: bytes
    stderr: bytes


def result_hash(
    *,
    module_hash: bytes,
    metered_hash: bytes,
    profile: str,
    input_hash: bytes,
    limits: Limits,
    outcome: Outcome,
) -> bytes:
    """SHA-256 by which results are compared: equal for equal work on any honest device.

    The record is ``gstd-outcome-v1`` with module hash, metered hash, execution profile, input
    hash, fuel limit, memory limit, output limit, status, exit code, fuel, length and SHA-256 of
    standard output, length and SHA-256 of standard error. The wall clock is not in it, because
    it decides nothing, and neither is the task, so equal work has one hash in every task.
    """
    return digest(
        "gstd-outcome-v1",
        module_hash,
        metered_hash,
        profile,
        input_hash,
        limits.fuel,
        limits.memory_bytes,
        limits.output_bytes,
        outcome.status.value,
        outcome.exit_code,
        outcome.fuel,
        len(outcome.stdout),
        sha256(outcome.stdout),
        len(outcome.stderr),
        sha256(outcome.stderr),
    )
