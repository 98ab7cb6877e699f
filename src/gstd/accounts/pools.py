"""Private pools: groups of accounts whose devices take the pool's jobs.

Whoever has the secret may join. The owner is always a member, and members may post jobs.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from gstd.accounts.errors import (
    PoolNotFoundError,
    PoolOwnerStaysError,
    TooManyPoolsError,
    WrongPoolSecretError,
)
from gstd.database.connection import Connection, to_struct, to_structs
from gstd.database.sql import load_queries
from gstd.events.service import Event, append
from gstd.kernel.ids import new_id
from gstd.kernel.secrets import new_token, token_hash
from gstd.protocol.matching import MAX_LISTED
from gstd.protocol.pools import NewPool, PoolMember, PoolView

_sql = load_queries("gstd.accounts")

MAX_POOLS = MAX_LISTED
"""Pools that one account may be in, so that a device can name all of them."""


async def create_pool(
    connection: Connection, account_id: UUID, name: str, now: datetime
) -> NewPool:
    """A pool with its secret, which is shown this once. Raises ``TooManyPoolsError``."""
    pool_id, secret = new_id(), new_token("gstd_pool")
    await connection.execute(
        _sql["insert_pool"], pool_id, account_id, name, token_hash(secret), now
    )
    await _enter(connection, account_id, pool_id, secret, now)
    await _tell(connection, "created", pool_id, (account_id,), now)
    return NewPool(pool=await pool(connection, account_id, pool_id), secret=secret)


async def join_pool(
    connection: Connection, account_id: UUID, pool_id: UUID, secret: str, now: datetime
) -> PoolView:
    """Make the account's devices take the pool's jobs. Joining twice changes nothing.

    Raises ``WrongPoolSecretError``, also for a pool that does not exist, and
    ``TooManyPoolsError``.
    """
    if await _enter(connection, account_id, pool_id, secret, now):
        await _tell(connection, "joined", pool_id, (account_id,), now)
    try:
        return await pool(connection, account_id, pool_id)
    except PoolNotFoundError:
        raise WrongPoolSecretError from None


async def _enter(
    connection: Connection, account_id: UUID, pool_id: UUID, secret: str, now: datetime
) -> bool:
    """Whether the account is a new member."""
    await connection.fetch(_sql["lock_account"], account_id)
    entered: bool | None = await connection.fetchval(
        _sql["join_pool"], pool_id, account_id, token_hash(secret), now
    )
    if entered and await connection.fetchval(_sql["count_pools"], account_id) > MAX_POOLS:
        raise TooManyPoolsError(f"an account may be in {MAX_POOLS} pools")
    return bool(entered)


async def pools_of(connection: Connection, account_id: UUID) -> list[PoolView]:
    """The pools that the account owns or has joined, oldest first."""
    return to_structs(await connection.fetch(_sql["pools_of_account"], account_id, None), PoolView)


async def pool(connection: Connection, account_id: UUID, pool_id: UUID) -> PoolView:
    """One of them. Raises ``PoolNotFoundError``."""
    row = await connection.fetchrow(_sql["pools_of_account"], account_id, pool_id)
    if row is None:
        raise PoolNotFoundError(f"no pool {pool_id} of this account")
    return to_struct(row, PoolView)


async def must_be_member(connection: Connection, pool_id: UUID, account_id: UUID) -> None:
    """Raise ``PoolNotFoundError`` unless the account may post jobs to the pool."""
    await pool(connection, account_id, pool_id)


async def members_of(connection: Connection, owner: UUID, pool_id: UUID) -> list[PoolMember]:
    """Who is in the owner's pool. Raises ``PoolNotFoundError`` for anybody else."""
    await _owned(connection, owner, pool_id)
    return to_structs(await connection.fetch(_sql["pool_members"], pool_id), PoolMember)


async def leave_pool(
    connection: Connection, account_id: UUID, pool_id: UUID, now: datetime
) -> PoolView:
    """End the account's membership; what its devices run already they may finish.

    Raises ``PoolNotFoundError`` or ``PoolOwnerStaysError``.
    """
    left = await pool(connection, account_id, pool_id)
    if left.is_owner:
        raise PoolOwnerStaysError
    await connection.fetchval(_sql["leave_pool"], pool_id, account_id)
    await _tell(connection, "left", pool_id, (account_id,), now)
    return left


async def remove_member(
    connection: Connection, owner: UUID, pool_id: UUID, member: UUID, now: datetime
) -> NewPool:
    """Take an account out of the owner's pool.

    It knows the secret, so the pool gets a new one. Raises ``PoolNotFoundError`` or
    ``PoolOwnerStaysError``; removing twice only changes the secret again.
    """
    await _owned(connection, owner, pool_id)
    if member == owner:
        raise PoolOwnerStaysError
    secret = new_token("gstd_pool")
    await connection.execute(_sql["change_pool_secret"], pool_id, token_hash(secret))
    if await connection.fetchval(_sql["leave_pool"], pool_id, member):
        await _tell(connection, "member_removed", pool_id, (owner, member), now)
    return NewPool(pool=await pool(connection, owner, pool_id), secret=secret)


async def _owned(connection: Connection, owner: UUID, pool_id: UUID) -> None:
    if not (await pool(connection, owner, pool_id)).is_owner:
        raise PoolNotFoundError(f"pool {pool_id} is not yours")


async def _tell(
    connection: Connection, what: str, pool_id: UUID, accounts: tuple[UUID, ...], now: datetime
) -> None:
    event = Event(kind=f"pool.{what}", accounts=accounts, data={"pool_id": str(pool_id)})
    await append(connection, [event], now)
