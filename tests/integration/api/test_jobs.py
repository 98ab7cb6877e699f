"""Jobs over HTTP: quote, post, list, show, cancel, results."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from gstd.kernel.settings import Mode
from gstd.protocol.execution import TaskInput
from gstd.protocol.jobs import OrderChange
from gstd.protocol.types import Asset, Priority, Role, Tier
from gstd.sdk import ApiError
from tests.integration.api.house import (
    CREDITS,
    REWARD,
    RIGHT,
    URL,
    House,
    Person,
    bearer,
    open_house,
    problem_of,
    signed,
)


async def balance(person: Person) -> tuple[int, int]:
    """Test credits that are available and in escrow."""
    [balance] = [b for b in (await person.client.wallet()).balances if b.asset is Asset.TEST]
    return int(balance.available_nano), int(balance.escrow_nano)


@pytest.mark.parametrize("tier", list(Tier))
async def test_a_quote_is_exactly_what_posting_locks(house: House, tier: Tier) -> None:
    person = await house.requester()
    request = await house.request(tasks=7, tier=tier, quorum=3)
    quote = await person.client.quote(request)
    assert await balance(person) == (CREDITS, 0)
    job = await person.client.post_job(request)
    total = int(quote.total_nano)
    assert await balance(person) == (CREDITS - total, total)
    assert job.quote == quote
    assert job.money.funded_nano == job.money.locked_nano == quote.total_nano
    assert int(quote.task_nano) * 7 == total
    assert quote.copies == (3 if tier is Tier.QUORUM else 1)


async def test_a_job_is_listed_shown_and_has_its_tasks_in_order(house: House) -> None:
    person = await house.requester()
    jobs = [await house.job(person, tasks=2, name=f"job {n}") for n in range(3)]
    page = await person.client.jobs(limit=2)
    assert [item.name for item in page.items] == ["job 2", "job 1"]
    rest = await person.client.jobs(before=page.next, limit=2)
    assert [item.id for item in rest.items] == [jobs[0].id]
    assert rest.next is None
    assert await person.client.job(jobs[0].id) == jobs[0]
    assert jobs[0].counts.queued == jobs[0].counts.tasks == 2
    tasks = await person.client.tasks(jobs[0].id)
    assert [task.index for task in tasks] == [0, 1]
    assert [task.index for task in await person.client.tasks(jobs[0].id, after=0)] == [1]
    assert await person.client.task(tasks[1].id) == tasks[1]


async def test_cancelling_gives_everything_back_once(house: House) -> None:
    person = await house.requester()
    job = await house.job(person, tasks=5)
    cancelled = await person.client.cancel_job(job.id)
    assert (cancelled.state, cancelled.counts.cancelled) == ("cancelled", 5)
    assert cancelled.money.refunded_nano == job.quote.total_nano
    assert (await person.client.cancel_job(job.id)).money == cancelled.money
    assert await balance(person) == (CREDITS, 0)


async def test_inputs_given_one_by_one_become_the_tasks(house: House) -> None:
    person, device = await house.requester(), await house.device()
    inputs = [TaskInput(args=("a", str(n)), stdin=bytes([n]), seed=n) for n in range(3)]
    job = await house.job(person, range=None, inputs=inputs)
    claimed = await house.claim(device, job, 3)
    assert sorted((item.input for item in claimed), key=lambda i: i.seed) == inputs


async def test_a_result_is_hidden_until_it_is_accepted_and_inert_after(house: House) -> None:
    person, device = await house.requester(), await house.device()
    job = await house.job(person)
    [claimed] = await house.claim(device, job)
    path = f"/api/v1/tasks/{claimed.task_id}/output"
    before = await house.http.get(path, headers=bearer(person))
    assert "running" in problem_of(before, 409, "output_hidden").detail
    await device.client.submits([signed(device, claimed)])
    waiting = await house.http.get(path, headers=bearer(person))
    assert "verifying" in problem_of(waiting, 409, "output_hidden").detail
    assert (await person.client.result_page(job.id)).items == []
    await house.referee()
    output = await house.http.get(path, headers=bearer(person))
    assert (output.status_code, output.content) == (200, RIGHT)
    assert output.headers["content-disposition"] == "attachment"
    assert output.headers["x-content-type-options"] == "nosniff"
    assert output.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in output.headers["content-security-policy"]
    [result] = (await person.client.result_page(job.id)).items
    assert (result.output, result.status) == (RIGHT, "ok")
    [bare] = (await person.client.result_page(job.id, output=False)).items
    assert bare.output is None
    [share] = await person.client.job_workers(job.id)
    assert (share.device_id, share.accepted, share.held_nano) == (device.id, 1, str(REWARD))


async def test_the_ledger_is_sound_and_says_so_to_an_admin(house: House) -> None:
    admin = await house.person(Role.ADMIN)
    await house.job(await house.requester())
    check = await admin.client.check_ledger()
    assert check.ok
    assert check.sum_nano == "0"
    assert all(item.holds for item in check.invariants)


async def test_an_admin_grants_test_credits(house: House) -> None:
    admin, person = await house.person(Role.ADMIN), await house.person()
    wallet = await admin.client.credit(person.id, 5)
    assert wallet.account_id == person.id
    assert await balance(person) == (5, 0)


async def test_production_has_no_test_credits(
    database_urls: dict[str, str], tmp_path: Path
) -> None:
    urls = database_urls["app"], database_urls["owner"], None
    async with open_house(tmp_path, *urls, mode=Mode.PRODUCTION) as house:
        admin = await house.person(Role.ADMIN)
        with pytest.raises(ApiError) as refusal:
            await admin.client.credit(admin.id, 5)
        assert (refusal.value.status, refusal.value.code) == (403, "test_credits_off")
        assert (await admin.client.wallet()).balances == []
        async with httpx2.AsyncClient(transport=house.transport, base_url=URL) as stranger:
            health = (await stranger.get("/api/v1/health")).json()
        assert health["mode"] == "production"


async def refused(call: Awaitable[object]) -> str:
    """The code of a refusal that must come."""
    with pytest.raises(ApiError) as refusal:
        await call
    return refusal.value.code


async def test_priority_and_deadline_change_while_a_job_waits(house: House) -> None:
    person = await house.requester()
    job = await house.job(person, tasks=2)
    [first, second] = await person.client.tasks(job.id)
    sooner = datetime.now(UTC) + timedelta(hours=1)
    changed = await person.client.change_job(job.id, OrderChange(priority=Priority.HIGH))
    assert (changed.priority, changed.deadline) == (Priority.HIGH, job.deadline)
    await person.client.change_task(
        second.id, OrderChange(priority=Priority.CRITICAL, deadline=sooner)
    )
    [first, second] = await person.client.tasks(job.id)
    assert (first.priority, first.deadline) == (Priority.HIGH, job.deadline)
    assert (second.priority, second.deadline) == (Priority.CRITICAL, sooner)
    [offer] = await house.offers_of(await house.device(), job, 1)
    assert offer.task_id == second.id


async def test_what_has_ended_or_is_too_late_is_not_changed(house: House) -> None:
    person, stranger = await house.requester(), await house.requester()
    job = await house.job(person)
    [task] = await person.client.tasks(job.id)
    past = OrderChange(deadline=datetime.now(UTC))
    urgent = OrderChange(priority=Priority.CRITICAL)
    assert await refused(person.client.change_job(job.id, past)) == "invalid_job"
    assert await refused(person.client.change_task(task.id, past)) == "invalid_job"
    assert await refused(stranger.client.change_job(job.id, urgent)) == "job_not_found"
    assert await refused(stranger.client.change_task(task.id, urgent)) == "task_not_found"
    await person.client.cancel_job(job.id)
    assert await refused(person.client.change_job(job.id, urgent)) == "job_over"
    assert await refused(person.client.change_task(task.id, urgent)) == "task_over"


async def test_a_timeline_tells_the_whole_story(house: House) -> None:
    person = await house.requester()
    job = await house.job(person)
    [task] = await person.client.tasks(job.id)
    device = await house.device()
    [claimed] = await house.claim(device, job)
    await device.client.heartbeats([claimed.attempt_id])
    await device.client.submits([signed(device, claimed)])
    await house.referee()
    await house.number_events()
    story = await person.client.timeline(task.id)
    kinds = [moment.kind for moment in story.moments]
    told = [
        "attempt.offered",
        "attempt.claimed",
        "attempt.heartbeat",
        "attempt.submitted",
        "attempt.accepted",
        "task.accepted",
    ]
    assert [kind for kind in kinds if kind in told] == told
    assert all(moment.device_name for moment in story.moments if moment.attempt_id)
    stranger = await house.requester()
    assert await refused(stranger.client.timeline(task.id)) == "task_not_found"


async def test_tasks_are_listed_by_state(house: House) -> None:
    person = await house.requester()
    job = await house.job(person, tasks=3)
    device = await house.device()
    [claimed] = await house.claim(device, job)
    running = await person.client.tasks(job.id, state="running")
    assert [task.id for task in running] == [claimed.task_id]
    assert len(await person.client.tasks(job.id, state="queued")) == 2
    assert await person.client.tasks(job.id, state="failed") == []
    assert await refused(person.client.tasks(job.id, state="lost")) == "invalid_input"
