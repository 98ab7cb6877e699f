"""Messages about the history of money: statements, totals, balances of the past."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from gstd.protocol.types import Asset

SignedNano = Annotated[str, Meta(pattern=r"^-?[0-9]{1,40}$", examples=["-1500000000"])]
"""An amount in nano that may be below zero. JSON carries it as a string."""


class Part(StrEnum):
    """Where an account's money is."""

    AVAILABLE = "available"
    HELD = "held"
    ESCROW = "escrow"
    RESERVED = "reserved"


class Direction(StrEnum):
    """Which way money moved, seen from the part that a row is about."""

    IN = "in"
    OUT = "out"


class TransferKind(StrEnum):
    """Why money moved."""

    GRANT = "grant"
    DEPOSIT = "deposit"
    ASSIGN = "assign"
    FUND = "fund"
    REWARD = "reward"
    FEE = "fee"
    REFEREE = "referee"
    REFUND = "refund"
    VEST = "vest"
    REVERSE = "reverse"
    FORFEIT = "forfeit"
    SHARE = "share"
    RESTITUTION = "restitution"
    RESERVE = "reserve"
    WITHDRAW = "withdraw"
    RETURN = "return"
    CORRECTION = "correction"


class StatementRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one transfer did to one part of a wallet.

    ``balance_after_nano`` is known of what is available only. A transfer between two parts of one
    wallet has two rows. ``position`` is the transfer's place in the audit log, once it has one.
    """

    transfer_id: int
    at: datetime
    kind: TransferKind
    part: Part
    direction: Direction
    amount_nano: SignedNano
    balance_after_nano: SignedNano | None
    asset: Asset
    counterparty: str
    job_id: UUID | None
    task_id: UUID | None
    attempt_id: UUID | None
    position: int | None = None


class StatementPage(msgspec.Struct, frozen=True, kw_only=True):
    """Rows, newest first; pass ``next`` back as ``cursor`` for older ones."""

    items: list[StatementRow]
    next: str | None


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """What moved into and out of one part of a wallet for one reason."""

    asset: Asset
    part: Part
    kind: TransferKind
    in_nano: SignedNano
    out_nano: SignedNano
    transfers: int


class BalanceAt(msgspec.Struct, frozen=True, kw_only=True):
    """One asset of a wallet at a time: available + escrow + held + reserved = total."""

    asset: Asset
    available_nano: SignedNano
    escrow_nano: SignedNano
    held_nano: SignedNano
    reserved_nano: SignedNano
    total_nano: SignedNano


class BalancesAt(msgspec.Struct, frozen=True, kw_only=True):
    """What an account had once all transfers up to ``at`` had happened."""

    account_id: UUID
    at: datetime
    balances: list[BalanceAt]
