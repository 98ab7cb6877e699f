"""Claims, heartbeats and releases: who holds which attempt."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from gstd.accounts.model import DeviceActor
from gstd.database.connection import Connection, Row
from gstd.database.sql import load_queries
from gstd.dispatch.errors import InvalidProofError, OfferExpiredError
from gstd.events.service import Event, append
from gstd.kernel.errors import GstdError, Refusal
from gstd.kernel.ids import new_id
from gstd.kernel.settings import Policy
from gstd.proof_of_work.challenge import Challenge
from gstd.protocol.execution import Limits, TaskInput
from gstd.protocol.work import Alive, Claimed, ClaimItem, Released, ReleaseItem
from gstd.tasks.advance import advance, blame_devices
from gstd.tasks.errors import AttemptNotFoundError, AttemptOverError, TaskTakenError
from gstd.tasks.model import FAULTS, Verdict

_sql = load_queries("gstd.dispatch")
_decode_input = msgspec.msgpack.Decoder(TaskInput).decode

MIN_PROOF_BITS = 64
"""Proofs with fewer zero bits in all could be guessed for an offer that nobody ever made."""


def check_proof(item: ClaimItem, device: DeviceActor, key: bytes, now: datetime) -> None:
    """Raise ``OfferExpiredError`` or ``InvalidProofError`` unless the claim carries its proof.

    The challenge is made anew from the claim's own words and the authenticated device, so any
    changed word gives another prefix, which the nonces do not solve.
    """
    if item.expires_at < now.timestamp():
        raise OfferExpiredError
    challenge = Challenge(
        offer_id=item.offer_id,
        task_id=item.task_id,
        worker=device.public_key,
        bits=item.bits,
        count=item.count,
        expires_at=item.expires_at,
    )
    is_weak = item.count < 1 or item.count * item.bits < MIN_PROOF_BITS
    if is_weak or not challenge.is_solved_by(key, item.nonces):
        raise InvalidProofError


async def claim(
    connection: Connection,
    device: DeviceActor,
    items: Sequence[ClaimItem],
    key: bytes,
    policy: Policy,
    now: datetime,
) -> list[Claimed | Refusal]:
    """Turn solved offers into attempts, one outcome per item.

    Idempotent by offer: claiming again gives the same attempt while it runs.
    """
    refused: dict[int, GstdError] = {}
    for position, item in enumerate(items):
        try:
            check_proof(item, device, key, now)
        except GstdError as error:
            refused[position] = error
    solved = [item for position, item in enumerate(items) if position not in refused]
    claimed = await _take(connection, device, solved, policy, now) if solved else {}
    return [
        refused[position].refusal()
        if position in refused
        else claimed.get(item.offer_id) or TaskTakenError().refusal()
        for position, item in enumerate(items)
    ]


async def _take(
    connection: Connection,
    device: DeviceActor,
    items: Sequence[ClaimItem],
    policy: Policy,
    now: datetime,
) -> dict[UUID, Claimed]:
    await connection.fetch(_sql["lock_tasks"], [item.task_id for item in items])
    rows = await connection.fetch(
        _sql["claim"],
        [item.offer_id for item in items],
        [item.task_id for item in items],
        [new_id() for _ in items],
        [item.bits for item in items],
        [item.count for item in items],
        device.device_id,
        device.account_id,
        now,
        now + timedelta(milliseconds=policy.lease_ms),
        now - timedelta(milliseconds=policy.same_device_after_ms),
        policy.attempt_grace_ms,
    )
    return {row["offer_id"]: _claimed(dict(row), policy) for row in rows}


def _claimed(row: dict[str, object], policy: Policy) -> Claimed:
    facts = msgspec.convert(row, _ClaimRow)
    return Claimed(
        attempt_id=facts.attempt_id,
        task_id=facts.task_id,
        revision=facts.revision,
        lease_ms=policy.lease_ms,
        module_hash=facts.module_hash.hex(),
        metered_hash=facts.metered_hash.hex(),
        profile=facts.profile,
        input=_decode_input(facts.input),
        limits=facts.limits,
    )


class _ClaimRow(msgspec.Struct):
    attempt_id: UUID
    task_id: UUID
    revision: int
    module_hash: bytes
    metered_hash: bytes
    profile: str
    input: bytes
    limits: Limits


async def heartbeat(
    connection: Connection,
    device: DeviceActor,
    attempts: Sequence[UUID],
    policy: Policy,
    now: datetime,
) -> list[Alive | Refusal]:
    """Extend leases, never beyond the task's wall clock and a grace for download and upload.

    A refusal means that the attempt is over.
    """
    lease_until = now + timedelta(milliseconds=policy.lease_ms)
    rows = await connection.fetch(_sql["heartbeat"], attempts, device.device_id, lease_until, now)
    alive = {row["id"]: row["lease_until"] - now for row in rows}
    return [
        Alive(attempt_id=attempt, lease_ms=alive[attempt] // timedelta(milliseconds=1))
        if attempt in alive
        else AttemptOverError().refusal()
        for attempt in attempts
    ]


async def release(
    connection: Connection,
    device: DeviceActor,
    items: Sequence[ReleaseItem],
    policy: Policy,
    now: datetime,
) -> list[Released | Refusal]:
    """Give tasks back, so that others get them at once or after a retry's delay."""
    ids = [item.attempt_id for item in items]
    attempts = await connection.fetch(_sql["attempts"], ids, device.device_id)
    tasks = {row["attempt_id"]: row for row in attempts}
    await connection.fetch(_sql["lock_tasks"], [row["task_id"] for row in attempts])
    rows = await connection.fetch(
        _sql["release"],
        ids,
        [item.reason.value for item in items],
        [item.detail or None for item in items],
        device.device_id,
        now,
    )
    released = {row["id"] for row in rows}
    reasons = {item.attempt_id: item.reason.value for item in items}
    events = [
        _released_event(tasks[attempt], device, reasons[attempt]) for attempt in sorted(released)
    ]
    await append(connection, events, now)
    await advance(connection, [row["task_id"] for row in rows], policy, now)
    faults = [device.device_id for attempt in released if Verdict(reasons[attempt]) in FAULTS]
    await blame_devices(connection, faults, policy, now)
    return [
        Released(attempt_id=attempt) if attempt in released else AttemptOverError().refusal()
        for attempt in ids
    ]


def _released_event(row: Row, device: DeviceActor, reason: str) -> Event:
    facts = dict(row.items())
    return Event(
        kind="attempt.released",
        accounts=(facts["owner"], device.account_id),
        job_id=facts["job_id"],
        task_id=facts["task_id"],
        attempt_id=facts["attempt_id"],
        data={"verdict": reason},
    )


async def module_in_hand(connection: Connection, device: DeviceActor, metered_hash: str) -> bytes:
    """The hash of a module that one of the device's running attempts needs.

    Raises ``AttemptNotFoundError`` for any other module.
    """
    try:
        digest = bytes.fromhex(metered_hash)
    except ValueError:
        digest = b""
    if not await connection.fetchval(_sql["holds_module"], device.device_id, digest):
        raise AttemptNotFoundError("no running attempt of this device needs that module")
    return digest
