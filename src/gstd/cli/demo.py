"""``gstd demo``: strangers compute a picture, one of them cheats, the right ones are paid."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import secrets
import time
from pathlib import Path
from uuid import UUID

import msgspec
from rich.table import Table

from gstd.cli import mandelbrot
from gstd.cli.credentials import Credentials, load_credentials
from gstd.cli.output import err, out, print_json, table, teller
from gstd.cli.processes import configure_logs
from gstd.cli.progress import JobProgress
from gstd.cli.stack import Stack, Tell, open_stack
from gstd.cli.up import report_restart, stop_signal
from gstd.embedded.process import Command, ManagedProcess
from gstd.kernel.money import NANO_PER_GSTD, format_gstd
from gstd.kernel.settings import Settings, settings_from
from gstd.protocol.jobs import DeviceShare, JobView
from gstd.protocol.people import AccountRequest, LedgerCheck, NewAccount, WalletView
from gstd.protocol.types import Asset, Name, Role
from gstd.sdk.client import Client
from gstd.worker.status import ExitCode

REWARD_NANO = NANO_PER_GSTD // 100
CREDITS_NANO = 5 * NANO_PER_GSTD
LOOK_EVERY_S = 0.3


class Stranger(msgspec.Struct, frozen=True):
    """A worker of the demo: its account and how it behaves."""

    name: Name
    account: NewAccount
    cheats: bool


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo did. Amounts in nano; ``paid_nano`` by device."""

    tasks: int
    accepted: int
    rejected_results: int
    paid_nano: dict[str, str]
    fee_nano: str
    referee_nano: str
    refunded_nano: str
    escrow_left_nano: str
    ledger_sum_nano: str
    ledger_ok: bool
    picture: str
    seconds: float
    url: str
    job: UUID


def run_demo(*, leave: bool, as_json: bool, picture: str) -> None:
    """Run the demo on a platform of its own below the state folder."""
    settings = settings_from(os.environ)
    settings = msgspec.structs.replace(settings, state=str(settings.state_dir / "demo"))
    asyncio.run(_demo(settings, leave=leave, as_json=as_json, picture=Path(picture)))


async def _demo(settings: Settings, *, leave: bool, as_json: bool, picture: Path) -> None:
    configure_logs(as_json=settings.log_json)
    started = time.perf_counter()
    stop = stop_signal()
    tell = teller(err if as_json else out)
    async with open_stack(settings, tell, on_state=report_restart) as stack:
        play = asyncio.ensure_future(_play(stack, tell, picture, started, as_json=as_json))
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({play, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not play.done():
            play.cancel()
            return
        stopped.cancel()
        report = await play
        if as_json:
            print_json(report)
        if not leave:
            tell(f"the platform stays up: {stack.url}/docs - Ctrl-C stops it")
            await stop.wait()


async def _play(
    stack: Stack, tell: Tell, picture: Path, started: float, *, as_json: bool
) -> Report:
    kept = load_credentials(stack.settings.state_dir)
    assert kept is not None, "the platform made its first account"
    admin_key = Credentials(api_key=kept.api_key, url=stack.url)
    async with Client(stack.url, admin_key.api_key) as admin:
        requester, strangers = await _cast(admin)
        await _start_workers(stack, strangers)
        tell("three workers run: two honest strangers, one that flips a byte in every result")
        async with Client(stack.url, requester.api_key) as client:
            job = await _post(client, tell)
            job = await _follow(client, job.id, as_json=as_json)
            image = mandelbrot.assemble(
                {item.index: item.output or b"" async for item in client.results(job.id)}
            )
            picture.parent.mkdir(parents=True, exist_ok=True)
            image.save(picture)
            shares = await client.job_workers(job.id)
            wallet = await client.wallet()
        check = await admin.check_ledger()
    report = _report(job, shares, check, picture, time.perf_counter() - started, stack.url)
    if not as_json:
        if out.is_terminal:
            out.print(mandelbrot.preview(image))
        _show(job, shares, wallet, check, report)
    return report


async def _cast(admin: Client) -> tuple[NewAccount, list[Stranger]]:
    """A requester with test credits and three workers, each an account of its own."""
    requester = await admin.create_account(AccountRequest(name="requester", roles=[Role.REQUESTER]))
    await admin.credit(requester.account.id, CREDITS_NANO)
    strangers = []
    for name, cheats in (("honest-1", False), ("honest-2", False), ("cheat", True)):
        account = await admin.create_account(AccountRequest(name=name, roles=[Role.WORKER]))
        strangers.append(Stranger(name, account, cheats))
    return requester, strangers


async def _start_workers(stack: Stack, strangers: list[Stranger]) -> None:
    """One process per stranger. Each gets a one-time code, nobody's API key."""
    folder = stack.settings.state_dir / "workers" / secrets.token_hex(4)
    commands = [await _worker_command(stack, stranger, folder) for stranger in strangers]
    await stack.supervisor.start(
        *(ManagedProcess(command, on_state=report_restart) for command in commands)
    )


async def _worker_command(stack: Stack, stranger: Stranger, folder: Path) -> Command:
    async with Client(stack.url, stranger.account.api_key) as owner:
        code = await owner.new_enrolment_code()
    home = folder / stranger.name
    home.mkdir(parents=True, mode=0o700)
    misbehave = ("--misbehave", "flip") if stranger.cheats else ()
    command = stack.command(
        f"worker-{stranger.name}",
        *("worker", "start", "--name", stranger.name, "--url", stack.url),
        *("--home", str(home), *misbehave),
        env={"GSTD_ENROLMENT_CODE": code.code},
    )
    return dataclasses.replace(command, final_codes=frozenset(ExitCode))


async def _post(client: Client, tell: Tell) -> JobView:
    module = await client.upload_module(mandelbrot.module_bytes(), "mandelbrot")
    request = mandelbrot.job_request(module.id, REWARD_NANO, Asset.TEST)
    job = await client.post_job(request)
    total = format_gstd(int(job.quote.total_nano))
    tell(f"job posted: {job.counts.tasks} tasks, {total} test credits locked in escrow")
    return job


async def _follow(client: Client, job_id: UUID, *, as_json: bool) -> JobView:
    """Show the job's progress until every accepted task is paid."""
    with JobProgress(err if as_json else out) as progress:
        while True:
            job = await client.job(job_id)
            progress.show(job)
            if job.state != "open" and job.counts.paid == job.counts.accepted:
                return job
            await asyncio.sleep(LOOK_EVERY_S)


def _report(
    job: JobView,
    shares: list[DeviceShare],
    check: LedgerCheck,
    picture: Path,
    seconds: float,
    url: str,
) -> Report:
    return Report(
        tasks=job.counts.tasks,
        accepted=job.counts.accepted,
        rejected_results=job.counts.rejected_results,
        paid_nano={share.device_name: share.vested_nano for share in shares},
        fee_nano=job.money.fee_nano,
        referee_nano=job.money.referee_nano,
        refunded_nano=job.money.refunded_nano,
        escrow_left_nano=job.money.locked_nano,
        ledger_sum_nano=check.sum_nano,
        ledger_ok=check.ok,
        picture=str(picture),
        seconds=round(seconds, 2),
        url=url,
        job=job.id,
    )


def _show(
    job: JobView,
    shares: list[DeviceShare],
    wallet: WalletView,
    check: LedgerCheck,
    report: Report,
) -> None:
    out.print(_work_rows(shares))
    out.print(_money_rows(job, shares, wallet))
    verdict = "every promise holds" if check.ok else "[bold red]a promise is broken[/]"
    out.print(
        f"escrow left {format_gstd(int(report.escrow_left_nano))}, "
        f"ledger sum {check.sum_nano}, {verdict}: gstd admin ledger check"
    )
    out.print(f"picture [bold]{report.picture}[/], {report.seconds} s in all")


def _work_rows(shares: list[DeviceShare]) -> Table:
    rows = table(
        "Who computed what", "device", "#accepted", "#wrong, unpaid", "#paid", "#trust", ""
    )
    for share in shares:
        barred = "[red]gets no more work[/]" if share.state != "active" else ""
        rows.add_row(
            share.device_name,
            str(share.accepted),
            str(share.rejected),
            format_gstd(int(share.vested_nano)),
            f"{share.trust}/1000",
            barred,
        )
    return rows


def _money_rows(job: JobView, shares: list[DeviceShare], wallet: WalletView) -> Table:
    rows = table("Where the money is (test credits)", "", "#credits")
    [balance] = wallet.balances
    rows.add_row("locked at the start", format_gstd(int(job.money.funded_nano)))
    for share in shares:
        rows.add_row(f"  to {share.device_name}", format_gstd(int(share.vested_nano)))
    rows.add_row("  to the platform, its fee", format_gstd(int(job.money.fee_nano)))
    rows.add_row("  to the referee, fuel used", format_gstd(int(job.money.referee_nano)))
    rows.add_row("  back to the requester", format_gstd(int(job.money.refunded_nano)))
    rows.add_row("the requester has", format_gstd(int(balance.available_nano)))
    return rows
