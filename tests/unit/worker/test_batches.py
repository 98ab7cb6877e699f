"""Handing in results together, and what happens to the others when one spoils the call."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gstd.kernel.errors import Refusal
from gstd.protocol.execution import Limits, Outcome, Status, TaskInput
from gstd.protocol.types import Asset
from gstd.protocol.work import Claimed, Offer, SubmitItem, Submitted
from gstd.sdk import DeviceClient, Pacing
from gstd.worker.attempts import Attempt, Board
from gstd.worker.results import signed_result
from gstd.worker.status import Reporter
from gstd.worker.submitter import Submitter

Stage = Any  # of conftest, which cannot be imported by name


async def attempt_at(stage: Stage, word: str) -> Attempt:
    """An attempt the scripted platform knows."""
    offer: Offer = stage.platform.offer(word)
    claimed: Claimed = stage.platform.claimed[offer.offer_id]
    return Attempt(offer, claimed, claimed_at=asyncio.get_running_loop().time() + 1e6)


def item_of(client: DeviceClient, attempt: Attempt, size: int = 1) -> SubmitItem:
    outcome = Outcome(status=Status.OK, exit_code=0, fuel=1, stdout=bytes(size), stderr=b"")
    return signed_result(client.key, attempt.claimed, outcome)


@asynccontextmanager
async def sending(stage: Stage) -> AsyncIterator[tuple[Submitter, DeviceClient]]:
    client = stage.client()
    submitter = Submitter(client, Reporter(), Pacing(first_pause_s=0.001))
    task = asyncio.create_task(submitter.run())
    yield submitter, client
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_what_gets_ready_during_a_call_goes_together_in_the_next(stage: Stage) -> None:
    entered, go_on = stage.platform.hold("submits")
    async with sending(stage) as (submitter, client):
        attempts = [await attempt_at(stage, word) for word in "abcd"]
        items = [item_of(client, attempt) for attempt in attempts]
        first = asyncio.create_task(submitter.submit(attempts[0], items[0]))
        await entered.wait()
        rest = asyncio.gather(*map(submitter.submit, attempts[1:], items[1:]))
        await asyncio.sleep(0)
        go_on.set()
        answers = [await first, *await rest]
    assert stage.platform.submit_sizes == [1, 3]
    assert [answer.attempt_id for answer in answers if isinstance(answer, Submitted)] == [
        attempt.id for attempt in attempts
    ]


async def test_one_call_stays_within_the_platforms_limits(stage: Stage) -> None:
    client = stage.client()
    submitter = Submitter(client, Reporter(), Pacing())
    sizes = [20 << 20, 10 << 20, 30 << 20, *[1] * 70]
    waiting = []
    for number, size in enumerate(sizes):
        attempt = await attempt_at(stage, str(number))
        item = item_of(client, attempt, size)
        waiting.append(asyncio.create_task(submitter.submit(attempt, item)))
    await asyncio.sleep(0)
    waiting[5].cancel()
    await asyncio.sleep(0)
    batches = [submitter.take_batch() for _ in range(5)]
    assert [len(batch) for batch in batches] == [1, 1, 1, 64, 5]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_refused_call_is_sent_again_item_by_item(stage: Stage) -> None:
    entered, go_on = stage.platform.hold("submits")
    stage.refuse("submits", "invalid_input", 400)
    async with sending(stage) as (submitter, client):
        attempts = [await attempt_at(stage, word) for word in "abc"]
        tasks = [
            asyncio.create_task(submitter.submit(attempt, item_of(client, attempt)))
            for attempt in attempts
        ]
        await entered.wait()
        go_on.set()
        answers = await asyncio.gather(*tasks)
    assert [answer.code for answer in answers if isinstance(answer, Refusal)] == [
        "invalid_input"
    ] * 3
    assert stage.platform.calls["submits"] == 4


async def test_a_claim_answered_twice_is_run_once(stage: Stage) -> None:
    board = Board(2)
    offer = stage.platform.offer("a")
    claimed = Claimed(
        attempt_id=uuid.uuid4(),
        task_id=offer.task_id,
        revision=0,
        lease_ms=1,
        module_hash="aa" * 32,
        metered_hash="aa" * 32,
        profile="p",
        input=TaskInput(),
        limits=Limits(),
    )
    assert offer.asset is Asset.TEST
    assert board.add(Attempt(offer, claimed, 0.0))
    assert not board.add(Attempt(offer, claimed, 0.0))
    assert await board.free_slots() == 1
