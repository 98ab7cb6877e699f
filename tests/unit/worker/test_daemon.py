"""The daemon against a scripted platform: work, leases, failures, restarts, stopping."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gstd.protocol.matching import DeviceLimits
from gstd.protocol.types import Asset
from gstd.protocol.work import ReleaseReason
from gstd.sdk import Pacing
from gstd.worker.daemon import Worker
from gstd.worker.misbehave import flip
from gstd.worker.signals import run_until_signal
from gstd.worker.status import Ending, ExitCode, Kind

Stage = Any  # of conftest, which cannot be imported by name


def attempt_of(word: str) -> uuid.UUID:
    """The id the scripted platform gives the attempt at a task."""
    return uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_OID, word), "attempt")


@asynccontextmanager
async def at_work(worker: Worker) -> AsyncIterator[asyncio.Task[Ending]]:
    """The worker runs while the block does, and has to stop in time."""
    running = asyncio.create_task(worker.run())
    try:
        yield running
    finally:
        worker.stop()
        async with asyncio.timeout(2):
            await running


async def test_claims_together_runs_and_hands_in(stage: Stage) -> None:
    stage.platform.post("a", "b", "c", "taken")
    worker = stage.worker(slots=4)
    async with at_work(worker) as running:
        await stage.watch.wait_for(Kind.SUBMITTED, 3)
        await stage.watch.wait_for(Kind.MISSED)
    assert stage.platform.results == {"a": b"a", "b": b"b", "c": b"c"}
    assert stage.platform.claim_sizes == [4]
    assert stage.platform.calls["modules"] == 1
    assert stage.platform.releases == {}
    counters = worker.counters
    assert (counters.claimed, counters.missed, counters.submitted) == (3, 1, 3)
    assert counters.running == 0
    assert counters.estimated_nano == {Asset.TEST: 15}
    assert running.result().exit_code is ExitCode.STOPPED


async def test_asks_for_the_free_slots_while_others_are_busy(stage: Stage) -> None:
    stage.platform.post("hang")
    async with at_work(stage.worker(slots=3)):
        await stage.watch.wait_for(Kind.CLAIMED)
        stage.platform.post("a", "b", "c")
        await stage.watch.wait_for(Kind.SUBMITTED, 3)
    assert stage.platform.asked_free[:2] == [3, 2]
    assert max(stage.platform.asked_free[1:]) == 2


async def test_asks_within_its_limits(stage: Stage) -> None:
    limits = DeviceLimits(max_wall_ms=5_000, min_reward_nano={Asset.TEST: "7"}, public=False)
    stage.platform.post("a")
    async with at_work(stage.worker(limits=limits)):
        await stage.watch.wait_for(Kind.SUBMITTED)
    asked = stage.platform.asked[0]
    assert (asked.max_wall_ms, asked.public) == (5_000, False)
    assert asked.min_reward_nano == {Asset.TEST: "7"}
    assert asked.memory_bytes == 256 << 20


async def test_lie_is_valid_and_wrong(stage: Stage) -> None:
    stage.platform.post("a")
    async with at_work(stage.worker(alter=flip)):
        await stage.watch.wait_for(Kind.SUBMITTED)
    assert stage.platform.results == {"a": b"`"}


async def test_heartbeats_go_together_and_a_refusal_kills_the_run(stage: Stage) -> None:
    stage.platform.lease_ms = 150
    stage.platform.post("hang", "hang2")
    async with at_work(stage.worker(slots=2)):
        await stage.sandbox.wait_started(2)
        stage.platform.over.add(attempt_of("hang"))
        await stage.watch.wait_for(Kind.LOST)
        assert stage.sandbox.killed == ["hang"]
        stage.platform.post("a")
        await stage.watch.wait_for(Kind.SUBMITTED)
        stage.sandbox.go_on.set()
        await stage.watch.wait_for(Kind.SUBMITTED, 2)
    assert stage.platform.results == {"a": b"a", "hang2": b"hang2"}
    assert stage.platform.releases == {}


async def test_gives_back_what_this_machine_could_not_run(stage: Stage) -> None:
    words = {
        "fault": ReleaseReason.HOST_FAULT,
        "slow": ReleaseReason.WALL_CLOCK,
        "bug": ReleaseReason.HOST_FAULT,
    }
    stage.platform.post(*words)
    async with at_work(stage.worker(slots=3)):
        await stage.watch.wait_for(Kind.RELEASED, 3)
    assert stage.platform.releases == words
    texts = {event.text for event in stage.watch.of(Kind.RELEASED)}
    assert "host_fault: no memory" in texts


async def test_result_outlives_a_restart_of_the_platform(stage: Stage) -> None:
    stage.platform.post("hang")
    async with at_work(stage.worker()):
        await stage.sandbox.wait_started()
        stage.platform.away = {"offers", "heartbeats", "submits"}
        stage.sandbox.go_on.set()
        await stage.watch.wait_for(Kind.TROUBLE, 3)
        stage.platform.away = set()
        await stage.watch.wait_for(Kind.SUBMITTED)
    assert stage.platform.results == {"hang": b"hang"}
    assert stage.watch.of(Kind.TROUBLE)[0].code == "unreachable"


@pytest.mark.parametrize("word", ["a", "hang"])
async def test_goes_on_when_the_lease_ended_while_the_platform_was_away(
    stage: Stage, word: str
) -> None:
    stage.platform.lease_ms = 150
    stage.platform.away = {"submits"}
    stage.platform.post(word)
    async with at_work(stage.worker()):
        await stage.sandbox.wait_started()
        stage.platform.away = {"heartbeats", "submits"}
        await stage.watch.wait_for(Kind.LOST)
        stage.platform.away = set()
        stage.platform.lease_ms = 15_000
        stage.platform.post("b")
        await stage.watch.wait_for(Kind.SUBMITTED)
    assert stage.platform.results == {"b": b"b"}
    assert stage.sandbox.killed == (["hang"] if word == "hang" else [])


async def test_failing_platform_and_failing_machine_are_not_hammered(stage: Stage) -> None:
    pauses: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 6:
            enough.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    stage.platform.away = {"offers"}
    pacing = Pacing(retry_for_s=0.0, sleep=sleep, draw=lambda: 1.0)
    async with at_work(stage.worker(pacing=pacing)):
        await enough.wait()
    assert pauses == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


async def test_stopping_gives_back_what_runs_and_hands_in_what_is_ready(stage: Stage) -> None:
    entered, go_on = stage.platform.hold("submits")
    stage.platform.post("hang", "a")
    async with at_work(stage.worker(slots=3)) as running:
        await entered.wait()
        running.get_loop().call_soon(go_on.set)
    assert stage.platform.releases == {"hang": ReleaseReason.SHUTTING_DOWN}
    assert stage.platform.results == {"a": b"a"}
    assert stage.sandbox.killed == ["hang"]
    assert [event.kind for event in stage.watch.events[-4:]].count(Kind.STOPPED) == 1


async def test_claim_under_way_while_stopping_is_given_back(stage: Stage) -> None:
    entered, go_on = stage.platform.hold("claims")
    stage.platform.post("a")
    worker = stage.worker()
    async with at_work(worker):
        await entered.wait()
        worker.stop()
        await stage.watch.wait_for(Kind.STOPPING)
        go_on.set()
    assert stage.platform.releases == {"a": ReleaseReason.SHUTTING_DOWN}
    assert stage.sandbox.started == []


async def test_stops_in_time_though_nobody_answers(stage: Stage) -> None:
    stage.platform.hold("releases")
    stage.platform.hold("submits")
    stage.platform.post("hang", "a")
    async with at_work(stage.worker(slots=2)) as running:
        await stage.sandbox.wait_started(2)
    assert running.result().exit_code is ExitCode.STOPPED
    assert stage.sandbox.killed == ["hang"]


@pytest.mark.parametrize("route", ["offers", "claims", "modules", "heartbeats", "submits"])
async def test_barred_device_stops_by_itself_and_says_why(stage: Stage, route: str) -> None:
    stage.platform.lease_ms = 30
    stage.refuse(route, "device_barred", 403)
    stage.platform.post("hang" if route == "heartbeats" else "a")
    async with asyncio.timeout(5):
        ending = await stage.worker().run()
    assert ending == Ending(exit_code=ExitCode.BARRED, detail="device_barred", hint="h")
    assert stage.platform.releases == {}


async def test_device_nobody_knows_is_told_to_enrol(stage: Stage) -> None:
    stage.refuse("offers", "not_authenticated", 401)
    ending = await stage.worker().run()
    assert ending.exit_code is ExitCode.NOT_ENROLLED
    assert "gstd worker code" in ending.hint


async def test_first_signal_stops_and_the_second_ends_the_process(stage: Stage) -> None:
    ended: list[int] = []
    stage.platform.hold("releases")
    stage.platform.post("hang")
    running = asyncio.create_task(run_until_signal(stage.worker(), ended.append))
    await stage.watch.wait_for(Kind.CLAIMED)
    os.kill(os.getpid(), signal.SIGTERM)
    await stage.watch.wait_for(Kind.STOPPING)
    assert ended == []
    os.kill(os.getpid(), signal.SIGINT)
    assert (await running).exit_code is ExitCode.STOPPED
    assert ended == [signal.SIGINT]
