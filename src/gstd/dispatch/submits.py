"""Submits: signed results become facts, and everything that follows from them happens at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from gstd.accounts.model import DeviceActor
from gstd.blobs.store import Blobs
from gstd.database.connection import Connection, to_structs
from gstd.database.sql import load_queries
from gstd.events.service import Event, append
from gstd.kernel.canonical import sha256
from gstd.kernel.errors import GstdError, Refusal
from gstd.kernel.settings import Policy
from gstd.protocol.execution import Limits
from gstd.protocol.work import SubmitItem, Submitted
from gstd.tasks.advance import advance
from gstd.tasks.errors import AlreadySubmittedError, AttemptNotFoundError, AttemptOverError
from gstd.tasks.model import Result
from gstd.verification.results import Work, check_result

_sql = load_queries("gstd.dispatch")

_SUBMITTED = ("submitted", "accepted", "rejected")


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt of this device with what it had to run."""

    attempt_id: UUID
    task_id: UUID
    revision: int
    state: str
    lease_until: datetime
    signature: bytes | None
    job_id: UUID
    owner: UUID
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
    """A result that may be stored."""

    item: SubmitItem
    held: Held
    result: Result

    @property
    def stderr_hash(self) -> bytes | None:
        """Where stderr is kept, if there was any."""
        return sha256(self.item.stderr) if self.item.stderr else None


async def acceptable(
    connection: Connection, device: DeviceActor, items: Sequence[SubmitItem], now: datetime
) -> list[SubmitItem]:
    """The items that would be stored now: of running attempts of this device, rightly signed.

    Only their bytes are worth keeping; ``submit`` decides under the tasks' locks.
    """
    held = await _held(connection, device, items)
    return [item for item in items if isinstance(_judge(item, held, device, now), Checked)]


async def store_outputs(blobs: Blobs, items: Sequence[SubmitItem]) -> None:
    """Keep the bytes under their hashes. Comes before the transaction that refers to them."""
    for item in items:
        await blobs.put(item.stdout)
        if item.stderr:
            await blobs.put(item.stderr)


async def submit(
    connection: Connection,
    device: DeviceActor,
    items: Sequence[SubmitItem],
    policy: Policy,
    now: datetime,
) -> list[Submitted | Refusal]:
    """Record results and advance their tasks, one outcome per item.

    Idempotent by attempt and signature. A late result is refused by name and changes nothing.
    """
    await connection.fetch(_sql["lock_tasks"], [item.task_id for item in items])
    held = await _held(connection, device, items)
    outcomes: dict[int, Submitted | Refusal] = {}
    checked: list[Checked] = []
    for position, item in enumerate(items):
        found = _judge(item, held, device, now)
        if isinstance(found, Checked):
            checked.append(found)
            held.pop(item.attempt_id)  # a twin in the same batch is refused
        else:
            outcomes[position] = found
    states = await _record(connection, device, checked, policy, now)
    return [
        outcomes.get(position)
        or Submitted(attempt_id=item.attempt_id, state=states[item.attempt_id])
        for position, item in enumerate(items)
    ]


async def _held(
    connection: Connection, device: DeviceActor, items: Sequence[SubmitItem]
) -> dict[UUID, Held]:
    ids = [item.attempt_id for item in items]
    rows = await connection.fetch(_sql["attempts"], ids, device.device_id)
    return {attempt.attempt_id: attempt for attempt in to_structs(rows, Held)}


def _judge(
    item: SubmitItem, attempts: dict[UUID, Held], device: DeviceActor, now: datetime
) -> Checked | Submitted | Refusal:
    try:
        return _check(item, attempts, device, now)
    except GstdError as error:
        return error.refusal()


def _check(
    item: SubmitItem, attempts: dict[UUID, Held], device: DeviceActor, now: datetime
) -> Checked | Submitted:
    held = attempts.get(item.attempt_id)
    if held is None:
        raise AttemptNotFoundError
    if held.state in _SUBMITTED:
        if held.signature != item.signature:
            raise AlreadySubmittedError
        return Submitted(attempt_id=held.attempt_id, state=held.state)
    if held.state != "running" or held.lease_until <= now:
        raise AttemptOverError(f"the attempt is {held.state}, its lease ended {held.lease_until}")
    return Checked(item, held, check_result(item, held.work(), device.public_key))


async def _record(
    connection: Connection,
    device: DeviceActor,
    checked: Sequence[Checked],
    policy: Policy,
    now: datetime,
) -> dict[UUID, str]:
    """Store the results and advance; returns the state of each attempt afterwards."""
    if not checked:
        return {}
    await connection.execute(
        _sql["submit"],
        [one.held.attempt_id for one in checked],
        [one.result.status for one in checked],
        [one.result.exit_code for one in checked],
        [one.result.fuel for one in checked],
        [one.result.result_hash for one in checked],
        [one.result.output_hash for one in checked],
        [one.result.output_bytes for one in checked],
        [one.stderr_hash for one in checked],
        [one.item.signature for one in checked],
        device.device_id,
        now,
    )
    await append(connection, [_event(one, device) for one in checked], now)
    moved = await advance(connection, [one.held.task_id for one in checked], policy, now)
    states = {one.held.attempt_id: "submitted" for one in checked}
    for step in moved.values():
        for decision in step.decisions:
            states[decision.attempt.id] = decision.state.value
    return states


def _event(one: Checked, device: DeviceActor) -> Event:
    return Event(
        kind="attempt.submitted",
        accounts=(one.held.owner, device.account_id),
        job_id=one.held.job_id,
        task_id=one.held.task_id,
        attempt_id=one.held.attempt_id,
        data=_logged(one),
    )


def _logged(one: Checked) -> dict[str, str | int | None]:
    """All of the result, under the names of its row: sealed, it can be compared with the row."""
    return {
        "status": one.result.status,
        "exit_code": one.result.exit_code,
        "fuel": one.result.fuel,
        "result_hash": one.result.result_hash.hex(),
        "output_hash": one.result.output_hash.hex(),
        "output_bytes": one.result.output_bytes,
        "stderr_hash": None if one.stderr_hash is None else one.stderr_hash.hex(),
        "signature": one.item.signature.hex(),
    }
