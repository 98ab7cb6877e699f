"""The command's tree. Sub-commands import what they need when they run."""

from __future__ import annotations

import os
import sys
from typing import Annotated
from uuid import UUID

import typer

from gstd.cli import admin, job, module, pools, task, wallet, worker
from gstd.cli.output import JsonOption, KeyOption, UrlOption, fail
from gstd.kernel.errors import GstdError

app = typer.Typer(
    name="gstd",
    help="A marketplace for verified compute on devices that nobody trusts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(module.app, name="module", help="Upload and look at modules.")
app.add_typer(job.app, name="job", help="Post, watch and fetch jobs.")
app.add_typer(task.app, name="task", help="One task: its story and its turn.")
app.add_typer(wallet.app, name="wallet", help="Your money.")
app.add_typer(worker.app, name="worker", help="Earn with this device.")
app.add_typer(pools.app, name="pool", help="Private pools of devices.")
app.add_typer(admin.app, name="admin", help="Operate the platform.")

PortOption = Annotated[
    int | None, typer.Option(help="Port of the API; 0 for any free one.", min=0, max=65_535)
]


@app.command()
def up(port: PortOption = None, as_json: JsonOption = False) -> None:
    """Start the whole platform on this machine and keep it running until Ctrl-C."""
    from gstd.cli.up import run_up

    run_up(port=port, as_json=as_json)


@app.command()
def demo(
    leave: Annotated[
        bool, typer.Option("--exit", help="End when the job is paid instead of staying up.")
    ] = False,
    as_json: JsonOption = False,
    picture: Annotated[str, typer.Option(help="Where the picture is written.")] = "out/demo.png",
) -> None:
    """Run a paid, verified job on three strangers' devices, one of which cheats."""
    from gstd.cli.demo import run_demo

    run_demo(leave=leave, as_json=as_json, picture=picture)


@app.command()
def doctor(url: UrlOption = None, api_key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Check a running platform: health, schema, recorded errors, ledger, a tiny paid job."""
    from gstd.cli.doctor import run_doctor

    run_doctor(url=url, api_key=api_key, as_json=as_json)


@app.command()
def why(
    thing: Annotated[
        UUID, typer.Argument(metavar="TASK|DEVICE", help="The id of a task or device of yours.")
    ],
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Why a task does not start, or why a device gets no work."""
    from gstd.cli.why import run_why

    run_why(thing, url=url, api_key=api_key, as_json=as_json)


@app.command()
def api() -> None:
    """Serve the HTTP API (settings from GSTD_ variables)."""
    from gstd.cli.processes import serve_api, start_process

    serve_api(start_process())


@app.command()
def scheduler() -> None:
    """Do the periodic work; any number may run, one of them leads."""
    from gstd.cli.processes import run_until_signalled, serve_scheduler, start_process

    settings = start_process()
    run_until_signalled(lambda: serve_scheduler(settings))


@app.command()
def referee() -> None:
    """Re-execute work for verification; any number may run."""
    from gstd.cli.processes import run_until_signalled, serve_referee, start_process

    settings = start_process()
    run_until_signalled(lambda: serve_referee(settings))


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema and make the first account."""
    from gstd.cli.up import run_migrate

    run_migrate()


def main() -> None:
    """Run the command; a broken rule ends it with its sentence, its hint and exit code 1."""
    try:
        app()
    except GstdError as error:
        fail(error, as_json="--json" in sys.argv)
        raise SystemExit(1) from None
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
