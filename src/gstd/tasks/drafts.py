"""Jobs on their way into the database: their money is locked, then their rows are written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from gstd.accounts.model import shard_of
from gstd.blobs.store import Blobs
from gstd.database.connection import Connection
from gstd.events.service import Event, append
from gstd.kernel.canonical import digest
from gstd.ledger import service as ledger
from gstd.ledger.errors import InsufficientFundsError
from gstd.modules.service import Module
from gstd.protocol.execution import Limits
from gstd.protocol.jobs import InputRange, JobRequest, Quote
from gstd.tasks.order import PRIORITY_LEVELS
from gstd.tasks.store import sql

_encode = msgspec.msgpack.Encoder().encode


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was checked. A rerun repeats the ``origins`` of its ``root``, by index."""

    id: UUID
    owner: UUID
    request: JobRequest
    module: Module
    price: Quote
    deadline: datetime
    input_range: InputRange | None = None
    inputs_hash: bytes | None = None
    root: UUID | None = None
    origins: list[int] | None = None


def limits_hash(limits: Limits) -> bytes:
    """Names the limits that can change a result."""
    return digest("gstd-limits-v1", limits.fuel, limits.memory_bytes, limits.output_bytes)


async def fund(connection: Connection, drafts: Sequence[Draft], now: datetime) -> None:
    """Lock the money of all these jobs. Raises ``InsufficientFundsError``."""
    fundings = [
        ledger.Funding(draft.id, draft.owner, draft.request.asset, int(draft.price.total_nano))
        for draft in drafts
    ]
    funded = await ledger.fund_jobs(connection, fundings, now)
    for funding, outcome in zip(fundings, funded, strict=True):
        if outcome.outcome == "insufficient":
            raise InsufficientFundsError(
                f"the job locks {funding.total} nano, the account has {outcome.available}"
            )


async def with_inputs(blobs: Blobs, draft: Draft) -> Draft:
    """The draft after its listed inputs, if any, were stored."""
    if draft.request.inputs is None:
        return draft
    inputs_hash = await blobs.put(_encode(draft.request.inputs))
    return msgspec.structs.replace(draft, inputs_hash=inputs_hash)


async def insert_job(connection: Connection, draft: Draft, now: datetime) -> None:
    """Write the job and its event; its task rows come later."""
    request, price, module = draft.request, draft.price, draft.module
    await connection.execute(
        sql["insert_job"],
        draft.id,
        draft.owner,
        shard_of(draft.owner),
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
        draft.deadline,
        request.limits,
        limits_hash(request.limits),
        draft.input_range,
        draft.inputs_hash,
        now,
        request.min_trust,
        request.pool,
        await _class_of(connection, draft),
        draft.root or draft.id,
        draft.origins,
        request.feed.value,
        request.on_failure.value,
    )
    event = Event(
        kind="job.posted",
        accounts=(draft.owner,),
        job_id=draft.id,
        data={"tasks": price.tasks, "total_nano": price.total_nano},
    )
    await append(connection, [event], now)


async def _class_of(connection: Connection, draft: Draft) -> int:
    """The class of the needs of its tasks."""
    request, module = draft.request, draft.module
    class_id: int = await connection.fetchval(
        sql["task_class"],
        module.profile,
        module.hash,
        request.limits.memory_bytes,
        request.limits.fuel,
        request.limits.wall_ms,
        request.min_trust,
        int(draft.price.reward_nano),
        request.asset.value,
        request.pool,
    )
    return class_id
