"""Verdicts: who is believed, who runs the same work once, and who pays for it."""

from __future__ import annotations

import asyncio

from gstd.kernel.settings import Policy
from gstd.ledger import service as ledger
from gstd.protocol.types import Role, Tier
from gstd.tasks.advance import referee_cost
from gstd.verification import runs
from gstd.verification.results import result_of
from tests.world import CREDITS, REWARD, Device, World, outcome

FUEL = 5_000_000_000
LIES = [b"one", b"two", b"three"]


async def take(world: World, count: int = 1) -> list[runs.Run]:
    return await world.run(
        lambda conn: runs.take_runs(conn, count, world.policy, world.clock.now())
    )


async def finish(world: World, run: runs.Run, fuel: int = 1_000, out: bytes = b"") -> None:
    truth = outcome(out, fuel) if out else outcome(fuel=fuel)
    await world.blobs.put(truth.stdout)
    result = result_of(run.work(), truth)
    end = runs.Finished(run, result)
    await world.run(lambda conn: runs.record_runs(conn, [end], world.policy, world.clock.now()))


async def judge(world: World, run: runs.Run) -> int:
    return await world.run(
        lambda conn: runs.judge_waiting(conn, [run.id], world.policy, world.clock.now())
    )


async def fail(world: World, run: runs.Run) -> None:
    end = runs.Failed(run, "broken")
    await world.run(lambda conn: runs.record_runs(conn, [end], world.policy, world.clock.now()))


async def submit_each(world: World, task_id: object, outputs: list[bytes]) -> list[Device]:
    devices = []
    for output in outputs:
        device = await world.device()
        claimed = await world.claim(device, task_id)  # type: ignore[arg-type]
        await world.submit(device, claimed, outcome(output))
        devices.append(device)
    return devices


async def test_a_three_way_split_is_settled_by_the_referee(world: World) -> None:
    requester = await world.account(Role.REQUESTER, credits=CREDITS)
    job = await world.job(requester, tier=Tier.QUORUM)
    [task] = await world.tasks(job.id)
    await submit_each(world, task.id, [b"one", b"two"])
    assert await take(world) == []
    await submit_each(world, task.id, [b"right"])
    assert (await world.task(task.id)).state == "verifying"
    assert await world.referee(outcome(b"right")) == 1
    done = await world.task(task.id)
    assert [attempt.verdict for attempt in done.attempts] == ["wrong", "wrong", "proved"]
    money = (await world.view(job.id)).money
    cost = referee_cost(1_000, world.policy)
    fee = int(job.quote.fee_nano)
    assert (money.released_nano, money.referee_nano) == (str(REWARD), str(cost))
    assert await world.available(requester) == CREDITS - REWARD - fee - cost
    await world.assert_sound()


async def test_after_too_many_lies_the_referees_output_is_delivered_and_the_reward_refunded(
    world: World,
) -> None:
    world.policy = Policy(max_wrong_results=3)
    requester = await world.account(Role.REQUESTER, credits=CREDITS)
    job = await world.job(requester)
    [task] = await world.tasks(job.id)
    for lie in LIES:
        await submit_each(world, task.id, [lie])
        await world.referee()
    done = await world.task(task.id)
    assert (done.state, done.retries) == ("accepted", 0)
    assert {attempt.verdict for attempt in done.attempts} == {"wrong"}
    money = (await world.view(job.id)).money
    assert (money.released_nano, money.fee_nano, money.locked_nano) == ("0", "0", "0")
    spent = referee_cost(1_000, world.policy)
    assert await world.available(requester) == CREDITS - spent
    await world.assert_sound()


async def test_a_referee_that_cannot_run_it_blames_nobody_and_refunds(world: World) -> None:
    requester = await world.account(Role.REQUESTER, credits=CREDITS)
    [task] = await world.tasks((await world.job(requester)).id)
    [device] = await submit_each(world, task.id, [b"perhaps"])
    for _ in range(world.policy.referee_tries):
        [run] = await take(world)
        await fail(world, run)
        await judge(world, run)
    assert await take(world) == []
    done = await world.task(task.id)
    assert (done.state, done.attempts[0].verdict) == ("failed", "unproven")
    assert await world.available(requester) == CREDITS
    async with world.database.connection() as conn:
        trust = await conn.fetchval(
            "SELECT trust FROM device WHERE id = $1", device.actor.device_id
        )
    assert trust == 500
    await world.assert_sound()


async def test_two_referees_never_take_the_same_run(world: World) -> None:
    job = await world.job(tasks=12)
    for task in await world.tasks(job.id):
        await submit_each(world, task.id, [b"x"])
    taken = await asyncio.gather(*(take(world, 3) for _ in range(6)))
    ids = [run.id for runs in taken for run in runs]
    assert len(ids) == len(set(ids)) == 12


async def test_a_dead_referees_run_goes_to_another_and_its_late_answer_changes_nothing(
    world: World,
) -> None:
    [task] = await world.tasks((await world.job()).id)
    await submit_each(world, task.id, [b"right"])
    [dead] = await take(world)
    assert await take(world) == []
    world.clock.advance(milliseconds=world.policy.referee_lease_ms)
    [alive] = await take(world)
    assert (alive.id, alive.tries) == (dead.id, dead.tries + 1)
    before = await world.rows()
    await finish(world, dead, out=b"something else")
    await fail(world, dead)
    assert await judge(world, dead) == 0
    assert await world.rows() == before
    await finish(world, alive, out=b"right")
    await fail(world, alive)
    assert await judge(world, alive) == 1
    assert (await world.task(task.id)).state == "accepted"


async def test_the_same_work_in_two_tasks_runs_once_and_is_charged_once(world: World) -> None:
    owners = [await world.account(Role.REQUESTER, credits=CREDITS) for _ in range(2)]
    jobs = [await world.job(owner) for owner in owners]
    tasks = [(await world.tasks(job.id))[0] for job in jobs]
    for task in tasks:
        device = await world.device()
        await world.submit(device, await world.claim(device, task.id), outcome(fuel=FUEL))
    assert await world.referee(outcome(fuel=FUEL)) == 1
    assert [(await world.task(task.id)).state for task in tasks] == ["accepted"] * 2
    charged = [int((await world.view(job.id)).money.referee_nano) for job in jobs]
    assert sorted(charged) == [0, referee_cost(FUEL, world.policy)]
    later = await world.job(owners[0])
    [third] = await world.tasks(later.id)
    device = await world.device()
    claimed = await world.claim(device, third.id)
    assert (await world.submit(device, claimed, outcome(fuel=FUEL))).state == "accepted"
    assert (await world.view(later.id)).money.referee_nano == "0"
    await world.assert_sound()


async def test_a_result_that_comes_while_the_referee_finishes_is_judged(world: World) -> None:
    for number in range(5):
        first, second = [await world.job(name=str(number)) for _ in range(2)]
        [asked] = await world.tasks(first.id)
        [other] = await world.tasks(second.id)
        async with world.database.transaction() as conn:
            await conn.execute(
                "UPDATE task SET input_hash = $1 WHERE id = ANY ($2)",
                bytes([number]) * 32,
                [asked.id, other.id],
            )
        await submit_each_hashed(world, asked.id, bytes([number]) * 32)
        [run] = await take(world)

        async def end(run: runs.Run = run) -> None:
            await finish(world, run)
            await judge(world, run)

        await asyncio.gather(end(), submit_each_hashed(world, other.id, bytes([number]) * 32))
        states = {(await world.task(task.id)).state for task in (asked, other)}
        assert states == {"accepted"}
    await world.assert_sound()


async def submit_each_hashed(world: World, task_id: object, input_hash: bytes) -> None:
    device = await world.device()
    claimed = await world.claim(device, task_id)  # type: ignore[arg-type]
    item = world.signed(device, claimed, outcome(), input_hash=input_hash)
    await world.submit_all(device, [item])


async def test_a_quorums_pay_is_held_back(world: World) -> None:
    [task] = await world.tasks((await world.job(tier=Tier.QUORUM)).id)
    devices = await submit_each(world, task.id, [b"same", b"same"])

    async def vest() -> int:
        return len(await world.run(lambda conn: ledger.vest_due(conn, world.clock.now(), 10)))

    world.clock.advance(seconds=world.policy.holdback_s - 1)
    assert await vest() == 0
    world.clock.advance(seconds=1)
    assert await vest() == 2
    assert await world.available(devices[0].actor.account_id) == REWARD
    await world.assert_sound()


async def test_a_proved_result_vests_at_the_next_sweep(world: World) -> None:
    [task] = await world.tasks((await world.job()).id)
    [device] = await submit_each(world, task.id, [b"right"])
    await world.referee(outcome(b"right"))
    assert await world.available(device.actor.account_id) == 0
    await world.run(lambda conn: ledger.vest_due(conn, world.clock.now(), 10))
    assert await world.available(device.actor.account_id) == REWARD
