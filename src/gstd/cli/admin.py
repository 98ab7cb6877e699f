"""``gstd admin``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gstd.cli.corrections import app as corrections
from gstd.cli.output import JsonOption, KeyOption, UrlOption, emit, run, table
from gstd.protocol.types import Role

if TYPE_CHECKING:
    from rich.table import Table

    from gstd.protocol.people import LedgerCheck, NewAccount, RecordedError

app = typer.Typer(no_args_is_help=True)
ledger = typer.Typer(no_args_is_help=True)
app.add_typer(ledger, name="ledger", help="The double-entry ledger.")
app.add_typer(corrections, name="correction", help="Mend a mistake, with two admins.")


@ledger.callback()
def ledger_group() -> None:
    """The double-entry ledger."""


@ledger.command()
def check(url: UrlOption = None, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Check every promise of the ledger over every row; exit code 1 if one is broken."""
    from gstd.cli.session import connect

    async def work() -> LedgerCheck:
        async with connect(url, api_key) as client:
            return await client.check_ledger()

    result = run(work())
    emit(result, as_json, _invariants)
    if not result.ok:
        raise typer.Exit(1)


@app.command()
def errors(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Errors that nobody expected, newest first."""
    from gstd.cli.session import connect

    async def work() -> list[RecordedError]:
        async with connect(url, api_key) as client:
            return await client.recorded_errors(limit=limit)

    emit(run(work()), as_json, _errors)


@app.command("create-account")
def create_account(
    name: str,
    role: Annotated[list[Role], typer.Option(help="What it may do; repeatable.")],
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an account. Its API key is shown this once."""
    from gstd.cli.session import connect
    from gstd.protocol.people import AccountRequest

    request = AccountRequest(name=name, roles=role)

    async def work() -> NewAccount:
        async with connect(url, api_key) as client:
            return await client.create_account(request)

    emit(run(work()), as_json, lambda made: f"{made.account.id}\n{made.api_key}")


def _invariants(result: LedgerCheck) -> Table:
    title = (
        f"Ledger: {result.accounts} accounts, {result.transfers} transfers, sum {result.sum_nano}"
    )
    rows = table(title, "", "promise", "broken by")
    for item in result.invariants:
        mark = "[green]holds[/]" if item.holds else "[bold red]broken[/]"
        rows.add_row(mark, item.name, ", ".join(item.broken))
    return rows


def _errors(found: list[RecordedError]) -> Table | str:
    if not found:
        return "No errors recorded."
    rows = table("Recorded errors", "time", "code", "place", "request", "detail")
    for item in found:
        when = f"{item.at:%Y-%m-%d %H:%M:%S}"
        rows.add_row(when, item.code, item.place, item.request_id or "", item.detail)
    return rows
