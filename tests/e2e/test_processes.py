"""Two of each process on the same stores, as on machines of one's own."""

from __future__ import annotations

import asyncio
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest

from gstd.cli.credentials import load_credentials
from gstd.embedded.valkey import EmbeddedValkey
from gstd.protocol.execution import Limits
from gstd.protocol.graphs import JobInput
from gstd.protocol.jobs import JobRequest, JobView
from gstd.protocol.types import Asset
from gstd.sdk.client import Client
from tests.e2e.processes import gstd, is_well, stopping
from tests.servers import until
from tests.world import MODULE

TASKS = 24
REWARD = 2_000_000
UP_WITHIN_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Site:
    """Stores shared by any number of processes."""

    def __init__(self, state: Path, urls: dict[str, str], valkey: str, stack: ExitStack) -> None:
        self.state = state
        self._stack = stack
        self.env = {
            "GSTD_DATABASE_URL": urls["app"],
            "GSTD_DATABASE_OWNER_URL": urls["owner"],
            "GSTD_VALKEY_URL": valkey,
            "GSTD_BLOBS_URL": f"file://{state}/blobs",
            "GSTD_SECRET": secrets.token_hex(32),
            "GSTD_POLICY_LEASE_MS": "3000",
            "GSTD_POLICY_LEADER_LEASE_MS": "2000",
        }

    def run(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        process = gstd(*arguments, state=self.state, env={**self.env, **env})
        return self._stack.enter_context(stopping(process))

    def api(self) -> tuple[subprocess.Popen[str], str]:
        port = free_port()
        return self.run("api", GSTD_PORT=str(port)), f"http://127.0.0.1:{port}"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


async def test_two_of_each_share_a_job_and_one_of_each_may_die(
    tmp_path: Path, database_urls: dict[str, str], stack: ExitStack
) -> None:
    valkey = EmbeddedValkey(tmp_path)
    await valkey.start()
    try:
        site = Site(tmp_path, database_urls, valkey.address().url(), stack)
        await share_a_job(site)
    finally:
        stack.close()
        await valkey.stop()


async def share_a_job(site: Site) -> None:
    output, errors = await asyncio.to_thread(site.run("migrate").communicate)
    assert "first account" in output, errors
    credentials = load_credentials(site.state)
    assert credentials is not None
    (first_api, first), (_, second) = site.api(), site.api()
    schedulers = [site.run("scheduler") for _ in range(2)]
    referees = [site.run("referee") for _ in range(2)]
    for url in (first, second):
        await until(partial(is_well, url), UP_WITHIN_S)
    async with Client(first, credentials.api_key) as client:
        for url in (first, second):
            code = (await client.new_enrolment_code()).code
            home = str(site.state / url[-5:])
            site.run("worker", "start", "--url", url, "--home", home, GSTD_ENROLMENT_CODE=code)
        module = await client.upload_module(MODULE.read_bytes(), "mandelbrot")
        job = await client.post_job(request(module.id))
    async with Client(second, credentials.api_key) as client:
        await when(client, job.id, lambda job: job.counts.accepted >= 2)
        for process in (first_api, schedulers[0], referees[0]):
            process.kill()
        await client.wait_for_job(job.id)
        ended = await when(client, job.id, lambda job: job.counts.paid == TASKS)
        assert ended.counts.accepted == TASKS
        assert ended.money.released_nano == str(TASKS * REWARD)
        assert ended.money.locked_nano == "0"
        check = await client.check_ledger()
        assert check.ok
        assert check.sum_nano == "0"
        assert await client.recorded_errors() == []


async def when(client: Client, job_id: UUID, condition: Callable[[JobView], bool]) -> JobView:
    """The job once the condition holds."""
    async with asyncio.timeout(60):
        job = await client.job(job_id)
        while not condition(job):
            await asyncio.to_thread(time.sleep, 0.05)
            job = await client.job(job_id)
    return job


def request(module_id: str) -> JobRequest:
    """Small tiles of many different places: real work of some milliseconds each."""
    return JobRequest(
        module=module_id,
        reward_nano=str(REWARD),
        asset=Asset.TEST,
        inputs=[
            JobInput(args=(str(index), "0", str(TASKS), "24", "100")) for index in range(TASKS)
        ],
        limits=Limits(fuel=2_000_000_000),
    )
