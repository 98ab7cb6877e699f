"""Claims, heartbeats and releases: who holds which attempt.

Each takes what any number of devices sent and does it in a few statements for all of them. That a
device may still work is asked in these statements, whatever was known when it was authenticated.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

import msgspec

from gstd.accounts.model import DeviceActor
from gstd.database.connection import Connection
from gstd.database.notebook import note_queued
from gstd.database.sql import load_queries
from gstd.dispatch.errors import (
    InvalidProofError,
    NeedsMoreTrustError,
    OfferExpiredError,
    PrivatePoolError,
)
from gstd.kernel.errors import GstdError, Refusal
from gstd.kernel.ids import new_id
from gstd.kernel.settings import Policy
from gstd.proof_of_work.challenge import Challenge
from gstd.protocol.execution import Limits, TaskInput
from gstd.protocol.work import Alive, Claimed, ClaimItem, Released, ReleaseItem
from gstd.tasks.advance import advance, blame_devices
from gstd.tasks.errors import AttemptNotFoundError, AttemptOverError, TaskTakenError
from gstd.tasks.model import FAULTS, Verdict

T = TypeVar("T")

Sent = tuple[DeviceActor, T]
"""Something with the device that sent it."""

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


class Proven(msgspec.Struct, frozen=True):
    """A claim of a device whose proof of work was checked."""

    device: DeviceActor
    item: ClaimItem


def check_proofs(
    device: DeviceActor, items: Sequence[ClaimItem], key: bytes, now: datetime
) -> list[Proven | Refusal]:
    """What of a device's claims may go on to ``claim``. Needs no database."""
    found: list[Proven | Refusal] = []
    for item in items:
        try:
            check_proof(item, device, key, now)
        except GstdError as error:
            found.append(error.refusal())
        else:
            found.append(Proven(device, item))
    return found


async def claim(
    connection: Connection, claims: Sequence[Proven], policy: Policy, now: datetime
) -> list[Claimed | Refusal]:
    """Turn solved offers of any devices into attempts, one outcome per claim.

    Where several want the same task, the first come first. Idempotent by offer: claiming again
    gives the same attempt while it runs.
    """
    await connection.execute(_sql["lock_tasks"], [one.item.task_id for one in claims])
    rows = await connection.fetch(
        _sql["claim"],
        [one.item.offer_id for one in claims],
        [one.item.task_id for one in claims],
        [new_id() for _ in claims],
        [one.device.device_id for one in claims],
        [one.item.bits for one in claims],
        [one.item.count for one in claims],
        now,
        now + timedelta(milliseconds=policy.lease_ms),
        now - timedelta(milliseconds=policy.same_device_after_ms),
        policy.attempt_grace_ms,
    )
    note_queued(row["task_id"] for row in rows)
    claimed = {(row["device_id"], row["offer_id"]): _claimed(dict(row), policy) for row in rows}
    missed = [one for one in claims if (one.device.device_id, one.item.offer_id) not in claimed]
    barred = await _barred(connection, missed) if missed else {}
    return [
        claimed.get((one.device.device_id, one.item.offer_id))
        or barred.get((one.device.device_id, one.item.task_id), TaskTakenError()).refusal()
        for one in claims
    ]


async def _barred(
    connection: Connection, claims: Sequence[Proven]
) -> dict[tuple[UUID, UUID], GstdError]:
    """Why devices may not have tasks, where it is not that somebody else has them."""
    rows = await connection.fetch(
        _sql["barred_tasks"],
        [one.device.device_id for one in claims],
        [one.item.task_id for one in claims],
    )
    return {
        (row["device_id"], row["task_id"]): NeedsMoreTrustError(
            f"trust {row['trust']} is below {row['min_trust']}"
        )
        if row["trust"] < row["min_trust"]
        else PrivatePoolError()
        for row in rows
    }


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
    connection: Connection, beats: Sequence[Sent[UUID]], policy: Policy, now: datetime
) -> list[Alive | Refusal]:
    """Extend leases, never beyond the task's wall clock and a grace for download and upload.

    A refusal means that the attempt is over.
    """
    lease_until = now + timedelta(milliseconds=policy.lease_ms)
    rows = await connection.fetch(_sql["heartbeat"], *_held_by(beats), lease_until, now)
    alive = {(row["device_id"], row["id"]): row["lease_until"] - now for row in rows}
    return [
        Alive(attempt_id=attempt, lease_ms=left // timedelta(milliseconds=1))
        if (left := alive.get((device.device_id, attempt)))
        else AttemptOverError().refusal()
        for device, attempt in beats
    ]


async def release(
    connection: Connection, releases: Sequence[Sent[ReleaseItem]], policy: Policy, now: datetime
) -> list[Released | Refusal]:
    """Give tasks back, so that others get them at once or after a retry's delay."""
    attempts, devices = _held_by([(device, item.attempt_id) for device, item in releases])
    await connection.execute(_sql["lock_tasks_of"], attempts)
    rows = await connection.fetch(
        _sql["release"],
        attempts,
        devices,
        [item.reason.value for _, item in releases],
        [item.detail or None for _, item in releases],
        now,
    )
    released = {(row["device_id"], row["id"]) for row in rows}
    await advance(connection, [row["task_id"] for row in rows], policy, now, locked=True)
    faults = [row["device_id"] for row in rows if Verdict(row["verdict"]) in FAULTS]
    await blame_devices(connection, faults, policy, now)
    return [
        Released(attempt_id=item.attempt_id)
        if (device.device_id, item.attempt_id) in released
        else AttemptOverError().refusal()
        for device, item in releases
    ]


def _held_by(attempts: Sequence[Sent[UUID]]) -> tuple[list[UUID], list[UUID]]:
    """Attempts and, in the same places, the devices that say they hold them."""
    return [attempt for _, attempt in attempts], [device.device_id for device, _ in attempts]


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
