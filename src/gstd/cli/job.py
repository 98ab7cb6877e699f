"""``gstd job``."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import msgspec
import typer

from gstd.cli import graphs
from gstd.cli.cards import job_card
from gstd.cli.output import JsonOption, KeyOption, UrlOption, emit, err, out, run, table
from gstd.cli.task import HoursOption, PriorityOption, order_change
from gstd.kernel.clock import SystemClock
from gstd.kernel.errors import InvalidInputError
from gstd.kernel.money import format_gstd, parse_gstd
from gstd.protocol.execution import Limits
from gstd.protocol.graphs import Feed, JobAfter, JobInput, OnFailure, Shape
from gstd.protocol.jobs import InputRange, JobRequest
from gstd.protocol.types import Asset, Priority, Tier

if TYPE_CHECKING:
    from rich.table import Table

    from gstd.protocol.jobs import JobPage, JobView, TaskResult, TaskView

app = typer.Typer(no_args_is_help=True)

JobArgument = Annotated[UUID, typer.Argument(help="The job's id.")]


@app.command()
def submit(  # noqa: PLR0913, PLR0917 - every option of a job
    module: Annotated[str, typer.Argument(help="A .wasm file, or the hash of an uploaded module.")],
    reward: Annotated[str, typer.Option(help="Reward per task, such as 0.01.")],
    inputs: Annotated[
        Path | None,
        typer.Option(exists=True, help="A JSON Lines file: one task's {args, stdin, seed} a line."),
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="So many tasks, numbered by {index} in --arg.", min=1)
    ] = None,
    arg: Annotated[
        list[str] | None, typer.Option(help="An argument of every task; repeatable.")
    ] = None,
    tier: Annotated[Tier, typer.Option(help="How results are verified.")] = Tier.FULL,
    quorum: Annotated[
        int, typer.Option(help="Independent results that must agree.", min=2, max=5)
    ] = 2,
    asset: Annotated[Asset, typer.Option(help="What the job pays in.")] = Asset.TEST,
    priority: Annotated[Priority, typer.Option(help="How urgent it is.")] = Priority.NORMAL,
    hours: Annotated[
        float | None,
        typer.Option(
            help="Give up after so many hours; else after 30 days, or 7 without activity.", min=0
        ),
    ] = None,
    fuel: Annotated[int, typer.Option(help="Fuel per task.", min=1)] = Limits().fuel,
    memory_mb: Annotated[int, typer.Option(help="Memory per task, in MiB.", min=1)] = 256,
    min_trust: Annotated[
        int, typer.Option(help="Only devices of at least this trust.", min=0, max=1000)
    ] = 0,
    pool: Annotated[
        UUID | None, typer.Option(help="Only devices of this private pool of yours.")
    ] = None,
    name: Annotated[str, typer.Option(help="What to call the job.")] = "job",
    after: Annotated[
        list[str] | None,
        typer.Option(help="Wait for JOB, JOB:all or JOB:one-to-one, and read it; repeatable."),
    ] = None,
    feed: Annotated[Feed, typer.Option(help="How outputs become standard input.")] = Feed.CONCAT,
    on_failure: Annotated[
        OnFailure, typer.Option(help="What happens when what is waited for fails.")
    ] = OnFailure.STOP,
    watch_it: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Post a job. The money of all its tasks is locked, or nothing happens."""
    from gstd.cli.session import connect

    binary = read_module(module)
    numbered = tuple(arg or ["{index}"])
    end = None if hours is None else SystemClock().now() + timedelta(hours=hours)
    request = JobRequest(
        module=module if binary is None else hashlib.sha256(binary).hexdigest(),
        name=name,
        reward_nano=str(read_amount(reward)),
        inputs=None if inputs is None else read_inputs(inputs),
        range=None if count is None else InputRange(count=count, args=numbered),
        tier=tier,
        quorum=quorum,
        asset=asset,
        priority=priority,
        deadline=end,
        limits=Limits(fuel=fuel, memory_bytes=memory_mb << 20),
        min_trust=min_trust,
        pool=pool,
        after=tuple(read_edge(text) for text in after or ()),
        feed=feed,
        on_failure=on_failure,
    )

    async def work() -> JobView:
        async with connect(url, api_key) as client:
            if binary is not None:
                await client.upload_module(binary, Path(module).stem)
            return await client.post_job(request)

    job = run(work())
    if watch_it:
        watch(job.id, url, api_key, as_json)
    else:
        emit(job, as_json, job_card)


def read_module(module: str) -> bytes | None:
    """The bytes of a file, or ``None`` for a module's hash. Raises ``InvalidInputError``."""
    if re.fullmatch(r"[0-9a-f]{64}", module):
        return None
    try:
        return Path(module).read_bytes()
    except OSError as error:
        raise InvalidInputError(
            f"{module}: {error.strerror}",
            hint="Give a .wasm file, or a hash that `gstd module list` shows.",
        ) from error


def read_amount(text: str) -> int:
    """Nano of an amount that was typed. Raises ``InvalidInputError``."""
    try:
        return parse_gstd(text)
    except ValueError as error:
        raise InvalidInputError(str(error), hint="Write it like 0.01.") from error


def read_edge(text: str) -> JobAfter:
    """A job to wait for and how. Raises ``InvalidInputError``."""
    job, _, shape = text.partition(":")
    try:
        return JobAfter(job=str(UUID(job)), shape=Shape((shape or "all").replace("-", "_")))
    except ValueError as error:
        raise InvalidInputError(
            f"--after {text}: {error}", hint="Write a job's id, and :one-to-one if you mean that."
        ) from error


def read_inputs(file: Path) -> list[JobInput]:
    """The inputs in a JSON Lines file. Raises ``InvalidInputError`` naming the line."""
    found = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(msgspec.json.decode(line, type=JobInput))
        except msgspec.MsgspecError as error:
            raise InvalidInputError(
                f"{file}, line {number}: {error}",
                hint='A line is an object such as {"args": ["1", "2"], "stdin": "<base64>"}.',
            ) from error
    return found


@app.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Your jobs, newest first."""
    from gstd.cli.session import connect

    async def work() -> JobPage:
        async with connect(url, api_key) as client:
            return await client.jobs(limit=limit)

    emit(run(work()), as_json, _rows)


@app.command()
def show(
    job: JobArgument,
    tasks: Annotated[bool, typer.Option("--tasks", help="With every task and attempt.")] = False,
    state: Annotated[
        str | None, typer.Option(help="With its tasks in this state, such as failed.")
    ] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """A job: its tasks by state, and where its money is."""
    from gstd.cli.session import connect

    async def work() -> tuple[JobView, list[TaskView]]:
        async with connect(url, api_key) as client:
            listed: list[TaskView] = []
            while tasks or state is not None:
                after = listed[-1].index if listed else -1
                page = await client.tasks(job, after=after, state=state)
                if not page:
                    break
                listed += page
            return await client.job(job), listed

    view, listed = run(work())
    emit(
        {"job": view, "tasks": listed} if tasks or state else view,
        as_json,
        lambda _: job_card(view),
    )
    if listed and not as_json:
        out.print(_task_rows(listed))


@app.command()
def watch(
    job: JobArgument, url: UrlOption = None, api_key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """Follow a job live until all its tasks have ended."""
    from gstd.cli.progress import JobProgress
    from gstd.cli.session import connect

    async def work() -> JobView:
        async with connect(url, api_key) as client:
            with JobProgress(err) as progress:
                return await client.wait_for_job(job, progress.show)

    emit(run(work()), as_json, job_card)


@app.command()
def results(
    job: JobArgument,
    to: Annotated[
        Path | None, typer.Option(help="A folder that gets one file per task: INDEX.out.")
    ] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Accepted results, in order of index. What is not verified stays hidden."""
    from gstd.cli.session import connect

    async def work() -> list[TaskResult]:
        found = []
        async with connect(url, api_key) as client:
            async for result in client.results(job, output=to is not None):
                if to is not None and result.output is not None:
                    to.mkdir(parents=True, exist_ok=True)
                    (to / f"{result.index}.out").write_bytes(result.output)
                found.append(msgspec.structs.replace(result, output=None))
        return found

    emit(run(work()), as_json, _result_rows)


@app.command("set")
def change(
    job: JobArgument,
    priority: PriorityOption = None,
    hours: HoursOption = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change the priority or deadline of everything in a job that has not ended."""
    from gstd.cli.session import connect

    order = order_change(priority, hours)

    async def work() -> JobView:
        async with connect(url, api_key) as client:
            return await client.change_job(job, order)

    emit(run(work()), as_json, job_card)


@app.command()
def cancel(
    job: JobArgument, url: UrlOption = None, api_key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """Cancel a job: what is not being verified ends now and its money comes back."""
    from gstd.cli.session import connect

    async def work() -> JobView:
        async with connect(url, api_key) as client:
            return await client.cancel_job(job)

    emit(run(work()), as_json, job_card)


app.command()(graphs.graph)
app.command()(graphs.rerun)


def _rows(page: JobPage) -> Table | str:
    if not page.items:
        return "No jobs yet. Post one: gstd job submit --help"
    rows = table("Jobs", "id", "name", "state", "#tasks", "#locked in all", "posted")
    for job in page.items:
        total = f"{format_gstd(int(job.total_nano))} {job.asset}"
        posted = f"{job.created_at:%Y-%m-%d %H:%M}"
        rows.add_row(str(job.id), job.name, job.state, str(job.tasks), total, posted)
    return rows


def _task_rows(tasks: list[TaskView]) -> Table:
    rows = table("Tasks", "#index", "state", "why", "attempts")
    for task in tasks:
        attempts = ", ".join(
            f"{attempt.device_name}: {attempt.verdict or attempt.state}"
            for attempt in task.attempts
        )
        rows.add_row(str(task.index), task.state, task.reason, attempts)
    return rows


def _result_rows(found: list[TaskResult]) -> Table | str:
    if not found:
        return "No accepted results yet."
    rows = table("Results", "#index", "status", "#bytes", "#fuel", "output hash")
    for item in found:
        cells = (item.index, item.status, item.output_bytes, item.fuel, item.output_hash)
        rows.add_row(*(str(cell) for cell in cells))
    return rows
