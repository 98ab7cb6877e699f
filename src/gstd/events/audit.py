"""The log as an audit log: its rows are sealed in one Merkle tree, whose heads are signed.

The row at position ``n`` is leaf ``n - 1``. Whoever changes a row, a leaf or a tile afterwards can
be found by it, as long as somebody has kept a checkpoint or the key is not the changer's.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from gstd.database.connection import Connection, to_struct, to_structs
from gstd.database.sql import load_queries
from gstd.kernel.errors import GstdError
from gstd.protocol import merkle
from gstd.protocol.audit import (
    AuditKey,
    CheckpointPage,
    CheckpointView,
    ConsistencyProof,
    InclusionProof,
    LeafPage,
    SealedFact,
    StatementProof,
)
from gstd.protocol.checkpoint import (
    Checkpoint,
    CheckpointError,
    LogKey,
    open_note,
    sign,
    verifier_key,
)
from gstd.protocol.merkle import Tile

_sql = load_queries("gstd.events")

ORIGIN = "gstd/audit/v1"
"""The log's name in its checkpoints."""

SEALED_AT_ONCE = 5_000


class NothingSealedError(GstdError):
    """The log has no checkpoint yet."""

    code = "audit_nothing_sealed"
    status = 404
    hint = "Ask again in a few seconds: the scheduler seals the log once a second."


class UnknownSizeError(GstdError):
    """The log never had this size."""

    code = "audit_size_unknown"
    status = 404
    hint = "Use sizes from 0 to that of GET /audit/checkpoint, the smaller one first."


class UnknownFactError(GstdError):
    """The log has no such event for you."""

    code = "audit_fact_unknown"
    status = 404
    hint = "Use positions that GET /events lists for this account."


class NotSealedError(GstdError):
    """The event is logged but not sealed yet."""

    code = "audit_not_sealed_yet"
    status = 409
    hint = "Ask again in a few seconds: the scheduler seals the log once a second."


class BrokenLogError(GstdError):
    """The audit log contradicts itself."""

    code = "audit_log_broken"
    status = 500
    hint = "Nothing more is sealed. Run `gstd admin audit verify`: it names what was changed."


def log_key(secret: bytes) -> LogKey:
    """The log's signing key, derived from the platform's secret."""
    return LogKey.from_seed(hmac.new(secret, b"gstd-audit-key-v1", hashlib.sha256).digest())


def audit_key(key: LogKey) -> AuditKey:
    """What everybody may know of the key."""
    return AuditKey(
        origin=ORIGIN, public_key=key.public, verifier_key=verifier_key(ORIGIN, key.public)
    )


async def seal(connection: Connection, key: LogKey, now: datetime, limit: int) -> int:
    """Add the next rows of the log to the tree and sign its new head; returns how many.

    Returns 0 at once while another process seals. Raises ``BrokenLogError`` instead of signing a
    head that does not continue the last one.
    """
    size = await connection.fetchval(_sql["audit_take_head"])
    if size is None:
        return 0
    leaves = await _next_leaves(connection, size, limit)
    if not leaves:
        return 0
    tiles = await _tiles(connection, merkle.tiles_for_root(size) | merkle.tiles_for_append(size))
    try:
        await _check_head(connection, key, size, tiles)
        changed = merkle.append(size, leaves, tiles)
    except LookupError as error:
        raise BrokenLogError(f"the tree of {size} leaves cannot go on: {error}") from error
    await connection.execute(
        _sql["audit_write_tiles"],
        [level for level, _ in changed],
        [index for _, index in changed],
        list(changed.values()),
    )
    await _sign_head(connection, key, size + len(leaves), now)
    return len(leaves)


async def _next_leaves(connection: Connection, size: int, limit: int) -> list[bytes]:
    """The leaves that follow without a gap. Raises ``BrokenLogError`` if a gap comes first."""
    rows = await connection.fetch(_sql["audit_next_leaves"], size, limit)
    leaves = [
        row["leaf"] for position, row in enumerate(rows, size + 1) if row["position"] == position
    ]
    if rows and not leaves:
        raise BrokenLogError(f"position {size + 1} is missing, {rows[0]['position']} follows")
    return leaves


async def _check_head(connection: Connection, key: LogKey, size: int, tiles: merkle.Tiles) -> None:
    """What is appended to must be what was signed last."""
    row = await connection.fetchrow(_sql["audit_latest"])
    if row is None and size == 0:
        return
    if row is None:
        raise BrokenLogError(f"the log has {size} sealed leaves and no checkpoint")
    try:
        last = open_note(row["note"], key.public)
    except CheckpointError as error:
        raise BrokenLogError(f"checkpoint {row['size']}: {error.detail}") from error
    if (last.origin, last.size, last.root) != (ORIGIN, size, merkle.root(size, tiles)):
        raise BrokenLogError(f"the tree of {size} leaves is not the one that was signed last")


async def _sign_head(connection: Connection, key: LogKey, size: int, now: datetime) -> None:
    tiles = await _tiles(connection, merkle.tiles_for_root(size))
    root = merkle.root(size, tiles)
    note = sign(Checkpoint(origin=ORIGIN, size=size, root=root, at=now), key)
    await connection.execute(_sql["audit_move_head"], size)
    await connection.execute(_sql["audit_add_checkpoint"], size, root, note, now)


async def _tiles(connection: Connection, names: Collection[Tile]) -> dict[Tile, bytes]:
    rows = await connection.fetch(
        _sql["audit_tiles"], [level for level, _ in names], [index for _, index in names]
    )
    return {(row["level"], row["index"]): row["hashes"] for row in rows}


async def checkpoint(connection: Connection) -> CheckpointView:
    """The newest checkpoint. Raises ``NothingSealedError`` before the first."""
    row = await connection.fetchrow(_sql["audit_latest"])
    if row is None:
        raise NothingSealedError
    return to_struct(row, CheckpointView)


async def checkpoints(connection: Connection, *, after: int, limit: int) -> CheckpointPage:
    """Checkpoints of trees larger than ``after``, by size."""
    rows = await connection.fetch(_sql["audit_checkpoints"], after, limit)
    items = to_structs(rows, CheckpointView)
    return CheckpointPage(items=items, next=items[-1].size if len(items) == limit else None)


async def positions(connection: Connection, transfers: Sequence[int]) -> dict[int, int]:
    """Where transfers are in the log, as far as they have been numbered."""
    rows = await connection.fetch(_sql["audit_positions"], transfers)
    return {row["transfer_id"]: row["position"] for row in rows}


async def prove(
    connection: Connection, key: LogKey, positions: Sequence[int], reader: UUID | None
) -> StatementProof:
    """Facts with their paths to the newest checkpoint; ``None`` reads everybody's.

    Raises ``UnknownFactError`` for a position that does not exist or belongs to others, and
    ``NotSealedError``.
    """
    wanted = sorted(set(positions))
    rows = await connection.fetch(_sql["audit_facts"], wanted, reader)
    facts = to_structs(rows, SealedFact)
    unknown = set(wanted) - {fact.position for fact in facts}
    if unknown:
        raise UnknownFactError(f"no event at position {min(unknown)} for this account")
    newest = await checkpoint(connection)
    if facts and facts[-1].position > newest.size:
        raise NotSealedError(f"position {facts[-1].position} is not sealed yet")
    names: set[Tile] = set()
    for fact in facts:
        names |= merkle.tiles_for_inclusion(fact.position - 1, newest.size)
    tiles = await _tiles(connection, names)
    try:
        proofs = [
            InclusionProof(
                fact=fact,
                path=_hex(merkle.inclusion_path(fact.position - 1, newest.size, tiles)),
            )
            for fact in facts
        ]
    except LookupError as error:
        raise BrokenLogError(f"no proof can be made: {error}") from error
    return StatementProof(key=audit_key(key), checkpoint=newest.note, facts=proofs)


async def consistency(connection: Connection, first: int, second: int) -> ConsistencyProof:
    """That the tree of one size is the beginning of that of another.

    Raises ``UnknownSizeError`` for sizes that the log never had.
    """
    newest = await checkpoint(connection)
    if not 0 <= first <= second <= newest.size:
        raise UnknownSizeError(
            f"sizes {first} and {second} do not lie in order between 0 and {newest.size}"
        )
    tiles = await _tiles(connection, merkle.tiles_for_consistency(first, second))
    try:
        path = merkle.consistency_path(first, second, tiles)
    except LookupError as error:
        raise BrokenLogError(f"no proof can be made: {error}") from error
    return ConsistencyProof(first=first, second=second, path=_hex(path))


def _hex(path: Sequence[bytes]) -> list[str]:
    return [each.hex() for each in path]


async def leaves(connection: Connection, *, after: int, limit: int) -> LeafPage:
    """Sealed facts after a position, as their rows say them now."""
    items = to_structs(await connection.fetch(_sql["audit_leaves"], after, limit), SealedFact)
    return LeafPage(items=items, next=items[-1].position if len(items) == limit else None)
