"""``gstd worker``."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self
from uuid import UUID

import typer

from gstd.cli.limits import (
    AllowOption,
    AssetOption,
    DenyOption,
    MaxSecondsOption,
    MinRewardOption,
    OnlyPoolsOption,
    PoolOption,
    changed,
    limits_of,
    words_of,
)
from gstd.cli.output import JsonOption, KeyOption, UrlOption, emit, err, run, table
from gstd.kernel.money import format_gstd
from gstd.protocol.matching import NO_LIMITS, DeviceLimits
from gstd.worker.misbehave import Misbehaviour

if TYPE_CHECKING:
    from rich.table import Table

    from gstd.protocol.people import DeviceView, EnrolmentCode
    from gstd.sandbox.walls import Walls
    from gstd.sdk.device import DeviceClient
    from gstd.worker.status import Counters, Ending, WorkerEvent

app = typer.Typer(no_args_is_help=True)

HomeOption = Annotated[
    Path, typer.Option(help="Where the device's key and its module cache are kept.")
]


@app.command()
def start(  # noqa: PLR0913, PLR0917 - every option of a worker
    name: Annotated[str, typer.Option(help="What to call this device.")] = socket.gethostname(),
    code: Annotated[
        str | None,
        typer.Option(help="A one-time code (better: GSTD_ENROLMENT_CODE). Needed once."),
    ] = None,
    home: HomeOption = Path("~/.local/state/gstd/worker"),
    slots: Annotated[int, typer.Option(help="Tasks at a time.", min=1, max=64)] = 1,
    memory_mb: Annotated[int, typer.Option(help="Memory per task, in MiB.", min=16)] = 256,
    min_reward: MinRewardOption = None,
    max_seconds: MaxSecondsOption = None,
    asset: AssetOption = None,
    allow: AllowOption = None,
    deny: DenyOption = None,
    pool: PoolOption = None,
    only_pools: OnlyPoolsOption = False,
    misbehave: Annotated[
        Misbehaviour | None,
        typer.Option(help="A testing aid: `flip` makes every result wrong, to watch it be caught."),
    ] = None,
    url: UrlOption = None,
) -> None:
    """Work until Ctrl-C. Without a code, a local platform's own account enrols the device."""
    from gstd.cli.processes import configure_logs
    from gstd.embedded.leash import hold_leash

    given = limits_of(
        min_reward=min_reward,
        max_seconds=max_seconds,
        asset=asset,
        allow=allow,
        deny=deny,
        pool=pool,
        only_pools=only_pools,
    )
    limits = changed(NO_LIMITS, given)
    hold_leash()
    configure_logs(level=logging.ERROR)  # the narrator tells the rest
    ending = run(
        _start(
            name=name,
            code=code or os.environ.get("GSTD_ENROLMENT_CODE"),
            home=home.expanduser(),
            slots=slots,
            memory_bytes=memory_mb << 20,
            limits=limits,
            misbehave=misbehave,
            url=url,
        )
    )
    if ending.exit_code:
        err.print(f"[bold red]{ending.detail}[/]\n[dim]{ending.hint}[/]")
    raise typer.Exit(int(ending.exit_code))


async def _start(
    *,
    name: str,
    code: str | None,
    home: Path,
    slots: int,
    memory_bytes: int,
    limits: DeviceLimits,
    misbehave: Misbehaviour | None,
    url: str | None,
) -> Ending:
    from gstd.cli.credentials import platform_url
    from gstd.sandbox.runner import Sandbox
    from gstd.sdk.device import DeviceClient
    from gstd.worker.daemon import Worker, WorkerOptions
    from gstd.worker.identity import load_or_create_key
    from gstd.worker.misbehave import alteration
    from gstd.worker.modules import ModuleCache
    from gstd.worker.signals import run_until_signal

    key = load_or_create_key(home / "device.key")
    address = platform_url(url)
    async with DeviceClient(address, key) as client:
        await _enrol(client, Enrolment.in_home(home), code, name, url)
        async with Sandbox(home / "cache", slots) as sandbox:
            worker = Worker(
                client,
                sandbox,
                ModuleCache(client.module, home / "modules"),
                WorkerOptions(
                    slots=slots,
                    memory_bytes=memory_bytes,
                    limits=limits,
                    alter=alteration(misbehave),
                    on_event=_Narrator().tell,
                ),
            )
            err.print(f"working for {address} as {name}, {slots} at a time; Ctrl-C stops")
            say_walls(sandbox.walls)
            return await run_until_signal(worker)


def say_walls(walls: Walls) -> None:
    """What protects this machine from the modules it runs; loudly if something is missing."""
    err.print(walls.words, style="bold yellow" if walls.missing else "dim", soft_wrap=True)


class Enrolment:
    """A note in the worker's home that its key is linked to an account."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def in_home(cls, home: Path) -> Self:
        """The note of the worker that lives there."""
        return cls(home / "enrolled")

    def is_done(self) -> bool:
        """Whether it is written."""
        return self._path.exists()

    def note(self, device: DeviceView) -> None:
        """Write it, with the device's id."""
        self._path.write_text(f"{device.id}\n", encoding="ascii")


async def _enrol(
    client: DeviceClient, enrolment: Enrolment, code: str | None, name: str, url: str | None
) -> None:
    """Link the device by the code, else once by a code of the account whose key is at hand."""
    from gstd.cli.session import connect

    if code is None:
        if enrolment.is_done():
            return
        async with connect(url, None) as owner:
            code = (await owner.new_enrolment_code()).code
    enrolment.note(await client.enrol(code, name))


class _Narrator:
    """Says on the terminal what the worker does."""

    def tell(self, event: WorkerEvent, counters: Counters) -> None:
        earned = ", ".join(
            f"{format_gstd(nano)} {asset}" for asset, nano in counters.estimated_nano.items()
        )
        totals = f"{counters.submitted} submitted, up to {earned}" if earned else ""
        what = f"{event.kind}: {event.text}"
        err.print(f"{what}  [dim]{totals}[/]" if totals else what, soft_wrap=True)


@app.command()
def pool(  # noqa: PLR0913, PLR0917 - every option of the command
    minimum: Annotated[int, typer.Option("--min", help="Never fewer workers.", min=0)] = 0,
    maximum: Annotated[int, typer.Option("--max", help="Never more workers.", min=1)] = (
        os.cpu_count() or 1
    ),
    slots: Annotated[int, typer.Option(help="Tasks at a time, per worker.", min=1, max=64)] = 1,
    memory_mb: Annotated[int, typer.Option(help="Memory per task, in MiB.", min=16)] = 256,
    share: Annotated[
        float, typer.Option(help="The part of all needed slots this pool gives.", min=0.0, max=1.0)
    ] = 1.0,
    name: Annotated[str, typer.Option(help="What to call its devices.")] = socket.gethostname(),
    home: HomeOption = Path("~/.local/state/gstd/pool"),
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON value per look at the signal.")
    ] = False,
) -> None:
    """Run as many workers as the work needs, until Ctrl-C. Each enrols a device of its own."""
    from gstd.cli.pool import PoolOptions, run_pool
    from gstd.cli.processes import start_process

    settings = start_process()
    options = PoolOptions(
        name=name,
        home=home.expanduser(),
        minimum=minimum,
        maximum=maximum,
        slots=slots,
        memory_mb=memory_mb,
        share=share,
    )
    run(run_pool(options, settings.policy, url=url, api_key=api_key, as_json=as_json))


@app.command()
def code(url: UrlOption = None, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Make a one-time code that links a device to your account."""
    from gstd.cli.session import connect

    async def work() -> EnrolmentCode:
        async with connect(url, api_key) as client:
            return await client.new_enrolment_code()

    emit(run(work()), as_json, lambda made: made.code)


@app.command()
def limit(  # noqa: PLR0913, PLR0917 - every limit of a device
    device: Annotated[UUID, typer.Argument(help="The device's id.")],
    memory_mb: Annotated[
        int | None, typer.Option(help="Take no task that may use more memory, in MiB.", min=1)
    ] = None,
    min_reward: MinRewardOption = None,
    max_seconds: MaxSecondsOption = None,
    asset: AssetOption = None,
    allow: AllowOption = None,
    deny: DenyOption = None,
    pool: PoolOption = None,
    no_pools: Annotated[
        bool, typer.Option("--no-pools", help="Serve none of your private pools.")
    ] = False,
    only_pools: OnlyPoolsOption = False,
    clear: Annotated[bool, typer.Option("--clear", help="First lift every limit.")] = False,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set what a device of yours takes; limits that are not named stay.

    Limits that the worker was started with count as well, where they are stricter.
    """
    from gstd.cli.session import connect

    given = limits_of(
        min_reward=min_reward,
        max_seconds=max_seconds,
        asset=asset,
        allow=allow,
        deny=deny,
        pool=pool,
        only_pools=only_pools,
    )
    if memory_mb is not None:
        given["memory_bytes"] = memory_mb << 20
    if no_pools:
        given["pools"] = []

    async def work() -> DeviceView:
        async with connect(url, api_key) as client:
            before = {one.id: one.limits for one in await client.devices()}
            present = NO_LIMITS if clear else before.get(device, NO_LIMITS)
            return await client.limit_device(device, changed(present, given))

    emit(run(work()), as_json, lambda view: words_of(view.limits) or "takes every task")


@app.command("list")
def list_devices(
    url: UrlOption = None, api_key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """Your devices: trust, results, when last heard of."""
    from gstd.cli.session import connect

    async def work() -> list[DeviceView]:
        async with connect(url, api_key) as client:
            return await client.devices()

    emit(run(work()), as_json, _rows)


def _rows(devices: list[DeviceView]) -> Table | str:
    if not devices:
        return "No devices yet. Start one: gstd worker start"
    rows = table(
        "Devices", "id", "name", "state", "#trust", "#accepted", "#rejected", "last seen", "takes"
    )
    for device in devices:
        seen = f"{device.last_seen_at:%Y-%m-%d %H:%M:%S}" if device.last_seen_at else "never"
        counts = (str(device.trust), str(device.accepted), str(device.rejected))
        rows.add_row(
            str(device.id), device.name, device.state, *counts, seen, words_of(device.limits)
        )
    return rows
