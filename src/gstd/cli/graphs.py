"""``gstd job graph`` and ``gstd job rerun``."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import msgspec
import typer

from gstd.cli.cards import job_card
from gstd.cli.output import JsonOption, KeyOption, UrlOption, emit, run, table
from gstd.kernel.clock import SystemClock
from gstd.kernel.errors import InvalidInputError
from gstd.kernel.money import parse_gstd
from gstd.protocol.jobs import GraphRequest, RerunRequest

if TYPE_CHECKING:
    from rich.table import Table

    from gstd.protocol.jobs import JobView


def graph(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help='JSON: {"jobs": [...]}; a module is a hash or a path.'
        ),
    ],
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Post jobs that wait for one another by name: all of them, or none."""
    from gstd.cli.session import connect

    request, binaries = read_graph(file)

    async def work() -> list[JobView]:
        async with connect(url, api_key) as client:
            for name, binary in binaries.items():
                await client.upload_module(binary, name)
            return await client.post_graph(request)

    emit(run(work()), as_json, _rows)


def rerun(
    job: Annotated[UUID, typer.Argument(help="A job that has ended.")],
    reward: Annotated[
        str | None, typer.Option(help="Reward per task; else what it was before.")
    ] = None,
    hours: Annotated[float | None, typer.Option(help="Give up after so many hours.", min=0)] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Post anew what a job has no result for, at the same indexes."""
    from gstd.cli.session import connect

    try:
        nano = None if reward is None else str(parse_gstd(reward))
    except ValueError as error:
        raise InvalidInputError(str(error), hint="Write it like 0.01.") from error
    end = None if hours is None else SystemClock().now() + timedelta(hours=hours)
    request = RerunRequest(reward_nano=nano, deadline=end)

    async def work() -> JobView:
        async with connect(url, api_key) as client:
            return await client.rerun_job(job, request)

    emit(run(work()), as_json, job_card)


def read_graph(file: Path) -> tuple[GraphRequest, dict[str, bytes]]:
    """A graph in a file, and the modules it names by path. Raises ``InvalidInputError``."""
    hint = 'Write {"jobs": [{"name": "map", "module": "map.wasm", "reward_nano": "…", …}, …]}.'
    binaries: dict[str, bytes] = {}
    try:
        raw: dict[str, Any] = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        for job in raw.get("jobs", []):
            module = str(job.get("module", ""))
            if not re.fullmatch(r"[0-9a-f]{64}", module):
                binary = (file.parent / module).read_bytes()
                binaries[Path(module).stem] = binary
                job["module"] = hashlib.sha256(binary).hexdigest()
        return msgspec.convert(raw, GraphRequest), binaries
    except (msgspec.MsgspecError, AttributeError, TypeError) as error:
        raise InvalidInputError(f"{file}: {error}", hint=hint) from error
    except OSError as error:
        raise InvalidInputError(f"{error.filename}: {error.strerror}", hint=hint) from error


def _rows(jobs: list[JobView]) -> Table:
    rows = table("Graph", "name", "id", "#tasks", "state")
    for job in jobs:
        rows.add_row(job.name, str(job.id), str(job.counts.tasks), f"{job.state}: {job.reason}")
    return rows
