"""What devices did: trust by what verification decided, health by how attempts ended."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from gstd.accounts.health import Health
from gstd.database.connection import Connection, to_structs
from gstd.database.sql import load_queries
from gstd.events.service import Event, append
from gstd.kernel.settings import Policy

_sql = load_queries("gstd.accounts")


class Judgement(msgspec.Struct, frozen=True):
    """How a device's attempts ended: accepted for others, proved wrong, not ended by the device.

    ``own`` were accepted for its own account: they are no reason for trust, but it ended them.
    ``speeds`` were measured on those for others, in fuel per millisecond.
    """

    device_id: UUID
    accepted: int = 0
    wrong: int = 0
    faults: int = 0
    own: int = 0
    speeds: tuple[float, ...] = ()


class Judged(Health, frozen=True, kw_only=True):
    """A device as it is judged."""

    id: UUID
    account_id: UUID
    state: str
    trust: int
    fuel_per_ms: float | None


def trust_after(trust: int, accepted: int, wrong: int) -> int:
    """A twentieth of what is missing more for each right result, half for each wrong one."""
    return round((1000 - (1000 - trust) * 0.95**accepted) * 0.5**wrong)


def speed_after(fuel_per_ms: float | None, measured: Sequence[float]) -> float | None:
    """A moving average: the first measurement counts whole, each later one a fifth."""
    for speed in measured:
        fuel_per_ms = speed if fuel_per_ms is None else 0.8 * fuel_per_ms + 0.2 * speed
    return fuel_per_ms


async def judge_devices(
    connection: Connection, judgements: Sequence[Judgement], policy: Policy, now: datetime
) -> None:
    """Move trust, health and speed; suspend devices whose trust falls below the minimum.

    One judgement per device.
    """
    if not judgements:
        return
    told = {judgement.device_id: judgement for judgement in judgements}
    assert len(told) == len(judgements), "one judgement per device"
    rows = await connection.fetch(_sql["lock_devices"], list(told))
    before = to_structs(rows, Judged)
    after = [_judge(device, told[device.id], policy, now) for device in before]
    await connection.execute(
        _sql["write_judged"],
        [device.id for device in after],
        [told[device.id].accepted for device in after],
        [told[device.id].wrong for device in after],
        [device.trust for device in after],
        [device.state for device in after],
        [device.failures for device in after],
        [device.ejections for device in after],
        [device.ejected_until for device in after],
        [device.quota for device in after],
        [device.fuel_per_ms for device in after],
    )
    pairs = zip(before, after, strict=True)
    await append(connection, [event for pair in pairs for event in _events(*pair)], now)


def _judge(device: Judged, judgement: Judgement, policy: Policy, now: datetime) -> Judged:
    trust = trust_after(device.trust, judgement.accepted, judgement.wrong)
    is_lost = device.state == "active" and judgement.wrong > 0 and trust < policy.min_trust
    jitter = random.random()  # noqa: S311 - only spreads returns
    judged = device.succeeded(judgement.accepted + judgement.own, policy).failed(
        judgement.faults, now, policy, jitter
    )
    return msgspec.structs.replace(
        judged,
        state="suspended" if is_lost else device.state,
        trust=trust,
        fuel_per_ms=speed_after(device.fuel_per_ms, judgement.speeds),
    )


def _events(before: Judged, after: Judged) -> list[Event]:
    events = []
    facts: dict[str, object] = {"device_id": str(after.id), "state": after.state}
    if after.trust < before.trust:
        events.append(_event("device.trust_lowered", after, {**facts, "trust": after.trust}))
    if after.ejected_until is not None and after.ejections > before.ejections:
        data = {**facts, "until": after.ejected_until.isoformat(), "failures": after.failures}
        events.append(_event("device.ejected", after, data))
    if before.ejected_until is not None and after.ejected_until is None:
        events.append(_event("device.readmitted", after, facts))
    return events


def _event(kind: str, device: Judged, data: dict[str, object]) -> Event:
    return Event(kind=kind, accounts=(device.account_id,), data=data)
