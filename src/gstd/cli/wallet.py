"""``gstd wallet``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from gstd.cli.output import JsonOption, KeyOption, UrlOption, emit, run, table
from gstd.kernel.money import format_gstd

if TYPE_CHECKING:
    from rich.table import Table

    from gstd.protocol.people import WalletView

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Your money."""


@app.command()
def balance(url: UrlOption = None, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """What is available, locked in escrow, and held until it vests."""
    from gstd.cli.session import connect

    async def work() -> WalletView:
        async with connect(url, api_key) as client:
            return await client.wallet()

    emit(run(work()), as_json, _rows)


def _rows(wallet: WalletView) -> Table | str:
    if not wallet.balances:
        return "This account has never had any money."
    rows = table("Wallet", "asset", "#available", "#escrow", "#held", "#reserved", "#total")
    for item in wallet.balances:
        amounts = (
            item.available_nano,
            item.escrow_nano,
            item.held_nano,
            item.reserved_nano,
            item.total_nano,
        )
        rows.add_row(item.asset, *(format_gstd(int(amount)) for amount in amounts))
    return rows
