"""Reruns: a new job with those tasks of an ended one that have no result."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from gstd.blobs.store import Blobs
from gstd.database.connection import Connection, to_struct
from gstd.kernel.ids import new_id
from gstd.kernel.settings import Policy
from gstd.modules.service import Module
from gstd.protocol.execution import Limits
from gstd.protocol.graphs import Feed, OnFailure
from gstd.protocol.jobs import MAX_LISTED_INPUTS, InputRange, JobRequest, RerunRequest
from gstd.protocol.types import Asset, Priority, Tier
from gstd.tasks.drafts import Draft, fund, insert_job
from gstd.tasks.errors import JobNotFoundError, NothingToRerunError, StillRunningError
from gstd.tasks.jobs import check, fill_jobs, quote
from gstd.tasks.store import sql

PRIORITIES = tuple(Priority)


class Original(msgspec.Struct, frozen=True, kw_only=True):
    """The first job of a family, as far as a rerun repeats it."""

    id: UUID
    name: str
    module_hash: bytes
    tier: Tier
    quorum: int
    priority: int
    asset: Asset
    reward: int
    limits: Limits
    min_trust: int
    pool_id: UUID | None
    feed: Feed
    on_failure: OnFailure
    task_count: int
    input_range: InputRange | None
    inputs_hash: bytes | None

    def request(self, tasks: int, change: RerunRequest) -> JobRequest:
        """A request for so many of its tasks. Where their inputs are, the draft says."""
        return JobRequest(
            module=self.module_hash.hex(),
            reward_nano=change.reward_nano or str(self.reward),
            name=self.name,
            range=InputRange(count=tasks),
            asset=self.asset,
            tier=self.tier,
            quorum=max(2, self.quorum),
            priority=PRIORITIES[self.priority],
            deadline=change.deadline,
            limits=self.limits,
            min_trust=self.min_trust,
            pool=self.pool_id,
            feed=self.feed,
            on_failure=self.on_failure,
        )


async def original(connection: Connection, owner: UUID, job_id: UUID) -> Original:
    """What a rerun of this job would repeat; locks it. Raises ``JobNotFoundError``."""
    row = await connection.fetchrow(sql["lock_original"], job_id, owner)
    if row is None:
        raise JobNotFoundError
    return to_struct(row, Original)


async def rerun_job(
    connection: Connection,
    blobs: Blobs,
    owner: UUID,
    first: Original,
    change: RerunRequest,
    module: Module,
    policy: Policy,
    now: datetime,
) -> UUID:
    """Post what neither the job nor any rerun of it has a result for, at the same indexes.

    The new job has the edges of the first: what it reads of its parents are their best results,
    reruns included. Raises ``StillRunningError``, ``NothingToRerunError`` or what posting raises.
    """
    if await connection.fetchval(sql["family_is_open"], first.id):
        raise StillRunningError
    rows = await connection.fetch(sql["without_result"], first.id, MAX_LISTED_INPUTS)
    if not rows:
        raise NothingToRerunError
    request = first.request(len(rows), change)
    draft = Draft(
        id=new_id(),
        owner=owner,
        request=request,
        module=module,
        price=quote(request, policy),
        deadline=check(request, module, policy, now),
        input_range=first.input_range,
        inputs_hash=first.inputs_hash,
        root=first.id,
        origins=[row["index"] for row in rows],
    )
    await fund(connection, [draft], now)
    await insert_job(connection, draft, now)
    await fill_jobs(connection, blobs, policy, now, only=[draft.id])
    return draft.id
