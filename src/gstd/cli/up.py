"""``gstd up`` and ``gstd migrate``."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import msgspec

from gstd.cli.output import err, out, print_json, teller
from gstd.cli.processes import configure_logs
from gstd.cli.stack import bootstrap, migrate_database, open_stack
from gstd.embedded.process import State
from gstd.kernel.settings import Settings, settings_from


def run_up(*, port: int | None, as_json: bool) -> None:
    """Start everything and stay until SIGINT or SIGTERM."""
    settings = settings_from(os.environ)
    if port is not None:
        settings = msgspec.structs.replace(settings, port=port)
    asyncio.run(_up(settings, as_json))


def run_migrate() -> None:
    """Migrate the database of the environment and make its first account."""
    settings = settings_from(os.environ)
    asyncio.run(_migrate(settings))


async def _migrate(settings: Settings) -> None:
    applied = await migrate_database(settings)
    out.print(f"{len(applied)} migrations applied" if applied else "already up to date")
    await bootstrap(settings, out.print)


async def _up(settings: Settings, as_json: bool) -> None:
    configure_logs(as_json=settings.log_json)
    started = time.perf_counter()
    stop = stop_signal()
    tell = teller(err if as_json else out)
    async with open_stack(settings, tell, on_state=report_restart) as stack:
        seconds = round(time.perf_counter() - started, 2)
        if as_json:
            print_json({"url": stack.url, "seconds": seconds, "state": str(settings.state_dir)})
        else:
            out.print(f"[bold green]ready[/] in {seconds} s")
            out.print(f"  API reference  {stack.url}/docs")
            out.print(f"  logs and data  {settings.state_dir}")
            out.print("  next           gstd demo, gstd worker start, gstd job submit --help")
            out.print("  Ctrl-C stops everything")
        await stop.wait()
        if not as_json:
            out.print("stopping")


def stop_signal() -> asyncio.Event:
    """An event that SIGINT or SIGTERM sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    return stop


def report_restart(name: str, state: State) -> None:
    """Tell the operator when a process died and is started again."""
    if state is State.RESTARTING:
        err.print(f"[yellow]{name} died and is started again[/]")
