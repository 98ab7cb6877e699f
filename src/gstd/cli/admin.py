"""``gstd admin``."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from gstd.cli.corrections import app as corrections
from gstd.cli.output import JsonOption, KeyOption, UrlOption, counted, emit, err, run, table
from gstd.protocol.types import Role

if TYPE_CHECKING:
    from rich.table import Table

    from gstd.protocol.people import LedgerCheck, NewAccount, RecordedError
    from gstd.sdk.audit import AuditReport, Progress

app = typer.Typer(no_args_is_help=True)
ledger = typer.Typer(no_args_is_help=True)
app.add_typer(ledger, name="ledger", help="The double-entry ledger.")
audit = typer.Typer(no_args_is_help=True)
app.add_typer(audit, name="audit", help="The sealed log of everything that happened.")
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


@ledger.command("export")
def export_ledger(
    file: Annotated[
        Path | None, typer.Argument(help="The file to write; standard output if left out.")
    ] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Write every account and transfer as a journal: hledger -f FILE check --strict."""
    import sys

    from gstd.cli.files import replacing
    from gstd.cli.session import connect

    async def work(to: IO[bytes]) -> int:
        # A bar has no end here: nobody knows the length of a journal before its last line.
        with err.status("exporting") as status:
            async with connect(url, api_key) as client:
                return await client.export_ledger(
                    to, on_progress=lambda size: status.update(f"{size / 1e6:.1f} MB")
                )

    if file is None:
        run(work(sys.stdout.buffer))
        sys.stdout.buffer.flush()
        return
    with replacing(file) as opened:
        size = run(work(opened))
    err.print(f"{counted(size, 'byte')} written to {file}.", soft_wrap=True, markup=False)


@audit.callback()
def audit_group() -> None:
    """The sealed log of everything that happened."""


@audit.command()
def verify(
    since: Annotated[
        Path | None,
        typer.Option(help="A checkpoint kept earlier: the log must continue it."),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Where to keep the newest checkpoint if all is well.")
    ] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rebuild the log's tree from every row and name what was tampered with; then exit code 1."""
    from gstd.cli.files import read, replacing
    from gstd.cli.progress import StepProgress
    from gstd.cli.session import connect
    from gstd.sdk.audit import verify as verify_log

    kept = None if since is None else read(since).decode("utf-8", "replace")

    async def work(on_progress: Progress | None) -> AuditReport:
        async with connect(url, api_key) as client:
            return await verify_log(client, kept=kept, on_progress=on_progress)

    if as_json:
        report = run(work(None))
    else:
        with StepProgress(err) as progress:
            report = run(work(progress.update))
    if report.ok and keep is not None and report.checkpoint is not None:
        with replacing(keep) as file:
            file.write(report.checkpoint.encode())
    emit(report, as_json, _findings)
    if not report.ok:
        raise typer.Exit(1)


@audit.command()
def checkpoint(url: UrlOption = None) -> None:
    """Print the newest signed head of the log. Keep it: it shows later what was rewritten."""
    from gstd.cli.session import connect

    async def work() -> str:
        async with connect(url, None) as client:
            return await client.audit_checkpoint()

    typer.echo(run(work()), nl=False)


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
        f"Ledger: {counted(result.accounts, 'account')}, "
        f"{counted(result.transfers, 'transfer')}, sum {result.sum_nano}"
    )
    rows = table(title, "", "promise", "broken by")
    for item in result.invariants:
        mark = "[green]holds[/]" if item.holds else "[bold red]broken[/]"
        rows.add_row(mark, item.name, ", ".join(item.broken))
    return rows


def _findings(report: AuditReport) -> Table | str:
    if report.ok:
        return (
            f"Nothing was tampered with: {counted(report.leaves, 'fact')} under "
            f"{counted(report.checkpoints, 'signed checkpoint')} of {report.origin}, "
            f"key {report.public_key}."
        )
    rows = table("What was tampered with", "#position", "what", "how", "sealed", "present")
    for item in report.findings:
        position = "" if item.position is None else str(item.position)
        # What was tampered with may hold anything, also the marks of this terminal's colours.
        texts = (item.subject, item.detail, item.sealed or "", item.present or "")
        rows.add_row(position, *map(escape, texts))
    return rows


def _errors(found: list[RecordedError]) -> Table | str:
    if not found:
        return "No errors recorded."
    rows = table("Recorded errors", "time", "code", "place", "request", "detail")
    for item in found:
        when = f"{item.at:%Y-%m-%d %H:%M:%S}"
        texts = (item.code, item.place, item.request_id or "", item.detail)
        rows.add_row(when, *map(escape, texts))
    return rows
