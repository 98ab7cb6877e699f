"""``gstd pool``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.markup import escape

from gstd.cli.output import JsonOption, KeyOption, UrlOption, emit, run, table

if TYPE_CHECKING:
    from rich.table import Table

    from gstd.protocol.pools import NewPool, PoolMember, PoolView

app = typer.Typer(no_args_is_help=True)

PoolArgument = Annotated[UUID, typer.Argument(help="The pool's id.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a private pool. Whoever has its secret may join; it is shown this once."""
    from gstd.cli.session import connect

    async def work() -> NewPool:
        async with connect(url, api_key) as client:
            return await client.create_pool(name)

    emit(run(work()), as_json, _with_secret)


@app.command()
def join(
    pool: PoolArgument,
    secret: Annotated[
        str,
        typer.Option(
            prompt=True, hide_input=True, envvar="GSTD_POOL_SECRET", help="The pool's secret."
        ),
    ],
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let your devices take the pool's jobs. The secret is asked for unless it is given."""
    from gstd.cli.session import connect

    async def work() -> PoolView:
        async with connect(url, api_key) as client:
            return await client.join_pool(pool, secret)

    emit(run(work()), as_json, lambda view: f"Your devices serve the pool {escape(view.name)}.")


@app.command("list")
def list_pools(
    url: UrlOption = None, api_key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """The pools that you own or have joined."""
    from gstd.cli.session import connect

    async def work() -> list[PoolView]:
        async with connect(url, api_key) as client:
            return await client.pools()

    emit(run(work()), as_json, _rows)


@app.command()
def leave(
    pool: PoolArgument,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """End your membership. What your devices run already they may finish."""
    from gstd.cli.session import connect

    async def work() -> PoolView:
        async with connect(url, api_key) as client:
            return await client.leave_pool(pool)

    emit(run(work()), as_json, lambda view: f"You have left the pool {escape(view.name)}.")


@app.command()
def members(
    pool: PoolArgument,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Who is in a pool of yours."""
    from gstd.cli.session import connect

    async def work() -> list[PoolMember]:
        async with connect(url, api_key) as client:
            return await client.pool_members(pool)

    emit(run(work()), as_json, _member_rows)


@app.command()
def remove(
    pool: PoolArgument,
    account: Annotated[UUID, typer.Argument(help="The member's account.")],
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take an account out of a pool of yours, which gets a new secret."""
    from gstd.cli.session import connect

    async def work() -> NewPool:
        async with connect(url, api_key) as client:
            return await client.remove_pool_member(pool, account)

    emit(run(work()), as_json, _with_secret)


def _with_secret(made: NewPool) -> str:
    return (
        f"pool    {made.pool.id}  {escape(made.pool.name)}\n"
        f"secret  {made.secret}\n"
        "The secret is shown this once. Others join with: "
        f"gstd pool join {made.pool.id}"
    )


def _rows(pools: list[PoolView]) -> Table | str:
    if not pools:
        return "No pools yet. Make one: gstd pool create NAME"
    rows = table("Pools", "id", "name", "yours", "#members", "since")
    for pool in pools:
        owned = "yes" if pool.is_owner else "no"
        since = f"{pool.created_at:%Y-%m-%d %H:%M}"
        rows.add_row(str(pool.id), escape(pool.name), owned, str(pool.members), since)
    return rows


def _member_rows(found: list[PoolMember]) -> Table:
    rows = table("Members", "account", "name", "#devices", "joined")
    for member in found:
        joined = f"{member.joined_at:%Y-%m-%d %H:%M}"
        rows.add_row(str(member.account_id), escape(member.name), str(member.devices), joined)
    return rows
