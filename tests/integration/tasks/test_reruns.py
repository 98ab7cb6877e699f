"""Reruns repeat what failed, at the same indexes, and complete what the first job has."""

from __future__ import annotations

import pytest

from gstd.kernel.settings import Policy
from gstd.protocol.graphs import JobAfter, OnFailure, Shape
from gstd.protocol.jobs import RerunRequest
from gstd.protocol.types import Role
from gstd.tasks.errors import JobNotFoundError, NothingToRerunError, StillRunningError
from gstd.tasks.rerun import original
from tests.integration.tasks.mill import Mill, named
from tests.world import REWARD, World

AFTER_MAP = (JobAfter(job="map"),)


@pytest.fixture
async def mill(world: World) -> Mill:
    world.policy = Policy(max_retries=0, chunk_tasks=4)
    return await Mill.open(world)


async def test_only_what_failed_is_posted_anew_at_its_index(mill: Mill) -> None:
    [first] = await mill.post(await mill.request("map", named("a", "b", "c", "d", "e", "f")))
    await mill.fail(first, 1)
    await mill.work([(await mill.task(first, 0)).id])
    await mill.referee()
    await mill.settle()
    with pytest.raises(StillRunningError):
        await mill.rerun(first)
    await mill.world.cancel(mill.owner, first)
    assert len(await mill.outputs(first)) == 1
    again = await mill.rerun(first, RerunRequest(reward_nano=str(2 * REWARD)))
    view = await mill.world.view(again)
    assert (view.rerun_of, view.counts.tasks, view.name) == (first, 5, "map")
    assert view.quote.reward_nano == str(2 * REWARD)
    await mill.fail(again, 2)
    await mill.drain()
    last = await mill.rerun(again)
    assert (await mill.world.view(last)).rerun_of == first
    await mill.drain()
    joined = {**await mill.outputs(first), **await mill.outputs(again), **await mill.outputs(last)}
    assert joined == {
        n: b"%s()" % name for n, name in enumerate([b"a", b"b", b"c", b"d", b"e", b"f"])
    }
    assert set(await mill.outputs(last)) == {2}
    with pytest.raises(NothingToRerunError):
        await mill.rerun(first)
    await mill.assert_over()


async def test_numbered_inputs_keep_their_numbers(mill: Mill) -> None:
    [first] = await mill.post(await mill.request("map", 9))
    await mill.work((await mill.ready(first))[:2])
    await mill.referee()
    await mill.world.cancel(mill.owner, first)  # most rows were never made
    again = await mill.rerun(first)
    await mill.drain()
    assert await mill.outputs(again) == {n: b"%d()" % n for n in range(2, 9)}
    await mill.assert_over()


async def test_children_that_are_rerun_read_their_parents_reruns(mill: Mill) -> None:
    first, reduce, each = await mill.post(
        await mill.request("map", 4),
        await mill.request("reduce", named("r"), after=AFTER_MAP),
        await mill.request(
            "each",
            4,
            after=(JobAfter(job="map", shape=Shape.ONE_TO_ONE),),
            on_failure=OnFailure.SKIP,
        ),
    )
    await mill.fail(first, 2)
    await mill.drain()
    assert [await mill.states(job) for job in (first, reduce, each)] == ["aafa", "c", "aaca"]
    again = [await mill.rerun(job) for job in (first, reduce, each)]
    assert (await mill.task(again[1], 0)).reason == f"waits for 1 of 4 tasks of job {first}"
    await mill.drain()
    assert await mill.outputs(again[1]) == {0: b"r(0()1()2()3())"}
    assert await mill.outputs(again[2]) == {2: b"2(2())"}
    await mill.assert_over()


async def test_edges_inside_a_job_are_kept(mill: Mill) -> None:
    inputs = named("a", "b", ("c", (0, 1)), ("d", (2,)))
    [first] = await mill.post(await mill.request("j", inputs))
    await mill.fail(first, 1)
    await mill.drain()
    assert await mill.states(first) == "afcc"
    again = await mill.rerun(first)
    assert await mill.states(again) == "qbb"
    await mill.drain()
    assert await mill.outputs(again) == {1: b"b()", 2: b"c(a()b())", 3: b"d(c(a()b()))"}
    await mill.assert_over()


async def test_nobody_reruns_the_job_of_another(mill: Mill) -> None:
    [first] = await mill.post(await mill.request("map", 1))
    other = await mill.world.account(Role.REQUESTER)
    with pytest.raises(JobNotFoundError):
        await mill.world.run(lambda conn: original(conn, other, first))
