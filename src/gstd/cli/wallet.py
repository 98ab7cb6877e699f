"""``gstd wallet``."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from gstd.cli.output import JsonOption, KeyOption, UrlOption, counted, emit, err, run, table
from gstd.kernel.errors import InvalidInputError
from gstd.kernel.money import format_gstd
from gstd.protocol.money import Direction, Part, TransferKind
from gstd.protocol.types import Asset

if TYPE_CHECKING:
    from rich.table import Table

    from gstd.cli.proofs import Proved
    from gstd.protocol.money import BalanceAt, BalancesAt, StatementPage
    from gstd.protocol.people import Balance, WalletView

PAGE = 500
WORDS = {
    TransferKind.GRANT: "test credits",
    TransferKind.DEPOSIT: "deposit",
    TransferKind.ASSIGN: "deposit assigned",
    TransferKind.FUND: "locked for a job",
    TransferKind.REWARD: "reward",
    TransferKind.FEE: "platform fee",
    TransferKind.REFEREE: "re-execution",
    TransferKind.REFUND: "refund",
    TransferKind.VEST: "vested",
    TransferKind.REVERSE: "reward taken back",
    TransferKind.FORFEIT: "forfeited",
    TransferKind.SHARE: "share of fees",
    TransferKind.RESTITUTION: "restitution",
    TransferKind.RESERVE: "reserved for withdrawal",
    TransferKind.WITHDRAW: "withdrawn",
    TransferKind.RETURN: "withdrawal returned",
    TransferKind.CORRECTION: "correction",
}

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Your money."""


@app.command()
def balance(
    at: Annotated[
        str | None, typer.Option(help="A time of the past, such as 2026-05-01T12:00:00Z.")
    ] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """What is available, locked in escrow, and held until it vests: now or at a time."""
    from gstd.cli.session import connect

    when = read_time("--at", at)

    async def work() -> WalletView | BalancesAt:
        async with connect(url, api_key) as client:
            return await client.wallet() if when is None else await client.balances_at(when)

    emit(run(work()), as_json, lambda wallet: _rows(wallet.balances, when))


@app.command()
def statement(  # noqa: PLR0913, PLR0917 - every filter of a statement
    asset: Annotated[Asset | None, typer.Option(help="Only this asset.")] = None,
    part: Annotated[Part | None, typer.Option(help="Only this part of the wallet.")] = None,
    kind: Annotated[TransferKind | None, typer.Option(help="Only this kind.")] = None,
    direction: Annotated[Direction | None, typer.Option(help="Only in, or only out.")] = None,
    since: Annotated[str | None, typer.Option(help="From this time on.")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time.")] = None,
    task: Annotated[UUID | None, typer.Option(help="What moved because of a task.")] = None,
    limit: Annotated[int, typer.Option(help="So many rows.", min=1, max=PAGE)] = 50,
    everything: Annotated[bool, typer.Option("--all", help="All rows.")] = False,
    proof: Annotated[
        Path | None, typer.Option(help="Write the rows' proofs to this file, for `wallet verify`.")
    ] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """What every transfer did to your wallet, newest first."""
    from gstd.cli.proofs import fetch_proofs, write_proofs
    from gstd.cli.session import connect
    from gstd.protocol.money import StatementPage
    from gstd.sdk.money import StatementFilters

    filters = StatementFilters(
        asset=asset,
        part=part,
        kind=kind,
        direction=direction,
        since=read_time("--since", since),
        until=read_time("--until", until),
        task_id=task,
    )

    async def work() -> StatementPage:
        async with connect(url, api_key) as client:
            if everything:
                rows = [row async for row in client.statement_rows(filters)]
                page = StatementPage(items=rows, next=None)
            else:
                page = await client.statement(filters, limit=limit)
            if proof is not None:
                write_proofs(proof, await fetch_proofs(client, page.items))
            return page

    emit(run(work()), as_json, _statement)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="What `statement --proof` wrote.")],
    key: Annotated[
        str | None, typer.Option(help="The platform's key as you wrote it down: 64 hex digits.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the proofs of a statement, offline: signature, Merkle paths, every transfer."""
    from gstd.cli.proofs import check_file

    emit(check_file(file, key), as_json, _proved)


@app.command()
def export(
    csv: Annotated[Path, typer.Option("--csv", help="The file to write; an old one is replaced.")],
    url: UrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Write the whole statement as a table for spreadsheets."""
    from gstd.cli.files import replacing
    from gstd.cli.session import connect

    async def work() -> int:
        async with connect(url, api_key) as client:
            with replacing(csv) as file:
                return await client.statement_csv(file)

    err.print(f"{counted(run(work()), 'byte')} written to {csv}.", soft_wrap=True, markup=False)


def read_time(name: str, text: str | None) -> datetime | None:
    """A time with its zone, as ISO 8601 writes it."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InvalidInputError(
            f"{name} {text!r} is not a time with its zone",
            hint="Write it like 2026-05-01T12:00:00Z.",
        )
    return at


def _rows(balances: list[Balance] | list[BalanceAt], at: datetime | None) -> Table | str:
    if not balances:
        return "This account has never had any money." if at is None else "There was nothing yet."
    title = "Wallet" if at is None else f"Wallet at {at.isoformat()}"
    rows = table(title, "asset", "#available", "#escrow", "#held", "#reserved", "#total")
    for item in balances:
        amounts = (
            item.available_nano,
            item.escrow_nano,
            item.held_nano,
            item.reserved_nano,
            item.total_nano,
        )
        rows.add_row(item.asset, *(format_gstd(int(amount)) for amount in amounts))
    return rows


def _statement(page: StatementPage) -> Table | str:
    if not page.items:
        return "Nothing moved."
    title = "Statement" if page.next is None else "Statement, newest rows (--all for the others)"
    rows = table(title, "time (UTC)", "what", "part", "#amount", "#after", "asset", "job / task")
    for item in page.items:
        amount, after = int(item.amount_nano), item.balance_after_nano
        rows.add_row(
            f"{item.at:%Y-%m-%d %H:%M:%S}",
            f"{WORDS[item.kind]}, {'from' if amount > 0 else 'to'} {_short(item.counterparty)}",
            item.part,
            f"{'+' if amount > 0 else ''}{format_gstd(amount)}",
            "" if after is None else format_gstd(int(after)),
            item.asset,
            str(item.task_id or item.job_id or ""),
        )
    return rows


def _proved(found: Proved) -> str:
    are = "1 transfer is" if found.transfers == 1 else f"All {found.transfers} transfers are"
    return (
        "\n".join(found.lines) + f"\n[green]{are} in the log of {counted(found.size, 'fact')} "
        f"that the platform signed[/] with the key {found.public_key}."
    )


def _short(counterparty: str) -> str:
    # The job has a column of its own.
    return "escrow" if counterparty.startswith("escrow of job ") else counterparty
