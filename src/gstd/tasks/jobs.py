"""Jobs: quote, post, make task rows in chunks, cancel, close."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from gstd.accounts import pools
from gstd.accounts.model import shard_of
from gstd.blobs.store import Blobs
from gstd.database.connection import Connection, to_structs
from gstd.database.notebook import note_queued
from gstd.events.service import Event, append
from gstd.kernel.canonical import digest
from gstd.kernel.ids import new_id
from gstd.kernel.money import MAX_NANO, ceil_share
from gstd.kernel.settings import Policy
from gstd.ledger import service as ledger
from gstd.ledger.errors import InsufficientFundsError
from gstd.modules.service import Module
from gstd.protocol.execution import Limits, TaskInput
from gstd.protocol.jobs import InputRange, JobRequest, Quote
from gstd.protocol.types import Tier
from gstd.tasks.advance import advance, referee_cost
from gstd.tasks.errors import InvalidJobError, JobNotFoundError, RewardTooLowError
from gstd.tasks.leads import Lane, lock_leads, write_leads
from gstd.tasks.order import PRIORITY_LEVELS, lead_after, task_keys
from gstd.tasks.store import sql

WASM_PAGE_BYTES = 65_536

_encode = msgspec.msgpack.Encoder().encode
_decode_inputs = msgspec.msgpack.Decoder(list[TaskInput]).decode


class JobToFill(msgspec.Struct, frozen=True):
    """A job some of whose task rows do not exist yet."""

    id: UUID
    account_id: UUID
    task_count: int
    made: int
    task_lock: int
    input_range: InputRange | None
    inputs_hash: bytes | None
    priority: int
    deadline: datetime
    limits: Limits

    @property
    def lane(self) -> Lane:
        """Whose turns its tasks take."""
        return (self.account_id, self.priority)

    def chunk(self, policy: Policy) -> range:
        """The indexes of the rows that are made next."""
        return range(self.made, min(self.made + policy.chunk_tasks, self.task_count))


def limits_hash(limits: Limits) -> bytes:
    """Names the limits that can change a result."""
    return digest("gstd-limits-v1", limits.fuel, limits.memory_bytes, limits.output_bytes)


def quote(request: JobRequest, policy: Policy) -> Quote:
    """What the job locks: per task ``copies * (reward + fee) + referee``.

    The fee is rounded up per result; the referee's part covers one re-execution up to the fuel
    limit, of which only the fuel really used is taken. Raises ``InvalidJobError``.
    """
    reward = int(request.reward_nano)
    if reward < policy.min_reward_nano:
        raise RewardTooLowError(f"the reward must be at least {policy.min_reward_nano} nano")
    tasks = _task_count(request)
    copies = request.quorum if request.tier is Tier.QUORUM else 1
    fee = ceil_share(reward, policy.fee_bps)
    referee = referee_cost(request.limits.fuel, policy)
    task_lock = copies * (reward + fee) + referee
    if task_lock * tasks > MAX_NANO:
        raise InvalidJobError("the job would lock more than the ledger can hold")
    return Quote(
        tasks=tasks,
        copies=copies,
        reward_nano=str(reward),
        fee_nano=str(fee),
        referee_nano=str(referee),
        task_nano=str(task_lock),
        total_nano=str(task_lock * tasks),
        asset=request.asset,
    )


def _task_count(request: JobRequest) -> int:
    if request.inputs is not None and request.range is None:
        return len(request.inputs)
    if request.range is not None and request.inputs is None:
        return request.range.count
    raise InvalidJobError("give exactly one of `inputs` and `range`")


def _check(request: JobRequest, module: Module, policy: Policy, now: datetime) -> datetime:
    """The job's deadline, after everything that can be wrong was looked at."""
    latest = now + timedelta(seconds=policy.max_job_life_s)
    deadline = request.deadline or latest
    if deadline.tzinfo is None:
        raise InvalidJobError("`deadline` needs a time zone, such as 2026-01-01T12:00:00Z")
    if not now < deadline <= latest:
        raise InvalidJobError(f"`deadline` must lie between now and {latest.isoformat()}")
    if request.limits.memory_bytes > policy.max_memory_bytes:
        raise InvalidJobError(f"`limits.memory_bytes` is above {policy.max_memory_bytes}")
    if module.info.memory_min_pages * WASM_PAGE_BYTES > request.limits.memory_bytes:
        raise InvalidJobError("the module needs more memory than `limits.memory_bytes` allows")
    for task_input in request.inputs or [_first_input(request)]:
        size = len(task_input.stdin) + sum(len(arg.encode()) for arg in task_input.args)
        if size > policy.max_input_bytes:
            raise InvalidJobError(f"an input has {size} bytes, more than {policy.max_input_bytes}")
    return deadline


def _first_input(request: JobRequest) -> TaskInput:
    assert request.range is not None
    return request.range.input_at(request.range.count - 1, 0)


async def post_job(
    connection: Connection,
    blobs: Blobs,
    owner: UUID,
    request: JobRequest,
    module: Module,
    policy: Policy,
    now: datetime,
) -> UUID:
    """Lock the money of every task and make the job, or neither; makes the first task rows.

    Raises ``InvalidJobError``, ``InsufficientFundsError``, or ``PoolNotFoundError`` for a pool that
    the owner has not joined; then nothing has changed.
    """
    price = quote(request, policy)
    if request.pool is not None:
        await pools.must_be_member(connection, request.pool, owner)
    deadline = _check(request, module, policy, now)
    job_id = new_id()
    total = int(price.total_nano)
    funding = ledger.Funding(job_id, owner, request.asset, total)
    [funded] = await ledger.fund_jobs(connection, [funding], now)
    if funded.outcome == "insufficient":
        raise InsufficientFundsError(
            f"the job locks {total} nano, the account has {funded.available}"
        )
    inputs_hash = None
    if request.inputs is not None:
        inputs_hash = await blobs.put(_encode(request.inputs))
    class_id = await connection.fetchval(
        sql["task_class"],
        module.profile,
        module.hash,
        request.limits.memory_bytes,
        request.limits.fuel,
        request.limits.wall_ms,
        request.min_trust,
        int(price.reward_nano),
        request.asset.value,
        request.pool,
    )
    await connection.execute(
        sql["insert_job"],
        job_id,
        owner,
        shard_of(owner),
        request.name,
        module.hash,
        module.metered_hash,
        module.profile,
        request.tier.value,
        price.copies,
        request.asset.value,
        int(price.reward_nano),
        int(price.fee_nano),
        int(price.referee_nano),
        int(price.task_nano),
        price.tasks,
        PRIORITY_LEVELS[request.priority],
        deadline,
        request.limits,
        limits_hash(request.limits),
        request.range,
        inputs_hash,
        now,
        request.min_trust,
        request.pool,
        class_id,
    )
    event = Event(
        kind="job.posted",
        accounts=(owner,),
        job_id=job_id,
        data={"tasks": price.tasks, "total_nano": price.total_nano},
    )
    await append(connection, [event], now)
    await fill_jobs(connection, blobs, policy, now, only=[job_id])
    return job_id


async def fill_jobs(
    connection: Connection,
    blobs: Blobs,
    policy: Policy,
    now: datetime,
    *,
    only: Sequence[UUID] | None = None,
) -> int:
    """Make the next chunk of task rows for jobs that run low; returns how many were made."""
    rows = await connection.fetch(sql["jobs_to_fill"], only, policy.chunk_tasks, now)
    waiting = to_structs(rows, JobToFill)
    leads = await lock_leads(connection, [job.lane for job in waiting], policy, now)
    for job in waiting:
        await _make_chunk(connection, blobs, job, leads[job.lane], policy, now)
        leads[job.lane] += lead_after(len(job.chunk(policy)), job.limits, policy)
    await write_leads(connection, leads, now)
    return sum(len(job.chunk(policy)) for job in waiting)


async def _make_chunk(
    connection: Connection,
    blobs: Blobs,
    job: JobToFill,
    lead_ms: int,
    policy: Policy,
    now: datetime,
) -> None:
    indexes = job.chunk(policy)
    inputs = await _inputs(blobs, job, indexes)
    ids = [new_id() for _ in indexes]
    keys = task_keys(
        level=job.priority,
        count=len(ids),
        lead_ms=lead_ms,
        deadline=job.deadline,
        limits=job.limits,
        policy=policy,
        now=now,
    )
    await connection.execute(
        sql["insert_tasks"],
        job.id,
        ids,
        list(indexes),
        keys,
        [_encode(task_input) for task_input in inputs],
        [task_input.hash() for task_input in inputs],
        now,
    )
    note_queued(ids)
    await connection.execute(sql["count_made"], job.id, len(ids))
    await ledger.allot(connection, job.id, ids, job.task_lock)


async def _inputs(blobs: Blobs, job: JobToFill, indexes: range) -> list[TaskInput]:
    if job.input_range is not None:
        start = job.input_range.start
        return [job.input_range.input_at(index, seed=start + index) for index in indexes]
    assert job.inputs_hash is not None
    return _decode_inputs(await blobs.get(job.inputs_hash))[indexes.start : indexes.stop]


async def cancel_job(
    connection: Connection, owner: UUID, job_id: UUID, policy: Policy, now: datetime
) -> None:
    """End a job: what is not being verified is cancelled and refunded now.

    Results that wait for their verdict are still judged, and paid when right. Cancelling a job
    that has ended changes nothing. Raises ``JobNotFoundError`` for somebody else's job.
    """
    job = await connection.fetchrow(sql["lock_job"], job_id, owner)
    if job is None:
        raise JobNotFoundError
    if job["state"] != "open":
        return
    await connection.execute(sql["cancel_job"], job_id, now)
    rows = await connection.fetch(sql["unfinished_tasks"], [job_id])
    await append(connection, [Event(kind="job.cancelled", accounts=(owner,), job_id=job_id)], now)
    await advance(connection, [row["id"] for row in rows], policy, now)
    await ledger.refund_unmade(connection, [job_id], now)  # tasks are locked before accounts


async def expire_jobs(connection: Connection, now: datetime) -> int:
    """Give back the money of tasks that were never made before their job's deadline."""
    rows = await connection.fetch(sql["drop_unmade"], now)
    await ledger.refund_unmade(connection, [row["id"] for row in rows], now)
    return len(rows)


async def end_idle_jobs(connection: Connection, policy: Policy, now: datetime) -> int:
    """End jobs on which nothing has happened for ``idle_refund_s``; returns how many ended.

    Their escrow goes back to its owner, who is told by an event. A job ends once, however many
    schedulers look at it.
    """
    since = now - timedelta(seconds=policy.idle_refund_s)
    rows = await connection.fetch(sql["end_idle_jobs"], now, since)
    owners = {row["id"]: row["account_id"] for row in rows}
    ids = sorted(owners)
    before = {job_id: await ledger.job_money(connection, job_id) for job_id in ids}
    tasks = await connection.fetch(sql["unfinished_tasks"], ids)
    await advance(connection, [row["id"] for row in tasks], policy, now)
    await ledger.refund_unmade(connection, ids, now)
    after = {job_id: await ledger.job_money(connection, job_id) for job_id in ids}
    events = [
        Event(
            kind="job.auto_refunded",
            accounts=(owners[job_id],),
            job_id=job_id,
            data={
                "refunded_nano": str(
                    int(after[job_id].refunded_nano) - int(before[job_id].refunded_nano)
                ),
                "idle_s": policy.idle_refund_s,
            },
        )
        for job_id in ids
    ]
    await append(connection, events, now)
    return len(ids)


async def close_jobs(connection: Connection, now: datetime) -> list[UUID]:
    """Close jobs whose tasks have all ended."""
    rows = await connection.fetch(sql["close_jobs"], now)
    events = [
        Event(kind="job.closed", accounts=(row["account_id"],), job_id=row["id"]) for row in rows
    ]
    await append(connection, events, now)
    return [row["id"] for row in rows]
