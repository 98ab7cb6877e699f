"""``gstd admin correction``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.markup import escape

from gstd.cli.output import JsonOption, KeyOption, UrlOption, emit, run, table
from gstd.kernel.money import format_gstd, parse_gstd
from gstd.protocol.types import Asset

if TYPE_CHECKING:
    from rich.table import Table

    from gstd.protocol.corrections import AccountName, CorrectionView

app = typer.Typer(no_args_is_help=True)

AccountArgument = Annotated[
    str, typer.Argument(help="An account's id, or fee, referee or restitution.")
]


@app.callback()
def group() -> None:
    """Transfers that mend a mistake: one admin proposes, another one applies."""


@app.command()
def propose(  # noqa: PLR0913, PLR0917 - every part of a correction
    debit: AccountArgument,
    credit: AccountArgument,
    amount: Annotated[str, typer.Argument(help="How much, in GSTD.")],
    reason: Annotated[str, typer.Option(help="What went wrong, for everybody to read.")],
    asset: Asset = Asset.GSTD,
    corrects: Annotated[int | None, typer.Option(help="The wrong transfer's number.")] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose to move an amount from one account to another. Nothing moves yet."""
    from gstd.cli.session import connect
    from gstd.protocol.corrections import CorrectionRequest

    try:
        request = CorrectionRequest(
            debit=_name(debit),
            credit=_name(credit),
            asset=asset,
            amount_nano=str(parse_gstd(amount)),
            reason=reason,
            corrects=corrects,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error

    async def work() -> CorrectionView:
        async with connect(url, api_key) as client:
            return await client.propose_correction(request)

    emit(run(work()), as_json, lambda made: _rows([made]))


@app.command()
def apply(
    correction: UUID, url: UrlOption = None, api_key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """Apply what another admin proposed."""
    _decide(correction, url, api_key, apply=True, as_json=as_json)


@app.command()
def reject(
    correction: UUID, url: UrlOption = None, api_key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """Reject a proposal."""
    _decide(correction, url, api_key, apply=False, as_json=as_json)


@app.command("list")
def list_corrections(
    url: UrlOption = None, api_key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """Corrections, newest first."""
    from gstd.cli.session import connect

    async def work() -> list[CorrectionView]:
        async with connect(url, api_key) as client:
            return await client.corrections()

    emit(run(work()), as_json, _rows)


def _decide(
    correction: UUID, url: str | None, api_key: str | None, *, apply: bool, as_json: bool
) -> None:
    from gstd.cli.session import connect

    async def work() -> CorrectionView:
        async with connect(url, api_key) as client:
            return await client.decide_correction(correction, apply=apply)

    emit(run(work()), as_json, lambda made: _rows([made]))


def _name(text: str) -> AccountName:
    from gstd.protocol.corrections import AccountName, CorrectableKind

    if text in set(CorrectableKind) - {CorrectableKind.AVAILABLE}:
        return AccountName(kind=CorrectableKind(text))
    try:
        return AccountName(kind=CorrectableKind.AVAILABLE, owner=UUID(text))
    except ValueError as error:
        raise ValueError(f"{text!r} is neither an account nor fee, referee, restitution") from error


def _rows(found: list[CorrectionView]) -> Table | str:
    if not found:
        return "No corrections."
    rows = table("Corrections", "id", "state", "#amount", "from", "to", "reason")
    for item in found:
        sides = [str(name.owner or name.kind) for name in (item.debit, item.credit)]
        amount = f"{format_gstd(int(item.amount_nano))} {item.asset}"
        rows.add_row(str(item.id), item.state, amount, *sides, escape(item.reason))
    return rows
