"""From a warm ``gstd up`` to ready, and on to the first paid task."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from gstd.cli import mandelbrot
from gstd.cli.credentials import load_credentials
from gstd.protocol.graphs import JobInput
from gstd.protocol.jobs import JobRequest
from gstd.protocol.types import Asset
from gstd.sdk.client import Client


class Startup(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from the start of the command."""

    cold_ready_s: float
    warm_ready_s: float
    warm_first_paid_s: float


async def measure() -> Startup:
    """Start on an empty state folder, stop, start again, and have one task paid."""
    with tempfile.TemporaryDirectory(prefix="gstd-bench-") as folder:
        state = Path(folder)
        cold, process, _, _ = await asyncio.to_thread(_up, state)
        await asyncio.to_thread(_stop, process)
        warm, process, url, started = await asyncio.to_thread(_up, state)
        try:
            paid = await _first_paid(state, url, started)
        finally:
            await asyncio.to_thread(_stop, process)
    return Startup(cold_ready_s=cold, warm_ready_s=warm, warm_first_paid_s=paid)


def _up(state: Path) -> tuple[float, subprocess.Popen[str], str, float]:
    started = time.perf_counter()
    process = _gstd(state, "up", "--json", "--port", "0")
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    return round(time.perf_counter() - started, 2), process, ready["url"], started


def _gstd(state: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gstd.cli.main", *arguments],
        env={**os.environ, "GSTD_STATE": str(state)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate()


async def _first_paid(state: Path, url: str, started: float) -> float:
    credentials = load_credentials(state)
    assert credentials is not None
    worker = _gstd(state, "worker", "start", "--home", str(state / "worker"), "--url", url)
    try:
        async with Client(url, credentials.api_key) as client:
            module = await client.upload_module(mandelbrot.module_bytes(), "mandelbrot")
            job = await client.post_job(
                JobRequest(
                    module=module.id,
                    reward_nano="1000000",
                    inputs=[JobInput(args=("0", "0", "1", "8", "50"))],
                    asset=Asset.TEST,
                )
            )
            position = 0
            while (await client.job(job.id)).counts.paid < 1:
                position = (await client.events(after=position, wait_ms=1_000)).position
            return round(time.perf_counter() - started, 2)
    finally:
        await asyncio.to_thread(_stop, worker)
