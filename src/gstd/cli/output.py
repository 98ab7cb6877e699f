"""How commands print: tables and sentences for people, one JSON value for programs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gstd.kernel.errors import GstdError

T = TypeVar("T")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
UrlOption = Annotated[str | None, typer.Option("--url", help="The platform's address.")]
KeyOption = Annotated[
    str | None,
    typer.Option("--api-key", help="The API key (better: GSTD_API_KEY or the state folder)."),
]


def print_json(value: object) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def emit(value: T, as_json: bool, render: Callable[[T], object]) -> None:
    """The value as JSON, or what ``render`` makes of it for people."""
    if as_json:
        print_json(value)
    else:
        out.print(render(value))


def teller(console: Console) -> Callable[[str], None]:
    """Tells the steps of a longer work, a line each."""

    def tell(line: str) -> None:
        console.print(f"  {line}")

    return tell


def table(title: str, *columns: str) -> Table:
    """A table in the one style of this command."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for column in columns:
        is_number = column.startswith("#")
        made.add_column(
            column.lstrip("#"), justify="right" if is_number else "left", overflow="fold"
        )
    return made


def counted(number: int, noun: str) -> str:
    """A number of things, in words for people."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work."""
    return asyncio.run(work)


def fail(error: GstdError, *, as_json: bool) -> None:
    """Say what went wrong and what to do, on standard error or as JSON."""
    if as_json:
        print_json({"error": {"code": error.code, "detail": error.detail, "hint": error.advice}})
        return
    err.print(f"[bold red]{error.code}[/]: {escape(error.detail)}", soft_wrap=True)
    err.print(f"[dim]{escape(error.advice)}[/]", soft_wrap=True)
