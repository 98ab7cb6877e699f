"""Graphs on a real database: fan-out, fan-in, one to one, policies, cancelling, laziness."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from gstd.kernel.settings import Policy
from gstd.ledger.errors import InsufficientFundsError
from gstd.protocol.execution import Limits
from gstd.protocol.graphs import Feed, JobAfter, JobInput, OnFailure, Shape, TaskRef
from gstd.protocol.types import Role
from gstd.tasks.advance import expire_tasks
from gstd.tasks.errors import (
    GraphCycleError,
    GraphTooLargeError,
    InvalidJobError,
    ParentNotFoundError,
)
from gstd.tasks.jobs import close_jobs, end_idle_jobs
from gstd.tasks.opening import reconsider_blocked
from tests.integration.tasks.mill import Mill, named, trapping
from tests.world import CREDITS, World

AFTER_MAP = (JobAfter(job="map"),)
ONE_TO_ONE = (JobAfter(job="map", shape=Shape.ONE_TO_ONE),)


@pytest.fixture
async def mill(world: World) -> Mill:
    world.policy = Policy(max_retries=0, chunk_tasks=4)
    return await Mill.open(world)


async def test_map_then_reduce_reads_all_outputs_in_order(mill: Mill) -> None:
    first, second = await mill.post(
        await mill.request("map", 10),
        await mill.request("reduce", named("sum"), after=AFTER_MAP),
    )
    view = await mill.world.view(second)
    assert view.counts.blocked == 1
    assert f"waits for 10 of 10 tasks of job {first}" in view.reason
    for _ in range(2):
        await mill.settle()
        await mill.work(await mill.ready(limit=3))
        await mill.referee()
    waiting = await mill.task(second, 0)
    assert (waiting.state, waiting.reason) == ("blocked", f"waits for 4 of 10 tasks of job {first}")
    await mill.drain()
    joined = b"".join(b"%d()" % index for index in range(10))
    assert await mill.outputs(second) == {0: b"sum(" + joined + b")"}
    await mill.assert_over()


async def test_one_to_one_opens_each_task_by_itself(mill: Mill) -> None:
    first, second = await mill.post(
        await mill.request("map", 6), await mill.request("again", 6, after=ONE_TO_ONE)
    )
    await mill.settle()
    await mill.work((await mill.ready(first))[1:2])
    await mill.referee()
    await mill.settle()
    assert (await mill.states(second)).startswith("bqbb")
    await mill.drain()
    assert await mill.outputs(second) == {n: b"%d(%d())" % (n, n) for n in range(6)}
    await mill.assert_over()


async def test_edges_between_tasks_of_one_job_and_of_earlier_jobs(mill: Mill) -> None:
    [first] = await mill.post(await mill.request("early", named("x", "y")))
    ref = TaskRef(job=str(first), index=1)
    inputs = named(("d", (1, 2)), ("b", (3,)), ("c", (ref, 3)), "a")
    [second] = await mill.post(await mill.request("diamond", inputs))
    assert await mill.states(second) == "bbbq"
    assert (await mill.task(second, 2)).reason.count("1 of 1 task of job") == 2
    await mill.drain()
    assert (await mill.outputs(second))[0] == b"d(b(a())c(y()a()))"
    await mill.assert_over()


async def test_fan_out_of_one_task_and_frames_mark_what_is_missing(mill: Mill) -> None:
    inputs = named("bad", "good", ("left", (0, 1)), ("right", (1, 0)))
    [job] = await mill.post(
        await mill.request("f", inputs, feed=Feed.FRAMES, on_failure=OnFailure.CONTINUE)
    )
    await mill.drain(trapping("bad"))
    good = b"\x01\x00\x00\x00\x06good()"
    missing = b"\x00\x00\x00\x00\x00"
    outputs = await mill.outputs(job)
    assert outputs[2] == b"left(" + missing + good + b")"
    assert outputs[3] == b"right(" + good + missing + b")"
    await mill.assert_over()


async def test_order_only_reads_nothing(mill: Mill) -> None:
    _, second = await mill.post(
        await mill.request("map", 3),
        await mill.request("then", named("t"), after=AFTER_MAP, feed=Feed.NONE),
    )
    await mill.drain()
    assert await mill.outputs(second) == {0: b"t()"}


@pytest.mark.parametrize(
    ("policy", "states"), [(OnFailure.STOP, "aaccc"), (OnFailure.SKIP, "aacac")]
)
async def test_what_a_failed_task_ends_is_refunded(
    mill: Mill, policy: OnFailure, states: str
) -> None:
    inputs = named("bad", "good", ("x", (0,)), ("y", (1,)), ("z", (2,)))
    [job] = await mill.post(await mill.request("j", inputs, on_failure=policy))
    ids = {task.index: task.id for task in await mill.world.tasks(job)}
    await mill.work([ids[0]], trapping("bad"))
    await mill.referee(trapping("bad"))
    await mill.drain(trapping("bad"))
    assert await mill.states(job) == states
    ended = await mill.task(job, 2)
    assert ended.reason == f"parent failed: task 0 of job {job} has no good result"
    await mill.assert_over()
    money = (await mill.world.view(job)).money
    paid = states.count("a")
    assert int(money.released_nano) == paid * 10_000_000
    assert money.locked_nano == "0"


async def test_stop_ends_a_whole_job_early_with_rows_that_were_never_made(mill: Mill) -> None:
    first, second, third = await mill.post(
        await mill.request("map", 3),
        await mill.request("next", 3000, after=AFTER_MAP),
        await mill.request("last", 1, after=(JobAfter(job="next"),)),
    )
    await mill.fail(first, 1)
    await mill.settle()
    view = await mill.world.view(second)
    assert (view.counts.cancelled, view.counts.blocked) == (3000, 0)
    assert view.money.refunded_nano == view.quote.total_nano
    assert (await mill.world.view(third)).counts.cancelled == 1
    assert await mill.states(first) == "qfq"
    await mill.drain()
    await mill.assert_over()


async def test_cancelling_a_job_cascades_by_the_policy_of_its_children(mill: Mill) -> None:
    first, stopped, skipping, going = await mill.post(
        await mill.request("map", 12),
        await mill.request("stop", named("s"), after=AFTER_MAP),
        await mill.request("skip", 12, after=ONE_TO_ONE, on_failure=OnFailure.SKIP),
        await mill.request(
            "on",
            named("c"),
            after=AFTER_MAP,
            on_failure=OnFailure.CONTINUE,
            feed=Feed.FRAMES,
        ),
    )
    await mill.work((await mill.ready(first))[:2])
    await mill.referee()
    await mill.settle()
    await mill.world.cancel(mill.owner, first)
    await mill.drain()
    assert await mill.states(stopped) == "c"
    assert await mill.states(skipping) == "aa" + "c" * 10
    [output] = (await mill.outputs(going)).values()
    assert (output.count(b"\x01"), output.count(b"\x00" * 5)) == (2, 10)
    await mill.assert_over()


async def test_an_input_that_becomes_too_long_ends_the_task(mill: Mill) -> None:
    mill.world.policy = Policy(max_retries=0, max_input_bytes=17)
    first, second = await mill.post(
        await mill.request("map", 6),
        await mill.request("reduce", named("r"), after=AFTER_MAP),
    )
    await mill.drain()
    task = await mill.task(second, 0)
    assert task.state == "failed"
    assert "makes its input 19 bytes, more than 17" in task.reason
    assert await mill.states(first) == "aaaaaa"
    await mill.assert_over()


async def test_rows_of_a_child_are_made_as_its_parent_gets_on(mill: Mill) -> None:
    first, second = await mill.post(
        await mill.request("map", 1000), await mill.request("again", 1000, after=ONE_TO_ONE)
    )
    async with mill.world.database.connection() as conn:
        for _ in range(30):
            made = await conn.fetchrow(
                "SELECT max(made) FILTER (WHERE id = $1) AS parent,"
                " max(made) FILTER (WHERE id = $2) AS child FROM job",
                first,
                second,
            )
            assert made is not None
            assert made["child"] <= made["parent"] < 400
            await mill.settle()
            await mill.work(await mill.ready(limit=4))
            await mill.referee()
    assert len(await mill.outputs(second)) > 20
    await mill.world.cancel(mill.owner, first)
    await mill.drain()
    await mill.assert_over()


async def test_a_deadline_or_a_cancellation_ends_what_is_blocked(mill: Mill) -> None:
    soon = mill.world.clock.now() + timedelta(hours=1)
    _, second, third = await mill.post(
        await mill.request("map", 2),
        await mill.request("late", named("r"), after=AFTER_MAP, deadline=soon),
        await mill.request("more", named("r"), after=AFTER_MAP),
    )
    mill.world.clock.advance(seconds=3601)
    world = mill.world
    await world.run(lambda conn: expire_tasks(conn, world.policy, world.clock.now()))
    assert await mill.states(second) == "e"
    await world.cancel(mill.owner, third)
    assert await mill.states(third) == "c"
    assert (await world.view(third)).money.locked_nano == "0"
    await mill.drain()
    await mill.assert_over()


async def test_a_job_that_waits_for_an_open_one_is_not_idle(mill: Mill) -> None:
    world = mill.world
    first, second = await mill.post(
        await mill.request("map", 2), await mill.request("reduce", named("r"), after=AFTER_MAP)
    )
    world.clock.advance(seconds=world.policy.idle_refund_s - 10)
    await mill.work((await mill.ready(first))[:1])
    world.clock.advance(seconds=20)

    async def sweep() -> int:
        return await world.run(lambda conn: end_idle_jobs(conn, world.policy, world.clock.now()))

    assert await sweep() == 0
    await mill.referee()
    await mill.drain()
    assert await mill.states(second) == "a"
    assert await mill.world.run(lambda conn: close_jobs(conn, world.clock.now()))
    await mill.assert_over()


async def test_a_crash_between_acceptance_and_opening_is_healed(mill: Mill) -> None:
    world = mill.world
    first, second = await mill.post(
        await mill.request("map", 3), await mill.request("reduce", named("r"), after=AFTER_MAP)
    )
    await mill.settle()
    await mill.work(await mill.ready(first))
    await mill.referee()
    async with world.database.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM graph_news") > 0  # news outlive a crash
        await conn.execute("DELETE FROM graph_news")  # and even when they are lost
    world.clock.advance(seconds=10)

    async def heal() -> UUID | None:
        return await world.run(
            lambda conn: reconsider_blocked(
                conn, world.blobs, world.policy, world.clock.now(), after=UUID(int=0), quiet_s=5
            )
        )

    await heal()
    assert await mill.states(second) == "q"
    await heal()
    await mill.drain()
    await mill.assert_over()


async def test_a_cycle_is_named_and_nothing_is_locked(mill: Mill) -> None:
    inputs = named("x", ("a", (3,)), ("b", (1,)), ("c", (2,)))
    before = await mill.world.rows()
    with pytest.raises(
        GraphCycleError, match=r"loop\[(\d)\] -> loop\[\d\] -> loop\[\d\] -> loop\[\1\]"
    ):
        await mill.post(await mill.request("loop", inputs))
    with pytest.raises(GraphCycleError, match=r"(map|reduce) -> \w+ -> \1$"):
        await mill.post(
            await mill.request("map", 3, after=(JobAfter(job="reduce"),)),
            await mill.request("reduce", 1, after=AFTER_MAP),
        )
    assert await mill.world.rows() == before


async def test_what_an_edge_names_must_exist_and_fit(mill: Mill) -> None:
    other = await mill.world.account(Role.REQUESTER, credits=CREDITS)
    foreign = await mill.world.job(other)
    plain = await mill.request("map", 3)
    before = await mill.world.rows()
    for name in (str(foreign.id), "nobody"):
        with pytest.raises(ParentNotFoundError):
            await mill.post(plain, await mill.request("child", 1, after=(JobAfter(job=name),)))
    for parent in (7, TaskRef(job="map", index=9)):
        with pytest.raises(InvalidJobError, match="does not exist"):
            await mill.post(plain, await mill.request("child", [JobInput(after=(parent,))]))
    with pytest.raises(InvalidJobError, match="one to one"):
        await mill.post(plain, await mill.request("child", 2, after=ONE_TO_ONE))
    with pytest.raises(InvalidJobError, match="two jobs are called"):
        await mill.post(plain, plain)
    mill.world.policy = Policy(max_graph_edges=3)
    with pytest.raises(GraphTooLargeError):
        await mill.post(await mill.request("many", named("a", *[("b", (0,))] * 4)))
    assert await mill.world.rows() == before


async def test_a_graph_is_funded_as_a_whole_or_not_at_all(mill: Mill) -> None:
    plain = await mill.request("map", 3)
    before = await mill.world.rows()
    with pytest.raises(InsufficientFundsError):
        await mill.post(
            plain,
            await mill.request(
                "dear", 100, after=AFTER_MAP, reward_nano=str(CREDITS), limits=Limits(fuel=1)
            ),
        )
    assert await mill.world.rows() == before


async def test_cancelling_posting_opening_and_working_at_once_never_deadlock(mill: Mill) -> None:
    world = mill.world
    world.policy = Policy(max_retries=0, chunk_tasks=50)
    roots = [
        await mill.post(
            await mill.request("map", 12),
            await mill.request("each", 12, after=ONE_TO_ONE, on_failure=OnFailure.SKIP),
            await mill.request("sum", named("s"), after=(JobAfter(job="each"),)),
        )
        for _ in range(4)
    ]

    async def cancel() -> None:
        for first, second, _ in roots[:2]:
            await world.cancel(mill.owner, second)
            await world.cancel(mill.owner, first)

    async def post() -> None:
        for first, *_ in roots:
            await mill.post(await mill.request("late", 12, after=(JobAfter(job=str(first)),)))

    others = [Mill(world, mill.owner, await world.device()) for _ in range(2)]
    await asyncio.gather(mill.drain(), *(other.drain() for other in others), cancel(), post())
    await mill.drain()
    async with world.database.connection() as conn:
        deadlocks = await conn.fetchval(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
    assert deadlocks == 0
    for _, _, reduce in roots[2:]:
        assert await mill.states(reduce) == "a"
    await mill.assert_over()
