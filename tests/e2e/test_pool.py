"""A pool of real worker processes follows a burst of work: up at once, down when it is over."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gstd.cli.credentials import load_credentials
from gstd.cli.worker import Enrolment
from gstd.protocol.execution import Limits
from gstd.protocol.graphs import JobInput
from gstd.protocol.jobs import JobRequest
from gstd.protocol.types import Asset
from gstd.sdk.client import Client
from gstd.sdk.device import DeviceClient
from gstd.worker.identity import load_or_create_key
from tests.e2e.processes import commands, descendants, gstd, stopping, wait_for
from tests.servers import until
from tests.world import MODULE

TASKS = 24
SHORT = {
    "GSTD_POLICY_AUTOSCALE_TARGET_WAIT_S": "2",
    "GSTD_POLICY_AUTOSCALE_ARRIVALS_S": "3",
    "GSTD_POLICY_POOL_WINDOW_S": "3",
    "GSTD_POLICY_POOL_LOOK_MS": "200",
    "GSTD_POLICY_POOL_STEP": "2",
    "GSTD_POLICY_LEASE_MS": "3000",
}


class Lines:
    """What a process prints, a JSON value per line, read as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.looks: list[dict[str, Any]] = []
        self._process = process
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.looks.append(json.loads(line))

    def end(self) -> None:
        """Ask the process to stop, and wait for its last line."""
        self._process.terminate()
        self._thread.join(10)

    def sizes(self) -> list[int]:
        """How many workers there were, look by look."""
        return [look["workers"] for look in self.looks]


class Site(NamedTuple):
    """A running platform."""

    url: str
    state: Path
    api_key: str

    def client(self) -> Client:
        return Client(self.url, self.api_key)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A whole platform with short windows, for all tests of this file."""
    state = tmp_path_factory.mktemp("platform")
    with stopping(gstd("up", "--json", state=state, env=SHORT)) as up:
        assert up.stdout is not None
        url = json.loads(up.stdout.readline())["url"]
        credentials = load_credentials(state)
        assert credentials is not None
        yield Site(url, state, credentials.api_key)


@pytest.fixture
def start_pool(site: Site, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts pools below one home; they are stopped at the end."""
    with ExitStack() as stack:

        def start(*options: str) -> tuple[subprocess.Popen[str], Lines]:
            home = str(tmp_path / "pool")
            words = ("worker", "pool", "--home", home, "--url", site.url, "--json", *options)
            process = stack.enter_context(stopping(gstd(*words, state=site.state, env=SHORT)))
            lines = Lines(process)
            stack.callback(lines.end)
            return process, lines

        yield start


def workers_of(pool: subprocess.Popen[str]) -> list[int]:
    """The pool's worker processes."""
    below = descendants(pool.pid)
    return [pid for pid, words in below.items() if "worker start" in words]


async def test_a_pool_grows_under_a_burst_and_shrinks_to_nothing_afterwards(
    site: Site, start_pool: Callable[..., Any]
) -> None:
    async with site.client() as client:
        await until(partial(needs_nothing, client), 30)
        process, lines = start_pool("--min", "0", "--max", "3", "--name", "burst")
        wait_for(lambda: lines.looks, "a first look")
        assert lines.sizes()[-1] == 0
        module = await client.upload_module(MODULE.read_bytes(), "mandelbrot")
        job = await client.post_job(request(module.id))
        wait_for(lambda: 3 in lines.sizes(), "the growth to the maximum")
        assert len(workers_of(process)) == 3
        done = await client.wait_for_job(job.id)
        assert done.counts.accepted == TASKS
        wait_for(lambda: lines.sizes()[-1] == 0, "the way back to nothing")
        assert not workers_of(process)
        devices = await client.devices()
        assert await client.recorded_errors() == []
    names = {device.name for device in devices}
    assert {"burst-1", "burst-2", "burst-3"} <= names
    assert_one_wave(lines.looks)


async def needs_nothing(client: Client) -> bool:
    """Whether nothing of other tests is left to do or remembered."""
    return (await client.autoscale()).desired_slots == 0


def assert_one_wave(looks: list[dict[str, Any]]) -> None:
    """Up, then down, at most two workers at a time, and every change has its reason."""
    sizes = [look["workers"] for look in looks]
    peak = sizes.index(max(sizes))
    assert sizes == sorted(sizes[:peak]) + sorted(sizes[peak:], reverse=True)
    assert all(abs(after - before) <= 2 for before, after in pairwise(sizes))
    changes = [look for look in looks if look["action"] in {"grow", "shrink"}]
    assert "growing from 0 to 2" in changes[0]["words"]
    assert f"{TASKS} attempts wait" in changes[0]["words"]
    assert changes[0]["signal"]["desired_slots"] >= 3
    assert "to 0: at most 0 needed for 3 s" in changes[-1]["words"]


async def test_a_stopped_pool_gives_its_tasks_back_and_leaves_nothing_behind(
    site: Site, start_pool: Callable[..., Any]
) -> None:
    process, _ = start_pool("--min", "2", "--max", "2")
    async with site.client() as client:
        module = await client.upload_module(MODULE.read_bytes(), "mandelbrot")
        job = await client.post_job(request(module.id, ENDLESS))

        async def running() -> bool:
            return (await client.job(job.id)).counts.running == len(ENDLESS)

        await until(running, 30)
        workers = workers_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert not set(workers) & commands().keys()
        attempts = [attempt for task in await client.tasks(job.id) for attempt in task.attempts]
        assert {(attempt.state, attempt.verdict) for attempt in attempts} == (
            {("released", "shutting_down")}
        )
        assert (await client.job(job.id)).counts.queued == len(ENDLESS)
        await client.cancel_job(job.id)


async def test_a_barred_device_is_not_replaced(
    site: Site, start_pool: Callable[..., Any], tmp_path: Path
) -> None:
    place = tmp_path / "pool" / "1"
    key = load_or_create_key(place / "device.key")
    async with site.client() as owner, DeviceClient(site.url, key) as client:
        device = await client.enrol((await owner.new_enrolment_code()).code, "bad")
        Enrolment.in_home(place).note(device)
        await owner.revoke_device(device.id)
        before = len(await owner.devices())
        process, lines = start_pool("--min", "1", "--max", "1")
        assert process.wait(30) == 1
        lines.end()
        assert lines.looks[-1]["error"]["code"] == "pool_barred"
        assert len(await owner.devices()) == before


def test_a_pool_refuses_what_cannot_be(
    start_pool: Callable[..., Any],
) -> None:
    _, first = start_pool("--min", "0", "--max", "1")
    wait_for(lambda: first.looks, "a first look")
    second, told = start_pool("--min", "0", "--max", "1")
    assert second.wait(20) == 1
    told.end()
    assert told.looks[0]["error"]["code"] == "state_in_use"
    third, told = start_pool("--min", "2", "--max", "1")
    assert third.wait(20) == 1
    told.end()
    assert told.looks[0]["error"]["code"] == "invalid_pool"


TILES = [(str(index), "0", str(TASKS), "24", "100") for index in range(TASKS)]
"""Small tiles of many different places: some milliseconds each."""

ENDLESS = [(str(index), "0", "9", "512", "100000", "0", "0", "0.01") for index in range(2)]
"""Tiles inside the set: nothing escapes, so they take far longer than the test."""


def request(module_id: str, tiles: Sequence[tuple[str, ...]] = TILES) -> JobRequest:
    return JobRequest(
        module=module_id,
        reward_nano="2000000",
        asset=Asset.TEST,
        inputs=[JobInput(args=tile) for tile in tiles],
        limits=Limits(fuel=10**11),
    )
