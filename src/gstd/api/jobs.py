"""Jobs, tasks and results."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, Router, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from gstd.accounts.model import Actor
from gstd.api import edge
from gstd.api.authentication import ActorDep, PlatformDep
from gstd.bus.bus import Hint
from gstd.database.connection import Connection
from gstd.modules import service as modules
from gstd.protocol.jobs import (
    DeviceShare,
    GraphRequest,
    JobPage,
    JobRequest,
    JobView,
    OrderChange,
    Quote,
    RerunRequest,
    ResultPage,
    TaskView,
    Timeline,
)
from gstd.protocol.types import Role
from gstd.tasks import jobs, reorder, rerun, views
from gstd.tasks.model import TaskState
from gstd.tasks.timeline import timeline

Limit = Annotated[int, QueryParameter(ge=1, le=500)]
After = Annotated[int, QueryParameter(ge=-1, le=2**31 - 1)]

INERT = {
    "Content-Disposition": "attachment",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
}
"""What strangers' modules made is never shown as part of our pages."""


def reader(actor: Actor) -> UUID | None:
    """Whose rows an account may read: its own, or everybody's for an admin."""
    return None if actor.is_admin else actor.account_id


@post("/jobs/quote", summary="What a job would lock", status_code=200)
async def quote(actor: ActorDep, data: JSONBody[JobRequest], platform: PlatformDep) -> Quote:
    """The exact amount per task and in total. Nothing is locked or stored."""
    actor.must_be(Role.REQUESTER)
    return jobs.quote(data, platform.policy)


@post("/jobs", summary="Post a job", opt=edge.MOVES_MONEY)
async def post_job(
    request: Request[Any, Any, Any],
    data: JSONBody[JobRequest],
    actor: ActorDep,
    platform: PlatformDep,
) -> Response[JobView]:
    """Lock the money of every task and make the job, in one transaction, or neither."""
    actor.must_be(Role.REQUESTER)

    async def work(connection: Connection, now: datetime) -> JobView:
        module = await modules.module(connection, data.module)
        job_id = await jobs.post_job(
            connection, platform.blobs, actor.account_id, data, module, platform.policy, now
        )
        return await views.job_view(connection, job_id, actor.account_id)

    return await edge.write(
        request, platform, actor, work, hints=[Hint.QUEUE, Hint.OUTBOX, Hint.TASKS]
    )


@post("/graphs", summary="Post jobs that wait for one another", opt=edge.MOVES_MONEY)
async def post_graph(
    request: Request[Any, Any, Any],
    data: JSONBody[GraphRequest],
    actor: ActorDep,
    platform: PlatformDep,
) -> Response[list[JobView]]:
    """Lock the money of all jobs and make them, in one transaction, or none of them.

    Their `after` may use one another's names. A circle is refused and named.
    """
    actor.must_be(Role.REQUESTER)

    async def work(connection: Connection, now: datetime) -> list[JobView]:
        owner = actor.account_id
        pairs = [(item, await modules.module(connection, item.module)) for item in data.jobs]
        ids = await jobs.post_jobs(connection, platform.blobs, owner, pairs, platform.policy, now)
        return [await views.job_view(connection, job_id, owner) for job_id in ids]

    return await edge.write(
        request, platform, actor, work, hints=[Hint.QUEUE, Hint.OUTBOX, Hint.TASKS]
    )


@post("/jobs/{job_id:uuid}/rerun", summary="Run again what failed", opt=edge.MOVES_MONEY)
async def rerun_job(
    request: Request[Any, Any, Any],
    job_id: FromPath[UUID],
    data: JSONBody[RerunRequest],
    actor: ActorDep,
    platform: PlatformDep,
) -> Response[JobView]:
    """A new job with the tasks of an ended one that have no result, at the same indexes."""
    actor.must_be(Role.REQUESTER)

    async def work(connection: Connection, now: datetime) -> JobView:
        owner, policy = actor.account_id, platform.policy
        first = await rerun.original(connection, owner, job_id)
        module = await modules.module(connection, first.module_hash.hex())
        new = await rerun.rerun_job(
            connection, platform.blobs, owner, first, data, module, policy, now
        )
        return await views.job_view(connection, new, owner)

    return await edge.write(
        request, platform, actor, work, hints=[Hint.QUEUE, Hint.OUTBOX, Hint.TASKS]
    )


@get("/jobs", summary="My jobs")
async def list_jobs(
    actor: ActorDep, platform: PlatformDep, before: FromQuery[UUID | None] = None, limit: Limit = 50
) -> JobPage:
    """Newest first."""
    return await edge.read(
        platform,
        lambda conn: views.jobs_of(conn, actor.account_id, before=before, limit=limit),
    )


@get("/jobs/{job_id:uuid}", summary="A job")
async def show_job(job_id: FromPath[UUID], actor: ActorDep, platform: PlatformDep) -> JobView:
    """Its tasks by state, and where its money is."""
    return await edge.read(platform, lambda conn: views.job_view(conn, job_id, reader(actor)))


@post(
    "/jobs/{job_id:uuid}/cancel",
    summary="Cancel a job",
    status_code=200,
    opt=edge.IDEMPOTENT,
)
async def cancel_job(
    request: Request[Any, Any, Any], job_id: FromPath[UUID], actor: ActorDep, platform: PlatformDep
) -> Response[JobView]:
    """End what is not being verified and give its money back. Safe to repeat."""

    async def work(connection: Connection, now: datetime) -> JobView:
        await jobs.cancel_job(connection, actor.account_id, job_id, platform.policy, now)
        return await views.job_view(connection, job_id, actor.account_id)

    return await edge.write(
        request,
        platform,
        actor,
        work,
        hints=[Hint.OUTBOX, Hint.REFEREE, Hint.TASKS],
        status=200,
    )


@patch("/jobs/{job_id:uuid}", summary="Change a job's turn", opt=edge.IDEMPOTENT)
async def change_job(
    request: Request[Any, Any, Any],
    job_id: FromPath[UUID],
    data: JSONBody[OrderChange],
    actor: ActorDep,
    platform: PlatformDep,
) -> Response[JobView]:
    """Another priority or deadline for all of it that has not ended, from the next claim on."""

    async def work(connection: Connection, now: datetime) -> JobView:
        await reorder.change_job(connection, actor.account_id, job_id, data, platform.policy, now)
        return await views.job_view(connection, job_id, actor.account_id)

    return await edge.write(
        request, platform, actor, work, hints=[Hint.QUEUE, Hint.OUTBOX], status=200
    )


@get("/jobs/{job_id:uuid}/tasks", summary="A job's tasks")
async def list_tasks(
    job_id: FromPath[UUID],
    actor: ActorDep,
    platform: PlatformDep,
    after: After = -1,
    limit: Limit = 100,
    in_state: Annotated[TaskState | None, QueryParameter(name="state")] = None,
) -> list[TaskView]:
    """In order of index, each with all its attempts, verdicts and earnings.

    With ``state`` only those in it: ``failed`` lists what has spent its retries.
    """
    return await edge.read(
        platform,
        lambda conn: views.tasks_of_job(
            conn, job_id, reader(actor), after=after, limit=limit, state=in_state
        ),
    )


@get("/jobs/{job_id:uuid}/workers", summary="Who worked on a job")
async def list_workers(
    job_id: FromPath[UUID], actor: ActorDep, platform: PlatformDep
) -> list[DeviceShare]:
    """Per device: results accepted and rejected, and what it earned."""
    return await edge.read(platform, lambda conn: views.devices_of_job(conn, job_id, reader(actor)))


@get("/jobs/{job_id:uuid}/results", summary="A job's accepted results")
async def list_results(
    job_id: FromPath[UUID],
    actor: ActorDep,
    platform: PlatformDep,
    after: After = -1,
    output: FromQuery[bool] = False,
) -> ResultPage:
    """In order of index. With ``output=true`` each carries its bytes, in base64."""
    return await edge.read(
        platform,
        lambda conn: views.results_of_job(
            conn, platform.blobs, job_id, reader(actor), after=after, with_output=output
        ),
    )


@get("/tasks/{task_id:uuid}", summary="A task")
async def show_task(task_id: FromPath[UUID], actor: ActorDep, platform: PlatformDep) -> TaskView:
    """With all its attempts."""
    return await edge.read(platform, lambda conn: views.task_view(conn, task_id, reader(actor)))


@get("/tasks/{task_id:uuid}/timeline", summary="A task's whole story")
async def show_timeline(
    task_id: FromPath[UUID], actor: ActorDep, platform: PlatformDep
) -> Timeline:
    """Every offer that was claimed, every attempt and how it ended, with audit log positions."""
    return await edge.read(platform, lambda conn: timeline(conn, task_id, reader(actor)))


@patch("/tasks/{task_id:uuid}", summary="Change a task's turn", opt=edge.IDEMPOTENT)
async def change_task(
    request: Request[Any, Any, Any],
    task_id: FromPath[UUID],
    data: JSONBody[OrderChange],
    actor: ActorDep,
    platform: PlatformDep,
) -> Response[TaskView]:
    """Another priority or deadline for this task alone, from the next claim on."""

    async def work(connection: Connection, now: datetime) -> TaskView:
        await reorder.change_task(connection, actor.account_id, task_id, data, platform.policy, now)
        return await views.task_view(connection, task_id, actor.account_id)

    return await edge.write(
        request, platform, actor, work, hints=[Hint.QUEUE, Hint.OUTBOX], status=200
    )


@get("/tasks/{task_id:uuid}/output", summary="A task's accepted output")
async def show_output(
    task_id: FromPath[UUID], actor: ActorDep, platform: PlatformDep
) -> Response[bytes]:
    """The bytes as the module wrote them, always as an attachment."""
    output = await edge.read(
        platform,
        lambda conn: views.output_of_task(conn, platform.blobs, task_id, reader(actor)),
    )
    return Response(output, media_type="application/octet-stream", headers=INERT)


router = Router(
    "/",
    tags=["jobs"],
    route_handlers=[
        quote,
        post_job,
        post_graph,
        rerun_job,
        list_jobs,
        show_job,
        cancel_job,
        change_job,
        change_task,
        list_tasks,
        list_workers,
        list_results,
        show_task,
        show_timeline,
        show_output,
    ],
)
