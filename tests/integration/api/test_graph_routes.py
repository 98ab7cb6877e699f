"""Graphs over HTTP, through the SDK: posting, cycles, waiting in words, reruns."""

from __future__ import annotations

import msgspec
import pytest

from gstd.maintenance.scheduler import Scheduler
from gstd.protocol.graphs import JobAfter, JobInput, OnFailure, Shape
from gstd.protocol.jobs import GraphRequest, JobView
from gstd.sdk import ApiError
from tests.integration.api.house import RIGHT, House, Person, bearer, keyed, problem_of, signed


async def graph(house: House, person: Person) -> list[JobView]:
    """Two numbered tasks, one that reads both, two that read one each."""
    one = JobAfter(job="map", shape=Shape.ONE_TO_ONE)
    request = GraphRequest(
        jobs=[
            await house.request(tasks=2, name="map"),
            await house.request(name="reduce", after=(JobAfter(job="map"),)),
            await house.request(tasks=2, name="each", after=(one,), on_failure=OnFailure.SKIP),
        ]
    )
    return await person.client.post_graph(request)


async def look(house: House) -> None:
    """What the scheduler does when it hears that tasks ended."""
    on = house.platform
    await Scheduler(on.database, on.blobs, on.bus, on.policy, on.clock, on.log_key).open_children()


async def test_a_graph_is_posted_waits_in_words_and_opens(house: House) -> None:
    person, device = await house.requester(), await house.device()
    first, reduce, each = await graph(house, person)
    assert [job.counts.blocked for job in (first, reduce, each)] == [0, 1, 2]
    assert [(view.job_id, view.shape) for view in each.after] == [(first.id, "one_to_one")]
    [task] = await person.client.tasks(reduce.id)
    assert task.reason == f"waits for 2 of 2 tasks of job {first.id}"
    await look(house)
    claimed = await house.claim(device, first, 2)
    await device.client.submits([signed(device, item) for item in claimed])
    await house.referee()
    await look(house)
    [item] = await house.claim(device, reduce)
    assert item.input.stdin == RIGHT * 2
    assert (await person.client.job(each.id)).counts.queued == 2


async def test_a_cycle_is_a_problem_that_names_it_and_locks_nothing(house: House) -> None:
    person = await house.requester()
    before = await person.client.wallet()
    request = await house.request(
        name="loop", range=None, inputs=[JobInput(after=(1,)), JobInput(after=(0,))]
    )
    answer = await house.http.post(
        "/api/v1/jobs", headers=keyed(person), content=msgspec.json.encode(request)
    )
    problem = problem_of(answer, 422, "graph_cycle")
    assert problem.detail in {"loop[0] -> loop[1] -> loop[0]", "loop[1] -> loop[0] -> loop[1]"}
    with pytest.raises(ApiError, match=r"(a|b) -> \w -> \1"):
        await person.client.post_graph(
            GraphRequest(
                jobs=[
                    await house.request(name="a", after=(JobAfter(job="b"),)),
                    await house.request(name="b", after=(JobAfter(job="a"),)),
                ]
            )
        )
    assert await person.client.wallet() == before
    assert (await person.client.jobs()).items == []


async def test_a_cancelled_job_is_rerun_once_per_key_and_by_nobody_else(house: House) -> None:
    person, other = await house.requester(), await house.requester()
    first, reduce, each = await graph(house, person)
    path = f"/api/v1/jobs/{first.id}/rerun"
    running = await house.http.post(path, headers=keyed(person), content=b"{}")
    problem_of(running, 409, "job_still_running")
    await person.client.cancel_job(first.id)
    await look(house)
    assert (await person.client.job(reduce.id)).counts.cancelled == 1
    assert (await person.client.job(each.id)).counts.cancelled == 2
    problem_of(
        await house.http.post(path, headers=bearer(person), content=b"{}"),
        400,
        "idempotency_key_required",
    )
    problem_of(
        await house.http.post(path, headers=keyed(other), content=b"{}"), 404, "job_not_found"
    )
    answers = [
        await house.http.post(path, headers=keyed(person, "once"), content=b"{}") for _ in range(2)
    ]
    assert answers[0].content == answers[1].content
    again = msgspec.json.decode(answers[0].content, type=JobView)
    assert (again.rerun_of, again.counts.queued) == (first.id, 2)
    assert len((await person.client.jobs()).items) == 4
    with pytest.raises(ApiError, match="not ended"):
        await person.client.rerun_job(again.id)
