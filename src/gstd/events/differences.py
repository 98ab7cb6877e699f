"""Where the audit log and what it describes disagree.

One cursor runs over two dense sequences at once: a page compares the positions and the transfer
ids of the same range. What has no number is compared with the first page.
"""

from __future__ import annotations

from typing import Any

from gstd.database.connection import Connection
from gstd.database.sql import load_queries
from gstd.protocol.audit import Difference, DifferencePage
from gstd.protocol.merkle import HASH_BYTES, Frontier

_sql = load_queries("gstd.events")

FOUND_AT_ONCE = 1_000
"""Differences of one kind that one page tells of."""

_ENDS = [
    f"attempt.{state}" for state in ("accepted", "rejected", "expired", "released", "cancelled")
]
_LOWEST = -(2**63)
_HIGHEST = 2**62


async def differences(connection: Connection, *, after: int, limit: int) -> DifferencePage:
    """Compare what lies in ``(after, after + limit]``; wants one snapshot of the database."""
    low = after or _LOWEST  # rows below the first number are nobody's but a forger's
    heads = await connection.fetchrow(_sql["audit_heads"])
    assert heads is not None, "both heads are rows of the schema"
    end = min(after + limit, _HIGHEST)
    following: int | None = await connection.fetchval(_sql["audit_next_after"], end)
    sealed = min(max(heads["size"], heads["checkpoint"]), max(heads["last"], after))
    expected = max(heads["size"], heads["checkpoint"], heads["head"], heads["last"])
    found: list[Difference] = []
    if after == 0:
        found += _heads(heads)
        found += await _unlogged_attempts(connection) + await _unlogged_results(connection)
    found += await _gaps(connection, after, expected if following is None else min(end, expected))
    found += await _leaves(connection, low, end)
    found += await _hashes(connection, after, min(end, sealed))
    found += await _tiles(connection, after, end)
    found += await _transfers(connection, low, end)
    found += await _unlogged_transfers(connection, low, end)
    found += await _attempts(connection, low, end)
    return DifferencePage(items=found, next=following)


def _heads(heads: Any) -> list[Difference]:
    found = []
    if heads["size"] != heads["checkpoint"]:
        found.append(
            Difference(
                subject="audit_head",
                detail="the tree's size is not that of the newest checkpoint",
                field="size",
                sealed=str(heads["checkpoint"]),
                present=str(heads["size"]),
            )
        )
    if heads["head"] != heads["last"]:
        found.append(
            Difference(
                subject="event_head",
                detail="the log does not end where its numbering stands",
                field="position",
                sealed=str(heads["head"]),
                present=str(heads["last"]),
            )
        )
    if heads["odd"]:
        detail = f"{heads['odd']} rows of the log stand before its beginning"
        found.append(Difference(subject="event_log", detail=detail))
    return found


async def _gaps(connection: Connection, after: int, end: int) -> list[Difference]:
    if end <= after:
        return []
    rows = await connection.fetch(_sql["audit_gaps"], after, end, FOUND_AT_ONCE)
    return [
        Difference(
            subject=f"position {row['first']}"
            if row["first"] == row["last"]
            else f"positions {row['first']} to {row['last']}",
            detail="missing from the log",
            position=row["first"],
        )
        for row in rows
    ]


async def _leaves(connection: Connection, low: int, end: int) -> list[Difference]:
    rows = await connection.fetch(_sql["audit_changed_leaves"], low, end, FOUND_AT_ONCE)
    return [_row_changed(row, "the log row is not what its leaf was made of") for row in rows]


async def _hashes(connection: Connection, after: int, end: int) -> list[Difference]:
    rows = await connection.fetch(_sql["audit_changed_hashes"], after, end, FOUND_AT_ONCE)
    return [_row_changed(row, "the log row's leaf is not the one in the tree") for row in rows]


def _row_changed(row: Any, detail: str) -> Difference:
    return Difference(
        subject=f"position {row['position']} ({row['kind']})",
        detail=detail,
        position=row["position"],
        field="leaf",
        sealed=row["sealed"],
        present=row["present"],
    )


async def _tiles(connection: Connection, after: int, end: int) -> list[Difference]:
    rows = await connection.fetch(_sql["audit_full_tiles"], after, end, FOUND_AT_ONCE)
    found = []
    for row in rows:
        top = _root_of(row["hashes"])
        if top != row["above"]:
            found.append(
                Difference(
                    subject=f"tile {row['level']}/{row['index']}",
                    detail="its hashes do not lead to the one in the tile above",
                    field="hashes",
                    sealed=None if row["above"] is None else row["above"].hex(),
                    present=top.hex(),
                )
            )
    return found


def _root_of(hashes: bytes) -> bytes:
    tree = Frontier()
    width = HASH_BYTES
    tree.extend(hashes[at : at + width] for at in range(0, len(hashes), width))
    return tree.root()


async def _transfers(connection: Connection, low: int, end: int) -> list[Difference]:
    rows = await connection.fetch(_sql["audit_changed_transfers"], low, end, FOUND_AT_ONCE)
    return [
        Difference(
            subject=f"transfer {row['transfer']}",
            detail="was logged and is gone"
            if row["field"] is None
            else f"{row['field']} is not what was logged",
            position=row["position"],
            field=row["field"],
            sealed=row["sealed"],
            present=row["present"],
        )
        for row in rows
    ]


async def _unlogged_transfers(connection: Connection, low: int, end: int) -> list[Difference]:
    rows = await connection.fetch(_sql["audit_unlogged_transfers"], low, end, FOUND_AT_ONCE)
    return [
        Difference(
            subject=f"transfer {row['id']}",
            detail=f"was never logged ({row['kind']})",
            present=row["amount"],
        )
        for row in rows
    ]


async def _attempts(connection: Connection, low: int, end: int) -> list[Difference]:
    rows = await connection.fetch(_sql["audit_changed_attempts"], low, end, FOUND_AT_ONCE, _ENDS)
    return [
        Difference(
            subject=f"attempt {row['attempt_id']}",
            detail="was logged and is gone"
            if row["field"] is None
            else f"{row['field']} is not what was logged",
            position=row["position"],
            field=row["field"],
            sealed=row["sealed"],
            present=row["present"],
        )
        for row in rows
    ]


async def _unlogged_attempts(connection: Connection) -> list[Difference]:
    rows = await connection.fetch(_sql["audit_unlogged_attempts"], _ENDS, FOUND_AT_ONCE)
    return [
        Difference(
            subject=f"attempt {row['id']}",
            detail="its end was never logged",
            field="state",
            present=row["state"],
        )
        for row in rows
    ]


async def _unlogged_results(connection: Connection) -> list[Difference]:
    rows = await connection.fetch(_sql["audit_unlogged_results"], FOUND_AT_ONCE)
    return [
        Difference(
            subject=f"attempt {row['id']}",
            detail="its result was never logged",
            field="result_hash",
            present=row["result_hash"],
        )
        for row in rows
    ]
