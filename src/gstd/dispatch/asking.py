"""What devices last asked for, known to every process, so that ``why`` can answer."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from gstd.bus.bus import Bus
from gstd.protocol.work import OffersRequest

REMEMBERED_MS = 600_000
"""How long a request is remembered: a busy device asks for nothing while it works."""

LATE = timedelta(seconds=5)
"""How much later than its answer was due a device that still looks for work asks again."""


class Asking(msgspec.Struct, frozen=True):
    """A device's last request for work."""

    request: OffersRequest
    at: datetime

    def is_waiting(self, now: datetime) -> bool:
        """Whether the device still waits for an answer, or is about to ask again."""
        return now <= self.at + timedelta(milliseconds=self.request.wait_ms) + LATE


ONLINE = timedelta(seconds=60)
"""A device that was heard of within this time is online; the longest wait is shorter."""

ONLINE_AT_MOST = 2_000
"""Of so many devices, those heard of last, ``why`` counts."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Asking).decode


async def note_asking(bus: Bus, device_id: UUID, request: OffersRequest, now: datetime) -> None:
    """Remember what a device asks for."""
    note = _encode(Asking(request, now.astimezone(UTC)))
    await bus.write_note(f"asking:{device_id}", note, REMEMBERED_MS)


async def last_asked(bus: Bus, device_ids: Sequence[UUID]) -> dict[UUID, Asking]:
    """What these devices asked for last, where that is not long ago."""
    notes = await bus.read_notes([f"asking:{device_id}" for device_id in device_ids])
    found = {}
    for device_id, note in zip(device_ids, notes, strict=True):
        with contextlib.suppress(msgspec.DecodeError):  # of another version of this code
            if note is not None:
                found[device_id] = _decode(note)
    return found


async def online(bus: Bus, now: datetime) -> dict[UUID, Asking | None]:
    """The devices that are online, with what each asked for last."""
    since_ms = int((now - ONLINE).timestamp() * 1000)
    devices = [UUID(device) for device in await bus.latest_seen(since_ms, ONLINE_AT_MOST)]
    asked = await last_asked(bus, devices)
    return {device: asked.get(device) for device in devices}
