"""Messages about accounts, devices, wallets, events and the platform's own health."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from gstd.protocol.matching import DeviceLimits
from gstd.protocol.types import Asset, HexHash, Name, Nano, Role


class AccountRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new account, made by an admin."""

    name: Name
    roles: Annotated[list[Role], Meta(min_length=1, max_length=3)]


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    name: str
    roles: list[Role]
    created_at: datetime


class NewAccount(msgspec.Struct, frozen=True, kw_only=True):
    """``api_key`` is shown this once and stored only as a hash."""

    account: AccountView
    api_key: str


class CreditRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Test credits for an account; only in development mode."""

    account_id: UUID
    amount_nano: Nano


class EnrolmentCode(msgspec.Struct, frozen=True, kw_only=True):
    """A one-time code that links a device key to the account that asked for it."""

    code: str
    expires_at: datetime


class EnrolRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Links a device key. ``signature`` is the key's own over ``gstd-enrol-v1`` and the code."""

    code: Annotated[str, Meta(max_length=100)]
    name: Name
    public_key: HexHash
    signature: bytes


class DeviceView(msgspec.Struct, frozen=True, kw_only=True):
    """``trust`` goes from 0 to 1000 and moves only by what verification decided.

    ``limits`` is what the owner set; ``fuel_per_ms`` was measured on accepted results.
    """

    id: UUID
    name: str
    public_key: HexHash
    state: str
    trust: int
    accepted: int
    rejected: int
    enrolled_at: datetime
    last_seen_at: datetime | None = None
    limits: DeviceLimits = msgspec.field(default_factory=DeviceLimits)
    fuel_per_ms: float | None = None


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """One asset of a wallet: available + escrow + held + reserved = total.

    ``reserved`` is on its way to the chain.
    """

    asset: Asset
    available_nano: Nano
    escrow_nano: Nano
    held_nano: Nano
    reserved_nano: Nano
    total_nano: Nano


class WalletView(msgspec.Struct, frozen=True, kw_only=True):
    account_id: UUID
    balances: list[Balance]


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened. ``position`` counts up by one over the whole platform."""

    position: int
    kind: str
    at: datetime
    job_id: UUID | None
    task_id: UUID | None
    attempt_id: UUID | None
    data: dict[str, Any]


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Events after the asked position; pass ``position`` back to go on without a gap."""

    items: list[EventView]
    position: int


class Invariant(msgspec.Struct, frozen=True, kw_only=True):
    """One promise of the ledger and the rows that break it."""

    name: str
    holds: bool
    broken: list[str]


class LedgerCheck(msgspec.Struct, frozen=True, kw_only=True):
    """All invariants, and the sum of all balances, which must be zero."""

    ok: bool
    sum_nano: str
    accounts: int
    transfers: int
    invariants: list[Invariant]


class RecordedError(msgspec.Struct, frozen=True, kw_only=True):
    """An error nobody expected, as the operator sees it."""

    id: UUID
    at: datetime
    code: str
    place: str
    request_id: str | None
    detail: str
    context: dict[str, Any]


class HealthPart(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    status: str
    detail: str = ""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """``healthy``, ``degraded`` while Valkey is gone, ``unhealthy`` while PostgreSQL is."""

    status: str
    version: str
    schema_version: int | None
    mode: str
    profile: str
    parts: list[HealthPart]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An RFC 9457 problem. ``code`` is stable; ``hint`` says what to do instead."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str
    request_id: str
