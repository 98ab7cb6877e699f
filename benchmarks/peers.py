"""Jobs per second and CPU per job of other task queues, on the servers that GSTD embeds.

A peer is tuned as its own documentation advises, runs a job that does nothing and keeps no
results. One process enqueues while another works. Peers live in an environment of their own,
which ``make bench-peers`` makes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import asyncpg
import msgspec

from benchmarks.cpu import cpu_s
from gstd.cli.output import out, table
from gstd.embedded.postgres import EmbeddedPostgres
from gstd.embedded.valkey import EmbeddedValkey

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".venv-peers"
PYTHON = HOME / "bin" / "python"
SCRIPT = Path(__file__).with_name("peer.py")
DATABASE = "peers"
WITHIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A peer: what it is called here, how it is tuned, and how many jobs fill a few seconds."""

    name: str
    tuning: str
    jobs: int
    is_durable: bool = False


SYSTEMS = (
    System(name="celery", tuning="Celery, Redis, acks_late, solo, prefetch 64", jobs=2_000),
    System(name="dramatiq", tuning="Dramatiq, Redis, 8 threads", jobs=4_000),
    System(name="saq", tuning="SAQ, Redis, 20 at a time", jobs=3_000),
    System(
        name="procrastinate",
        tuning="Procrastinate, PostgreSQL, 20 at a time",
        jobs=800,
        is_durable=True,
    ),
)


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Medians of a peer's runs; ``failed`` says why there are none."""

    case: str
    is_durable: bool
    """Whether a job that was taken in outlives a crash of its server."""

    per_second: int = 0
    python_cpu_ms: float = 0.0
    """Per job, of the process that enqueues and the one that works."""

    server_cpu_ms: float = 0.0
    ratio_to_celery: float | None = None
    failed: str | None = None


class _Step(msgspec.Struct, frozen=True):
    step: str
    at: float
    cpu: float


class PeerFailedError(Exception):
    """A peer did not do its jobs here."""


@dataclass(slots=True)
class _Sample:
    per_second: float
    python_cpu_ms: float
    server_cpu_ms: float
    ratio: float | None = None


class Peers:
    """Runs every peer once per round, so that others can be measured in between."""

    def __init__(self, postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
        self._postgres = postgres
        self._valkey = valkey
        self._samples: dict[str, list[_Sample]] = {system.name: [] for system in SYSTEMS}
        self._errors: dict[str, str] = {}

    async def round(self) -> float | None:
        """Every peer once; returns the jobs per second of the one that all are compared with."""
        if not (HOME / "done").exists():
            self._errors = {system.name: "not installed: make bench-peers" for system in SYSTEMS}
            return None
        await _make_database(self._postgres)
        base = None
        for system in SYSTEMS:
            try:
                sample = await _sample(system, self._postgres, self._valkey)
            except PeerFailedError as error:
                self._errors[system.name] = str(error)
                continue
            if system is SYSTEMS[0]:
                base = sample.per_second
            if base is not None:
                sample.ratio = sample.per_second / base
            self._samples[system.name].append(sample)
        return base

    def figures(self) -> list[Peer]:
        """The medians of all rounds so far."""
        return [self._figure(system) for system in SYSTEMS]

    def _figure(self, system: System) -> Peer:
        samples = self._samples[system.name]
        if not samples:
            why = self._errors.get(system.name, "not measured")
            return Peer(case=system.tuning, is_durable=system.is_durable, failed=why)
        ratios = [sample.ratio for sample in samples if sample.ratio is not None]
        return Peer(
            case=system.tuning,
            is_durable=system.is_durable,
            per_second=round(median(sample.per_second for sample in samples)),
            python_cpu_ms=round(median(sample.python_cpu_ms for sample in samples), 3),
            server_cpu_ms=round(median(sample.server_cpu_ms for sample in samples), 3),
            ratio_to_celery=round(median(ratios), 2) if ratios else None,
        )


def show(peers: Sequence[Peer]) -> None:
    """Print the peers as a table."""
    rows = table(
        "Peers: a job that does nothing, no results kept",
        "",
        "#per second",
        "#ratio to Celery",
        "#client and worker CPU ms",
        "#server CPU ms",
        "survives a crash",
    )
    for peer in peers:
        if peer.failed is not None:
            rows.add_row(peer.case, peer.failed)
            continue
        rows.add_row(
            peer.case,
            f"{peer.per_second:,}",
            "" if peer.ratio_to_celery is None else f"{peer.ratio_to_celery:.2f}",
            f"{peer.python_cpu_ms:.2f}",
            f"{peer.server_cpu_ms:.2f}",
            "yes" if peer.is_durable else "no",
        )
    out.print(rows)


async def _make_database(postgres: EmbeddedPostgres) -> None:
    session = await asyncpg.connect(postgres.address().dsn())
    try:
        if not await session.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
            await session.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await session.close()


async def _clear(postgres: EmbeddedPostgres) -> None:
    """A new start: no schema is applied twice and no queue has anything left."""
    session = await asyncpg.connect(postgres.address().dsn(DATABASE))
    try:
        await session.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    finally:
        await session.close()


async def _sample(system: System, postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> _Sample:
    if system.is_durable:
        await _clear(postgres)
    environment = {
        **os.environ,
        "PEER_REDIS": valkey.address().path,
        "PEER_PASSWORD": valkey.address().password,
        "PEER_POSTGRES": postgres.address().dsn(DATABASE),
    }
    server = postgres.pid if system.is_durable else valkey.pid
    async with (
        _process(system, "consume", environment) as consumer,
        asyncio.timeout(WITHIN_S),
    ):
        await _step(consumer, "start")
        await asyncio.sleep(0.5)
        cpu = cpu_s(server)
        async with _process(system, "produce", environment) as producer:
            first = await _step(producer, "start")
            sent = await _step(producer, "end")
            last = await _step(consumer, "end")
        server_cpu = cpu_s(server) - cpu
    return _Sample(
        per_second=system.jobs / (last.at - first.at),
        python_cpu_ms=1000 * (sent.cpu + last.cpu) / system.jobs,
        server_cpu_ms=1000 * server_cpu / system.jobs,
    )


@asynccontextmanager
async def _process(
    system: System, role: str, environment: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        PYTHON,
        SCRIPT,
        system.name,
        role,
        str(system.jobs),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=None if "--verbose" in sys.argv else asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    except TimeoutError as error:
        raise PeerFailedError(f"not done within {WITHIN_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _step(process: asyncio.subprocess.Process, name: str) -> _Step:
    assert process.stdout is not None
    async for line in process.stdout:
        if line.startswith(b"{"):
            step = msgspec.json.decode(line, type=_Step)
            if step.step == name:
                return step
    raise PeerFailedError(f"ended before its {name} (see with --verbose)")
