"""``gstd module``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gstd.cli.output import JsonOption, KeyOption, UrlOption, emit, run, table

if TYPE_CHECKING:
    from rich.table import Table

    from gstd.protocol.jobs import ModuleView

app = typer.Typer(no_args_is_help=True)


@app.command()
def push(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A .wasm file.")],
    name: Annotated[str | None, typer.Option(help="What to call it; else the file's name.")] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Upload a module. It is checked and compiled once; the same bytes are one module."""
    from gstd.cli.session import connect

    async def work() -> ModuleView:
        async with connect(url, api_key) as client:
            return await client.upload_module(file.read_bytes(), name or file.stem)

    emit(run(work()), as_json, _card)


@app.command("list")
def list_modules(
    url: UrlOption = None, api_key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """Your modules, newest first."""
    from gstd.cli.session import connect

    async def work() -> list[ModuleView]:
        async with connect(url, api_key) as client:
            return await client.modules()

    emit(run(work()), as_json, _rows)


@app.command()
def show(
    module: Annotated[str, typer.Argument(help="The module's hash.")],
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a module needs and offers."""
    from gstd.cli.session import connect

    async def work() -> ModuleView:
        async with connect(url, api_key) as client:
            return await client.module(module)

    emit(run(work()), as_json, _card)


def _rows(modules: list[ModuleView]) -> Table | str:
    if not modules:
        return "No modules yet. Upload one: gstd module push FILE.wasm"
    rows = table("Modules", "id", "name", "#bytes", "uploaded")
    for module in modules:
        rows.add_row(
            module.id, module.name, str(module.size), f"{module.uploaded_at:%Y-%m-%d %H:%M}"
        )
    return rows


def _card(module: ModuleView) -> Table:
    card = table(module.name, "", "")
    most = module.memory_max_pages
    card.add_row("id", module.id)
    card.add_row("size", f"{module.size} bytes, {module.functions} functions")
    card.add_row("memory", f"{module.memory_min_pages} pages at least, {most or 'no'} maximum")
    card.add_row("imports", ", ".join(module.imports) or "none")
    card.add_row("profile", module.profile)
    return card
