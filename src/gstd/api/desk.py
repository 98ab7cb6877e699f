"""The desk: what all devices that wait in this process ask for is done together.

Who they are is read for all of them at once; claims, heartbeats, submits and releases are one
transaction per tick each. Answers follow the commit, and hints go out once per tick.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from gstd.accounts import service as accounts
from gstd.accounts.errors import NotAuthenticatedError
from gstd.accounts.model import DeviceActor
from gstd.api.coalescer import Coalescer
from gstd.blobs.store import Blobs
from gstd.bus.bus import Bus, Hint
from gstd.database.connection import Connection, Database, DatabaseUnavailableError
from gstd.dispatch import claims, submits
from gstd.dispatch.claims import Proven, Sent
from gstd.dispatch.submits import Checked, Held
from gstd.events.incidents import record
from gstd.kernel.clock import Clock
from gstd.kernel.errors import GstdError, Refusal
from gstd.kernel.settings import Policy
from gstd.protocol.work import (
    Alive,
    Claimed,
    ClaimItem,
    Released,
    ReleaseItem,
    SubmitItem,
    Submitted,
)

T = TypeVar("T")
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

Batch = Callable[[Connection, Sequence[Item], Policy, datetime], Awaitable[list[Outcome]]]
"""A use case over items of any devices."""

LANES = 2
"""While one batch commits, the next is made."""


class Desk:
    """Serves the devices of one process. ``close`` it before the database."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        blobs: Blobs,
        policy: Policy,
        clock: Clock,
        pow_key: bytes,
        batch_items: int,
    ) -> None:
        self._database = database
        self._bus = bus
        self._blobs = blobs
        self._policy = policy
        self._clock = clock
        self._pow_key = pow_key
        size = batch_items
        self._devices = Coalescer(self._read_devices, size=size, lanes=LANES)
        self._claims = Coalescer(self._do_claims, size=size, lanes=LANES)
        self._heartbeats = Coalescer(self._do_heartbeats, size=size)
        self._held = Coalescer(self._read_held, size=size, lanes=LANES)
        self._submits = Coalescer(self._do_submits, size=size, lanes=LANES)
        self._releases = Coalescer(self._do_releases, size=size)

    async def close(self) -> None:
        """Finish what has begun, and send away who comes later."""
        lines = (self._devices, self._claims, self._heartbeats, self._held)
        await asyncio.gather(*(line.close() for line in (*lines, self._submits, self._releases)))

    async def device_of_key(self, public_key: str) -> DeviceActor:
        """The device with this key. Raises ``NotAuthenticatedError`` for an unknown one."""
        [device] = await self._devices.run([public_key])
        if device is None:
            raise NotAuthenticatedError("no device is enrolled with this key")
        return device

    async def claim(
        self, device: DeviceActor, items: Sequence[ClaimItem]
    ) -> list[Claimed | Refusal]:
        """Turn solved offers into attempts. Proofs are checked before anything is locked."""
        found = claims.check_proofs(device, items, self._pow_key, self._clock.now())
        outcomes = iter(await self._claims.run([one for one in found if isinstance(one, Proven)]))
        return [next(outcomes) if isinstance(one, Proven) else one for one in found]

    async def heartbeat(
        self, device: DeviceActor, attempts: Sequence[UUID]
    ) -> list[Alive | Refusal]:
        """Extend leases."""
        return await self._heartbeats.run([(device, attempt) for attempt in attempts])

    async def submit(
        self, device: DeviceActor, items: Sequence[SubmitItem]
    ) -> list[Submitted | Refusal]:
        """Store results. Hashes and signatures are checked and bytes kept before any lock."""
        held = await self._held.run([(device, item.attempt_id) for item in items])
        now = self._clock.now()
        found = [
            submits.check(device, item, attempt, now)
            for item, attempt in zip(items, held, strict=True)
        ]
        good = [one for one in found if isinstance(one, Checked)]
        await submits.store_outputs(self._blobs, good)
        outcomes = iter(await self._submits.run(good))
        return [next(outcomes) if isinstance(one, Checked) else one for one in found]

    async def release(
        self, device: DeviceActor, items: Sequence[ReleaseItem]
    ) -> list[Released | Refusal]:
        """Give tasks back."""
        return await self._releases.run([(device, item) for item in items])

    async def _read_devices(self, keys: Sequence[str]) -> list[DeviceActor | None]:
        async with self._database.connection() as connection:
            return await accounts.devices_of_keys(connection, keys)

    async def _do_claims(self, items: Sequence[Proven]) -> list[Claimed | Refusal]:
        outcomes = await self._batch(claims.claim, items, "work.claims")
        taken = [str(one.task_id) for one in outcomes if isinstance(one, Claimed)]
        if taken:
            await self._bus.drop(taken)
            await self._bus.publish(Hint.OUTBOX)
        return outcomes

    async def _do_heartbeats(self, items: Sequence[Sent[UUID]]) -> list[Alive | Refusal]:
        return await self._batch(claims.heartbeat, items, "work.heartbeats")

    async def _read_held(self, attempts: Sequence[Sent[UUID]]) -> list[Held | None]:
        async with self._database.connection() as connection:
            return await submits.held_attempts(connection, attempts)

    async def _do_submits(self, items: Sequence[Checked]) -> list[Submitted | Refusal]:
        outcomes = await self._batch(submits.submit, items, "work.submits")
        if any(isinstance(one, Submitted) for one in outcomes):
            await self._bus.publish(Hint.REFEREE, Hint.OUTBOX, Hint.QUEUE, Hint.TASKS)
        return outcomes

    async def _do_releases(self, items: Sequence[Sent[ReleaseItem]]) -> list[Released | Refusal]:
        outcomes = await self._batch(claims.release, items, "work.releases")
        if any(isinstance(one, Released) for one in outcomes):
            await self._bus.publish(Hint.OUTBOX, Hint.QUEUE)
        return outcomes

    async def _batch(
        self, work: Batch[Item, Outcome | Refusal], items: Sequence[Item], place: str
    ) -> list[Outcome | Refusal]:
        """Run all items in one transaction; if that fails, each half in its own.

        So one poisonous item is soon alone: it costs the others time, never their outcome.
        """

        async def once(connection: Connection) -> list[Outcome | Refusal]:
            return await work(connection, items, self._policy, self._clock.now())

        try:
            return await self._database.run(once)
        except DatabaseUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, the other items go on
            if len(items) == 1:
                await record(self._database, error, place=place, now=self._clock.now())
                return [GstdError("this item failed on the platform").refusal()]
        half = len(items) // 2
        first = await self._batch(work, items[:half], place)
        return first + await self._batch(work, items[half:], place)
