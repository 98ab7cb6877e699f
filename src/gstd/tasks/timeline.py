"""A task's whole story: offered, claimed, heard of, submitted, judged, paid, or how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from gstd.database.connection import Connection, to_structs
from gstd.kernel.ids import made_at
from gstd.kernel.money import format_gstd
from gstd.protocol.jobs import Moment, Timeline
from gstd.tasks.store import sql
from gstd.tasks.views import task_view

_WORDS = {
    "attempt.claimed": "claimed with its proof of work",
    "attempt.accepted": "result accepted",
    "attempt.rejected": "result rejected",
    "attempt.expired": "ended without a result",
    "attempt.released": "given back",
    "attempt.cancelled": "cancelled, because the task ended",
    "task.reordered": "given another turn",
}


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt, as far as the log does not tell of it."""

    attempt_id: UUID
    offer_id: UUID
    pow_bits: int
    pow_count: int
    heartbeats: int
    heartbeat_at: datetime | None
    lease_until: datetime
    state: str
    reason: str | None
    device_name: str


async def timeline(connection: Connection, task_id: UUID, reader: UUID | None) -> Timeline:
    """Everything that happened to a task. Raises ``TaskNotFoundError`` for somebody else's."""
    task = await task_view(connection, task_id, reader)
    tried = to_structs(await connection.fetch(sql["moments_of_attempts"], task_id), Tried)
    names = {attempt.attempt_id: attempt for attempt in tried}
    logged = [
        _logged(dict(row), names) for row in await connection.fetch(sql["moments_of_task"], task_id)
    ]
    unlogged = [moment for attempt in tried for moment in _unlogged(attempt)]
    moments = sorted([*unlogged, *logged], key=lambda moment: (moment.at, moment.position or 0))
    return Timeline(task=task, moments=moments)


def _logged(row: Mapping[str, Any], attempts: Mapping[UUID, Tried]) -> Moment:
    attempt = attempts.get(row["attempt_id"])
    return Moment(
        at=row["at"],
        kind=row["kind"],
        words=_words(row["kind"], row["data"], attempt),
        attempt_id=row["attempt_id"],
        device_name=None if attempt is None else attempt.device_name,
        position=row["position"],
    )


def _words(kind: str, data: Mapping[str, Any], attempt: Tried | None) -> str:
    if kind == "earning.vested":
        return f"{format_gstd(int(data['amount_nano']))} paid out of holdback"
    if kind == "attempt.submitted":
        return f"submitted: {data['status']}, {data['fuel']} fuel"
    if kind.startswith("task.") and "reason" in data:
        return f"{kind.removeprefix('task.')}: {data['reason']}"
    if kind == "task.reordered":
        return f"now {data['priority']}, due {data['deadline']}"
    parts = [_WORDS.get(kind, kind.replace("_", " ").replace(".", " "))]
    if data.get("verdict"):
        parts.append(str(data["verdict"]).replace("_", " "))
    if kind == "attempt.released" and attempt is not None and attempt.reason:
        parts.append(attempt.reason)
    return ": ".join(parts)


def _unlogged(attempt: Tried) -> Iterator[Moment]:
    yield Moment(
        at=made_at(attempt.offer_id),
        kind="attempt.offered",
        words=f"offered for {attempt.pow_count} proofs of {attempt.pow_bits} bits",
        attempt_id=attempt.attempt_id,
        device_name=attempt.device_name,
    )
    if attempt.heartbeat_at is not None:
        until = f", lease until {attempt.lease_until:%H:%M:%S}" * (attempt.state == "running")
        yield Moment(
            at=attempt.heartbeat_at,
            kind="attempt.heartbeat",
            words=f"last of {attempt.heartbeats} heartbeats{until}",
            attempt_id=attempt.attempt_id,
            device_name=attempt.device_name,
        )
