"""Submits: only the holder's own signed, timely result counts, and only once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gstd.kernel.errors import Refusal
from gstd.kernel.ids import new_id
from gstd.protocol.execution import STDERR_BYTES, Limits, Outcome, Status
from gstd.protocol.types import Tier
from gstd.protocol.work import SubmitItem, Submitted
from tests.world import RIGHT, Device, World, outcome


async def submit_one(world: World, device: Device, item: SubmitItem) -> str:
    [answer] = await world.submit_all(device, [item])
    return answer.code if isinstance(answer, Refusal) else answer.state


async def test_a_late_submit_is_refused_by_name_and_changes_nothing(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    device, other = await world.device(), await world.device()
    item = world.signed(device, await world.claim(device, task.id), outcome())
    world.clock.advance(milliseconds=world.policy.lease_ms)
    before = await world.rows()
    assert await submit_one(world, device, item) == "attempt_over"
    assert await world.rows() == before
    await world.expire_leases()
    world.clock.advance(seconds=1.2)
    second = await world.claim(other, task.id)
    before = await world.rows()
    assert await submit_one(world, device, item) == "attempt_over"
    assert await world.rows() == before
    await world.submit(other, second)
    assert await submit_one(world, device, item) == "attempt_over"
    assert [attempt.state for attempt in (await world.task(task.id)).attempts] == [
        "expired",
        "submitted",
    ]


async def test_submitting_the_same_twice_gives_the_same_answer(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    device = await world.device()
    item = world.signed(device, await world.claim(device, task.id), outcome())
    assert await submit_one(world, device, item) == "submitted"
    before = await world.rows()
    assert await submit_one(world, device, item) == "submitted"
    assert await world.rows() == before
    await world.referee()
    assert await submit_one(world, device, item) == "accepted"
    await world.assert_sound()


async def test_another_result_for_the_same_attempt_is_refused(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    device = await world.device()
    claimed = await world.claim(device, task.id)
    await world.submit(device, claimed, outcome(b"wrong"))
    before = await world.rows()
    changed = world.signed(device, claimed, outcome())
    assert await submit_one(world, device, changed) == "already_submitted"
    assert await world.rows() == before


async def test_twins_in_one_batch_are_one_result(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    device = await world.device()
    claimed = await world.claim(device, task.id)
    items = [world.signed(device, claimed, outcome()), world.signed(device, claimed, outcome(b"x"))]
    first, second = await world.submit_all(device, items)
    assert isinstance(first, Submitted)
    assert isinstance(second, Refusal)
    await world.referee()
    assert (await world.task(task.id)).state == "accepted"


async def test_a_result_signed_by_another_key_or_for_other_words_is_refused(world: World) -> None:
    tasks = await world.tasks((await world.job(tasks=2)).id)
    device, stranger = await world.device(), await world.device()
    claimed, sibling = [await world.claim(device, task.id) for task in tasks]
    right = world.signed(device, claimed, outcome())
    changes: list[tuple[dict[str, Any], str]] = [
        ({"signature": world.signed(stranger, claimed, outcome()).signature}, "bad_signature"),
        ({"signature": world.signed(device, sibling, outcome()).signature}, "bad_signature"),
        ({"signature": b""}, "bad_signature"),
        ({"stdout": b"changed"}, "bad_signature"),
        ({"stderr": b"changed"}, "bad_signature"),
        ({"fuel": right.fuel + 1}, "bad_signature"),
        ({"status": Status.EXIT}, "bad_signature"),
        ({"exit_code": 1}, "bad_signature"),
        ({"task_id": sibling.task_id}, "wrong_task"),
        ({"task_id": new_id()}, "wrong_task"),
        ({"revision": right.revision + 1}, "wrong_task"),
        ({"attempt_id": sibling.attempt_id}, "wrong_task"),
        ({"attempt_id": new_id()}, "attempt_not_found"),
    ]
    before = await world.rows()
    for change, code in changes:
        assert await submit_one(world, device, msgspec.structs.replace(right, **change)) == code
    assert await submit_one(world, stranger, right) == "attempt_not_found"
    assert await world.rows() == before
    assert await submit_one(world, device, right) == "submitted"


async def test_outputs_above_the_limits_are_refused(world: World) -> None:
    job = await world.job(limits=Limits(output_bytes=len(RIGHT)))
    [task] = await world.tasks(job.id)
    device = await world.device()
    claimed = await world.claim(device, task.id)
    too_loud = Outcome(
        status=Status.OK, exit_code=0, fuel=1, stdout=b"", stderr=b"x" * (STDERR_BYTES + 1)
    )
    for result in (outcome(RIGHT + b"!"), too_loud):
        item = world.signed(device, claimed, result)
        assert await submit_one(world, device, item) == "output_too_large"
    assert await submit_one(world, device, world.signed(device, claimed, outcome())) == "submitted"


async def test_a_batch_answers_every_item_in_its_place(world: World) -> None:
    tasks = await world.tasks((await world.job(tasks=3, tier=Tier.QUORUM)).id)
    device = await world.device()
    claims = [await world.claim(device, task.id) for task in tasks]
    items = [world.signed(device, claimed, outcome()) for claimed in claims]
    items[1] = msgspec.structs.replace(items[1], signature=b"\x00" * 64)
    answers = await world.submit_all(device, items[::-1])
    assert [type(answer) for answer in answers] == [Submitted, Refusal, Submitted]
    assert [answer.attempt_id for answer in answers if isinstance(answer, Submitted)] == [
        claims[2].attempt_id,
        claims[0].attempt_id,
    ]


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [(Status.EXIT, 3), (Status.TRAP, 0), (Status.OUT_OF_FUEL, 0), (Status.STACK_LIMIT, 0)],
)
async def test_runs_that_end_badly_are_results_and_paid(
    world: World, status: Status, exit_code: int
) -> None:
    [task] = await world.tasks((await world.job()).id)
    device = await world.device()
    result = Outcome(status=status, exit_code=exit_code, fuel=5, stdout=b"", stderr=b"")
    await world.submit(device, await world.claim(device, task.id), result)
    await world.referee(result)
    done = await world.task(task.id)
    assert (done.state, done.retries) == ("accepted", 0)
    assert done.attempts[0].earning_state == "held"
