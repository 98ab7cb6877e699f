"""How far requesters' use runs ahead of their share, per priority level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from gstd.database.connection import Connection
from gstd.kernel.settings import Policy
from gstd.tasks.order import MILLISECOND, faded_lead
from gstd.tasks.store import sql

Lane = tuple[UUID, int]
"""A requester and a priority level."""


async def lock_leads(
    connection: Connection, lanes: Sequence[Lane], policy: Policy, now: datetime
) -> dict[Lane, int]:
    """The leads of these lanes now, in milliseconds; locks them in order."""
    if not lanes:
        return {}
    accounts, levels = [account for account, _ in lanes], [level for _, level in lanes]
    await connection.execute(sql["open_leads"], accounts, levels, now)
    rows = await connection.fetch(sql["lock_leads"], accounts, levels)
    return {
        (row["account_id"], row["level"]): faded_lead(
            row["lead_ms"], (now - row["at"]) // MILLISECOND, policy.fair_half_life_ms
        )
        for row in rows
    }


async def write_leads(connection: Connection, leads: Mapping[Lane, int], now: datetime) -> None:
    """Write the leads as they are now. They must be locked."""
    if leads:
        accounts, levels = [account for account, _ in leads], [level for _, level in leads]
        await connection.execute(sql["write_leads"], accounts, levels, list(leads.values()), now)
