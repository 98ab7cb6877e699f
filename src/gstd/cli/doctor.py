"""``gstd doctor``: is the running platform well, from health to a paid task."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import typer
from rich.table import Table

from gstd.cli import mandelbrot
from gstd.cli.credentials import find_credentials
from gstd.cli.output import emit, run, table
from gstd.cli.processes import configure_logs
from gstd.database.migrate import latest_version
from gstd.kernel.clock import SystemClock
from gstd.kernel.errors import GstdError
from gstd.kernel.money import format_gstd
from gstd.protocol.execution import Limits
from gstd.protocol.graphs import JobInput
from gstd.protocol.jobs import JobRequest, JobView
from gstd.protocol.signing import DeviceKey
from gstd.protocol.types import Asset, Tier
from gstd.sandbox.runner import Sandbox
from gstd.sdk.client import Client
from gstd.sdk.device import DeviceClient
from gstd.worker.daemon import Worker, WorkerOptions
from gstd.worker.modules import ModuleCache

REWARD_NANO = 1_000_000
PAID_WITHIN_S = 60
LOOK_EVERY_S = 0.2

TINY = JobInput(args=("0", "0", "1", "8", "50"))
"""One small tile of the Mandelbrot example: real work of a few milliseconds."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One check: what was looked at, whether it is well, and what was seen.

    ``weak`` is what works, but with less protection than elsewhere.
    """

    check: str
    ok: bool
    seen: str
    hint: str = ""
    weak: bool = False


class Diagnosis(msgspec.Struct, frozen=True):
    """All findings."""

    ok: bool
    findings: list[Finding]


class DoctorError(GstdError):
    """A check found something wrong."""

    code = "unwell"
    hint = "Look at the logs in the state folder."


class WeaknessError(GstdError):
    """A check found something that works, but not as safely as it should."""

    code = "weak"


def run_doctor(*, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Check and print; exit code 1 if anything is wrong."""
    configure_logs(level=logging.ERROR)
    diagnosis = run(_diagnose(url, api_key))
    emit(diagnosis, as_json, _rows)
    if not diagnosis.ok:
        raise typer.Exit(1)


async def _diagnose(url: str | None, api_key: str | None) -> Diagnosis:
    credentials = find_credentials(url, api_key)
    checks: list[tuple[str, Callable[[Client], Awaitable[str]]]] = [
        ("health", _health),
        ("schema", _schema),
        ("recorded errors", _errors),
        ("cage of modules here", _cage),
        ("a tiny paid job", lambda client: _tiny_job(client, credentials.url)),
        ("ledger", _ledger),
    ]
    findings = []
    async with Client(credentials.url, credentials.api_key) as client:
        for name, check in checks:
            try:
                findings.append(Finding(check=name, ok=True, seen=await check(client)))
            except WeaknessError as weakness:
                seen, hint = weakness.detail, weakness.advice
                findings.append(Finding(check=name, ok=True, seen=seen, hint=hint, weak=True))
            except GstdError as error:
                hint = error.advice
                findings.append(Finding(check=name, ok=False, seen=error.detail, hint=hint))
    return Diagnosis(all(finding.ok for finding in findings), findings)


async def _health(client: Client) -> str:
    health = await client.health()
    parts = ", ".join(f"{part.name} {part.status}" for part in health.parts)
    if health.status != "healthy":
        raise DoctorError(f"{health.status}: {parts}")
    return parts


async def _schema(client: Client) -> str:
    version = (await client.health()).schema_version
    if version != latest_version():
        raise DoctorError(
            f"the database has schema {version}, this program needs {latest_version()}",
            hint="Run `gstd migrate` with the newest version.",
        )
    return f"version {version}, migrations current"


async def _errors(client: Client) -> str:
    since = SystemClock().now() - timedelta(hours=1)
    recent = [item for item in await client.recorded_errors(limit=100) if item.at > since]
    if recent:
        raise DoctorError(
            f"{len(recent)} in the last hour, the newest {recent[0].code} at {recent[0].place}",
            hint="List them with `gstd admin errors`.",
        )
    return "none in the last hour"


async def _cage(_client: Client) -> str:
    with tempfile.TemporaryDirectory(prefix="gstd-doctor-") as folder:
        async with Sandbox(Path(folder)) as sandbox:
            walls = sandbox.walls
    if walls.missing:
        raise WeaknessError(
            walls.words, hint="Run workers on Linux 5.13 or newer with landlock and seccomp on."
        )
    return walls.words


async def _ledger(client: Client) -> str:
    check = await client.check_ledger()
    broken = [item.name for item in check.invariants if not item.holds]
    if broken:
        raise DoctorError(f"broken: {'; '.join(broken)}", hint="See `gstd admin ledger check`.")
    return f"all promises hold over {check.transfers} transfers, sum {check.sum_nano}"


async def _tiny_job(client: Client, url: str) -> str:
    """Post one task of the example, compute it here if nobody else does, wait until it is paid."""
    module = await client.upload_module(mandelbrot.module_bytes(), "mandelbrot")
    asset = await _spendable(client)
    request = JobRequest(
        module=module.id,
        name="doctor",
        reward_nano=str(REWARD_NANO),
        inputs=[TINY],
        tier=Tier.FULL,
        asset=asset,
        limits=Limits(fuel=1_000_000_000),
    )
    with tempfile.TemporaryDirectory(prefix="gstd-doctor-") as folder:
        job = await client.post_job(request)
        paid = await _compute(client, url, job, Path(folder))
    if paid.counts.paid != 1 or paid.money.locked_nano != "0":
        raise DoctorError(f"the job ended as {paid.reason}")
    return f"created, computed, proved and paid {format_gstd(REWARD_NANO)} {asset}"


async def _spendable(client: Client) -> Asset:
    wallet = await client.wallet()
    for balance in wallet.balances:
        if int(balance.available_nano) > 100 * REWARD_NANO:
            return balance.asset
    raise DoctorError(
        "this account has no money for a tiny job", hint="Use the key of a funded account."
    )


async def _compute(client: Client, url: str, job: JobView, folder: Path) -> JobView:
    """Lend this process as a worker until the job is paid, then revoke the device."""
    key = DeviceKey.generate()
    code = await client.new_enrolment_code()
    async with (
        DeviceClient(url, key) as device_client,
        Sandbox(folder / "cache") as sandbox,
    ):
        device = await device_client.enrol(code.code, "doctor")
        worker = Worker(
            device_client, sandbox, ModuleCache(device_client.module), WorkerOptions(wait_ms=1000)
        )
        working = asyncio.ensure_future(worker.run())
        try:
            async with asyncio.timeout(PAID_WITHIN_S):
                while True:
                    seen = await client.job(job.id)
                    if seen.state != "open" and seen.counts.paid == seen.counts.accepted:
                        return seen
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError as error:
            await client.cancel_job(job.id)
            raise DoctorError(f"not paid within {PAID_WITHIN_S} s; cancelled") from error
        finally:
            worker.stop()
            await working
            await client.revoke_device(device.id)


def _rows(diagnosis: Diagnosis) -> Table:
    rows = table(_title(diagnosis), "", "check", "seen")
    for finding in diagnosis.findings:
        seen = f"{finding.seen}\n[dim]{finding.hint}[/]" if finding.hint else finding.seen
        rows.add_row(_mark(finding), finding.check, seen)
    return rows


def _title(diagnosis: Diagnosis) -> str:
    if not diagnosis.ok:
        return "Not well"
    if any(finding.weak for finding in diagnosis.findings):
        return "Operational, but weak"
    return "All systems operational"


def _mark(finding: Finding) -> str:
    if finding.weak:
        return "[bold yellow]weak[/]"
    return "[green]ok[/]" if finding.ok else "[bold red]no[/]"
