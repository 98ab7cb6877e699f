"""Jobs: quote, post, make task rows in chunks, cancel, close."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from gstd.accounts import pools
from gstd.blobs.store import Blobs
from gstd.database.connection import Connection, to_structs
from gstd.database.notebook import note_queued
from gstd.events.service import Event, append
from gstd.kernel.ids import new_id
from gstd.kernel.money import MAX_NANO, ceil_share
from gstd.kernel.settings import Policy
from gstd.ledger import service as ledger
from gstd.modules.service import Module
from gstd.protocol.execution import Limits, TaskInput
from gstd.protocol.graphs import JobInput
from gstd.protocol.jobs import InputRange, JobRequest, Quote
from gstd.protocol.types import Tier
from gstd.tasks.advance import advance, referee_cost
from gstd.tasks.drafts import Draft, fund, insert_job, with_inputs
from gstd.tasks.edges import Posted, connect, resolve, tell_unmade, waiting_indexes
from gstd.tasks.errors import InvalidJobError, JobNotFoundError, RewardTooLowError
from gstd.tasks.graph import input_bytes, plain
from gstd.tasks.leads import Lane, lock_leads, write_leads
from gstd.tasks.order import lead_after, task_keys
from gstd.tasks.store import sql

WASM_PAGE_BYTES = 65_536

_encode = msgspec.msgpack.Encoder().encode
_decode_inputs = msgspec.msgpack.Decoder(list[JobInput]).decode


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
    root: UUID
    origins: list[int] | None
    room: int
    has_parents: bool

    @property
    def lane(self) -> Lane:
        """Whose turns its tasks take."""
        return (self.account_id, self.priority)

    def chunk(self, policy: Policy) -> Sequence[int]:
        """The indexes of the rows that are made next; a rerun has those that it repeats."""
        end = min(self.made + policy.chunk_tasks, self.task_count, self.room)
        if self.origins is not None:
            return self.origins[: end - self.made]
        return range(self.made, end)


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


def check(request: JobRequest, module: Module, policy: Policy, now: datetime) -> datetime:
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
    listed: Sequence[TaskInput] = request.inputs or [_first_input(request)]
    for task_input in listed:
        size = input_bytes(task_input)
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
    [job_id] = await post_jobs(connection, blobs, owner, [(request, module)], policy, now)
    return job_id


async def post_jobs(
    connection: Connection,
    blobs: Blobs,
    owner: UUID,
    requests: Sequence[tuple[JobRequest, Module]],
    policy: Policy,
    now: datetime,
) -> list[UUID]:
    """The same of jobs that wait for one another by name: all are made, or none.

    Raises ``InvalidJobError`` or ``InsufficientFundsError``; the caller then rolls back.
    """
    names = Counter(request.name for request, _ in requests)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InvalidJobError(f"two jobs are called {twice[0]!r}")
    drafts = [
        Draft(
            id=new_id(),
            owner=owner,
            request=request,
            module=module,
            price=quote(request, policy),
            deadline=check(request, module, policy, now),
            input_range=request.range,
        )
        for request, module in requests
    ]
    posted = {
        draft.request.name: Posted(draft.id, draft.request, draft.price.tasks) for draft in drafts
    }
    parents = await resolve(connection, owner, posted, policy)
    for request, _ in requests:
        if request.pool is not None:
            await pools.must_be_member(connection, request.pool, owner)
    await fund(connection, drafts, now)
    for draft in drafts:
        await insert_job(connection, await with_inputs(blobs, draft), now)
    await connect(connection, posted, parents)
    ids = [draft.id for draft in drafts]
    for job_id in ids:  # one by one, because rows that follow one to one come after the others
        await fill_jobs(connection, blobs, policy, now, only=[job_id])
    return ids


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
        queued = await _make_chunk(connection, blobs, job, leads[job.lane], policy, now)
        leads[job.lane] += lead_after(queued, job.limits, policy)
    await write_leads(connection, leads, now)
    return sum(len(job.chunk(policy)) for job in waiting)


async def _make_chunk(
    connection: Connection,
    blobs: Blobs,
    job: JobToFill,
    lead_ms: int,
    policy: Policy,
    now: datetime,
) -> int:
    """Make the rows; returns how many of them wait for a device and not for other tasks."""
    indexes = job.chunk(policy)
    inputs = await _inputs(blobs, job, indexes)
    blocked = await waiting_indexes(connection, job.root, indexes) if job.has_parents else set()
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
        ["blocked" if index in blocked else "queued" for index in indexes],
    )
    note_queued(ids)
    await connection.execute(sql["count_made"], job.id, len(ids))
    await ledger.allot(connection, job.id, ids, job.task_lock)
    if blocked:
        await connection.execute(sql["tell_made"], job.id, min(blocked), max(blocked))
    return len(ids) - len(blocked)


async def _inputs(blobs: Blobs, job: JobToFill, indexes: Sequence[int]) -> list[TaskInput]:
    if job.input_range is not None:
        start = job.input_range.start
        return [job.input_range.input_at(index, seed=start + index) for index in indexes]
    assert job.inputs_hash is not None
    listed = _decode_inputs(await blobs.get(job.inputs_hash))
    return [plain(listed[index]) for index in indexes]


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
    await tell_unmade(connection, [job_id])
    await connection.execute(sql["cancel_job"], job_id, now)
    rows = await connection.fetch(sql["unfinished_tasks"], [job_id])
    await append(connection, [Event(kind="job.cancelled", accounts=(owner,), job_id=job_id)], now)
    await advance(connection, [row["id"] for row in rows], policy, now)
    await ledger.refund_unmade(connection, [job_id], now)  # tasks are locked before accounts


async def expire_jobs(connection: Connection, now: datetime) -> int:
    """Give back the money of tasks that were never made before their job's deadline."""
    rows = await connection.fetch(sql["drop_unmade"], now)
    ids = [row["id"] for row in rows]
    await tell_unmade(connection, ids)
    await ledger.refund_unmade(connection, ids, now)
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
    await tell_unmade(connection, ids)
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
