"""Submits: signed results become facts, and everything that follows from them happens at once.

A result goes through ``held_attempts`` and ``check`` (what is slow, without a lock), then
``store_outputs``, then ``submit``, which decides under the tasks' locks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from gstd.accounts.errors import DeviceBarredError
from gstd.accounts.model import DeviceActor
from gstd.blobs.store import Blobs
from gstd.database.connection import Connection, to_structs
from gstd.database.sql import load_queries
from gstd.dispatch.claims import Sent
from gstd.kernel.canonical import sha256
from gstd.kernel.errors import GstdError, Refusal
from gstd.kernel.settings import Policy
from gstd.protocol.execution import Limits
from gstd.protocol.work import SubmitItem, Submitted
from gstd.tasks.advance import advance
from gstd.tasks.errors import AlreadySubmittedError, AttemptNotFoundError, AttemptOverError
from gstd.tasks.model import Result, Step
from gstd.verification.results import Work, check_result

_sql = load_queries("gstd.dispatch")

_SUBMITTED = ("submitted", "accepted", "rejected")


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt of a device with what it had to run."""

    attempt_id: UUID
    device_id: UUID
    device_state: str
    task_id: UUID
    revision: int
    state: str
    lease_until: datetime
    signature: bytes | None
    module_hash: bytes
    metered_hash: bytes
    profile: str
    input_hash: bytes
    limits: Limits

    def work(self) -> Work:
        """The work by which the result is hashed."""
        return Work(
            attempt_id=self.attempt_id,
            task_id=self.task_id,
            revision=self.revision,
            module_hash=self.module_hash,
            metered_hash=self.metered_hash,
            profile=self.profile,
            input_hash=self.input_hash,
            limits=self.limits,
        )


class Checked(msgspec.Struct, frozen=True):
    """A rightly signed result of an attempt that ran when it was looked up."""

    item: SubmitItem
    held: Held
    result: Result


async def held_attempts(
    connection: Connection, attempts: Sequence[Sent[UUID]]
) -> list[Held | None]:
    """Each attempt with its work if the device has it. What is read may change at once."""
    keys = [(device.device_id, attempt) for device, attempt in attempts]
    found = await _read(connection, keys)
    return [
        held if (held := found.get(attempt)) and held.device_id == device else None
        for device, attempt in keys
    ]


async def _read(connection: Connection, keys: Sequence[tuple[UUID, UUID]]) -> dict[UUID, Held]:
    """Attempts of these (device, attempt) that exist."""
    devices, attempts = [device for device, _ in keys], [attempt for _, attempt in keys]
    rows = await connection.fetch(_sql["attempts"], attempts, devices)
    return {held.attempt_id: held for held in to_structs(rows, Held)}


def check(
    device: DeviceActor, item: SubmitItem, held: Held | None, now: datetime
) -> Checked | Submitted | Refusal:
    """What may go on to ``submit``, and the answers to the rest. Needs no database.

    What a result is hashed with never changes, so it is checked before the tasks are locked.
    """
    try:
        known = _standing(item, held, now)
        if known is not None:
            return known
        assert held is not None
        return Checked(item, held, check_result(item, held.work(), device.public_key))
    except GstdError as error:
        return error.refusal()


def _standing(item: SubmitItem, held: Held | None, now: datetime) -> Submitted | None:
    """The answer to a result that was stored before, or ``None`` while the attempt may have one."""
    if held is None:
        raise AttemptNotFoundError
    if held.state in _SUBMITTED:
        if held.signature != item.signature:
            raise AlreadySubmittedError
        return Submitted(attempt_id=held.attempt_id, state=held.state)
    if held.state != "running" or held.lease_until <= now:
        raise AttemptOverError(f"the attempt is {held.state}, its lease ended {held.lease_until}")
    if held.device_state != "active":
        raise DeviceBarredError(f"this device is {held.device_state}")
    return None


async def store_outputs(blobs: Blobs, results: Sequence[Checked]) -> None:
    """Keep the bytes under their hashes. Comes before the transaction that refers to them."""
    items = [one.item for one in results]
    outputs = [item.stdout for item in items] + [item.stderr for item in items if item.stderr]
    await asyncio.gather(*map(blobs.put, outputs))


async def submit(
    connection: Connection, results: Sequence[Checked], policy: Policy, now: datetime
) -> list[Submitted | Refusal]:
    """Record results of any devices and advance their tasks, one outcome per result.

    Idempotent by attempt and signature. A late result is refused by name and changes nothing; of
    two results for one attempt the first counts.
    """
    await connection.execute(_sql["lock_tasks"], [one.held.task_id for one in results])
    first = {one.held.attempt_id: one for one in reversed(results)}
    stored = await _store(connection, list(first.values()), now)
    tasks = [one.held.task_id for one in stored]
    moved = await advance(connection, tasks, policy, now, locked=True)
    present = _after(stored, moved)
    if len(stored) < len(first):
        late = [one.held for attempt, one in first.items() if attempt not in present]
        present |= await _read(connection, [(held.device_id, held.attempt_id) for held in late])
    return [_answer(one.item, present.get(one.held.attempt_id), now) for one in results]


async def _store(
    connection: Connection, results: Sequence[Checked], now: datetime
) -> list[Checked]:
    """Store results of attempts that still run; returns which were."""
    rows = await connection.fetch(
        _sql["submit"],
        [one.held.attempt_id for one in results],
        [one.held.device_id for one in results],
        [one.result.status for one in results],
        [one.result.exit_code for one in results],
        [one.result.fuel for one in results],
        [one.result.result_hash for one in results],
        [one.result.output_hash for one in results],
        [one.result.output_bytes for one in results],
        [sha256(one.item.stderr) if one.item.stderr else None for one in results],
        [one.item.signature for one in results],
        now,
    )
    stored = {row["id"] for row in rows}
    return [one for one in results if one.held.attempt_id in stored]


def _after(stored: Sequence[Checked], moved: Mapping[UUID, Step]) -> dict[UUID, Held]:
    """The attempts as they are now that their results are stored and their tasks advanced."""
    states = {one.held.attempt_id: "submitted" for one in stored}
    for step in moved.values():
        for decision in step.decisions:
            states[decision.attempt.id] = decision.state.value
    return {
        one.held.attempt_id: msgspec.structs.replace(
            one.held, state=states[one.held.attempt_id], signature=one.item.signature
        )
        for one in stored
    }


def _answer(item: SubmitItem, held: Held | None, now: datetime) -> Submitted | Refusal:
    try:
        return _standing(item, held, now) or AttemptOverError().refusal()
    except GstdError as error:
        return error.refusal()
