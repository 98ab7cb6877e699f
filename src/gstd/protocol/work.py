"""Messages between a device and the platform: offers, claims, heartbeats, submits, releases.

Every request carries an array and every answer one outcome per item, in the same order.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from gstd.kernel.errors import Refusal
from gstd.protocol.execution import Limits, Status, TaskInput
from gstd.protocol.matching import DeviceLimits
from gstd.protocol.types import Asset, HexHash, Nano, Text

MAX_BATCH = 64
"""Items in one request."""

MAX_WAIT_MS = 25_000
"""How long one request for offers may wait for work."""

Nonce = Annotated[str, Meta(pattern=r"^[0-9a-f]{1,16}$")]


class OffersRequest(DeviceLimits, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """A device asks for work within its limits.

    ``free`` counts its free slots, ``wait_ms`` says how long the answer may wait for work.
    """

    profile: str
    free: Annotated[int, Meta(ge=1, le=MAX_BATCH)] = 1
    memory_bytes: Annotated[int, Meta(ge=65_536)] | None = 256 << 20
    wait_ms: Annotated[int, Meta(ge=0, le=MAX_WAIT_MS)] = 0


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A task shown to one device with its proof-of-work challenge. Nothing is reserved yet.

    ``prefix``, ``bits`` and ``count`` are the challenge; ``expires_at`` is in Unix seconds.
    """

    offer_id: UUID
    task_id: UUID
    job_id: UUID
    reward_nano: Nano
    asset: Asset
    module_hash: HexHash
    limits: Limits
    prefix: str
    bits: int
    count: int
    expires_at: int


class OffersResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Offers, or none and in ``idle`` the reason in words."""

    offers: list[Offer]
    idle: str | None = None


class ClaimItem(msgspec.Struct, frozen=True, kw_only=True):
    """A solved offer: the offer's own words back, with ``count`` nonces in ascending order."""

    offer_id: UUID
    task_id: UUID
    bits: int
    count: int
    expires_at: int
    nonces: Annotated[list[Nonce], Meta(max_length=64)]


class ClaimsRequest(msgspec.Struct, frozen=True, kw_only=True):
    claims: Annotated[list[ClaimItem], Meta(min_length=1, max_length=MAX_BATCH)]


class Claimed(msgspec.Struct, frozen=True, kw_only=True, tag="claimed", tag_field="outcome"):
    """An attempt is yours until the lease ends; ``attempt_id`` is the fencing token."""

    attempt_id: UUID
    task_id: UUID
    revision: int
    lease_ms: int
    module_hash: HexHash
    metered_hash: HexHash
    profile: str
    input: TaskInput
    limits: Limits


class ClaimsResponse(msgspec.Struct, frozen=True, kw_only=True):
    outcomes: list[Claimed | Refusal]


class HeartbeatsRequest(msgspec.Struct, frozen=True, kw_only=True):
    attempts: Annotated[list[UUID], Meta(min_length=1, max_length=MAX_BATCH)]


class Alive(msgspec.Struct, frozen=True, kw_only=True, tag="alive", tag_field="outcome"):
    """The lease is extended by ``lease_ms`` from now."""

    attempt_id: UUID
    lease_ms: int


class HeartbeatsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal means: stop working on that attempt."""

    outcomes: list[Alive | Refusal]


class SubmitItem(msgspec.Struct, frozen=True, kw_only=True):
    """A result: what the module did, signed over ``signing.result_statement``."""

    attempt_id: UUID
    task_id: UUID
    revision: int
    status: Status
    exit_code: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    fuel: Annotated[int, Meta(ge=0, le=2**62)]
    stdout: bytes
    stderr: bytes
    signature: bytes


class SubmitsRequest(msgspec.Struct, frozen=True, kw_only=True):
    results: Annotated[list[SubmitItem], Meta(min_length=1, max_length=MAX_BATCH)]


class Submitted(msgspec.Struct, frozen=True, kw_only=True, tag="submitted", tag_field="outcome"):
    """The result is stored. ``state`` is the attempt's state after this step."""

    attempt_id: UUID
    state: str


class SubmitsResponse(msgspec.Struct, frozen=True, kw_only=True):
    outcomes: list[Submitted | Refusal]


class ReleaseReason(StrEnum):
    """Why a device gives a task back. Only a host fault counts as one of the task's retries."""

    SHUTTING_DOWN = "shutting_down"
    DECLINED = "declined"
    HOST_FAULT = "host_fault"
    WALL_CLOCK = "wall_clock"


class ReleaseItem(msgspec.Struct, frozen=True, kw_only=True):
    attempt_id: UUID
    reason: ReleaseReason
    detail: Annotated[Text, Meta(max_length=500)] = ""


class ReleasesRequest(msgspec.Struct, frozen=True, kw_only=True):
    releases: Annotated[list[ReleaseItem], Meta(min_length=1, max_length=MAX_BATCH)]


class Released(msgspec.Struct, frozen=True, kw_only=True, tag="released", tag_field="outcome"):
    """The task is given to another device."""

    attempt_id: UUID


class ReleasesResponse(msgspec.Struct, frozen=True, kw_only=True):
    outcomes: list[Released | Refusal]
