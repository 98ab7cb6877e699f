"""``gstd task``."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from gstd.cli.output import JsonOption, KeyOption, UrlOption, emit, out, run, table
from gstd.kernel.clock import SystemClock
from gstd.kernel.errors import InvalidInputError
from gstd.protocol.jobs import OrderChange
from gstd.protocol.types import Priority

if TYPE_CHECKING:
    from rich.table import Table

    from gstd.protocol.jobs import TaskView, Timeline

app = typer.Typer(no_args_is_help=True)

TaskArgument = Annotated[UUID, typer.Argument(help="The task's id: `gstd job show JOB --tasks`.")]
PriorityOption = Annotated[Priority | None, typer.Option(help="How urgent it is from now on.")]
HoursOption = Annotated[
    float | None, typer.Option(help="Give up so many hours from now.", min=0.01)
]


@app.command()
def show(
    task: TaskArgument,
    attempts: Annotated[
        bool, typer.Option("--attempts", help="With its whole story, moment by moment.")
    ] = False,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """A task: what it waits for, or how it ended."""
    from gstd.cli.session import connect

    async def work() -> Timeline:
        async with connect(url, api_key) as client:
            return await client.timeline(task)

    story = run(work())
    emit(story if attempts else story.task, as_json, lambda _: card(story.task))
    if attempts and not as_json:
        out.print(_moments(story))


@app.command("set")
def change(
    task: TaskArgument,
    priority: PriorityOption = None,
    hours: HoursOption = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a waiting task's priority or deadline."""
    from gstd.cli.session import connect

    order = order_change(priority, hours)

    async def work() -> TaskView:
        async with connect(url, api_key) as client:
            return await client.change_task(task, order)

    emit(run(work()), as_json, card)


def order_change(priority: Priority | None, hours: float | None) -> OrderChange:
    """What is to change. Raises ``InvalidInputError`` when nothing is."""
    if priority is None and hours is None:
        raise InvalidInputError("nothing to change", hint="Give --priority, --hours or both.")
    deadline = None if hours is None else SystemClock().now() + timedelta(hours=hours)
    return OrderChange(priority=priority, deadline=deadline)


def card(task: TaskView) -> Table:
    """A task for people."""
    rows = table(f"Task {task.index} of job {task.job_id}", "", "")
    rows.add_row("state", f"{task.state}: {task.reason}")
    rows.add_row("priority", f"{task.priority}, due {task.deadline:%Y-%m-%d %H:%M} UTC")
    rows.add_row("attempts", f"{len(task.attempts)}, {task.retries} of them failed")
    return rows


def _moments(story: Timeline) -> Table:
    rows = table("Story", "when (UTC)", "device", "what", "#log")
    for moment in story.moments:
        at = f"{moment.at:%Y-%m-%d %H:%M:%S.%f}"[:-3]
        position = "" if moment.position is None else str(moment.position)
        rows.add_row(at, moment.device_name or "", moment.words, position)
    return rows
