"""Jobs, tasks, results, and the events that tell of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from uuid import UUID

import msgspec

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
    TaskResult,
    TaskView,
    Timeline,
)
from gstd.protocol.people import EventPage
from gstd.sdk.room import Room, change, get, make
from gstd.sdk.transport import READ_TIMEOUT_S, Call

LONG_POLL_MS = 20_000
GATHER_S = 0.1
"""How long news of a job gather before the job is looked at again."""


class Jobs(Room):
    """What is computed for the account."""

    async def quote(self, request: JobRequest) -> Quote:
        """What a job would lock. Changes nothing."""
        body = msgspec.json.encode(request)
        call = Call(method="POST", path="/jobs/quote", body=body, safe=True)
        return await self._transport.fetch(Quote, call)

    async def post_job(self, request: JobRequest, *, idempotency_key: str | None = None) -> JobView:
        """Lock the money and post the job, or do neither."""
        return await self._transport.fetch(JobView, make("/jobs", request, idempotency_key))

    async def post_graph(
        self, request: GraphRequest, *, idempotency_key: str | None = None
    ) -> list[JobView]:
        """Post jobs that wait for one another by name: all of them, or none."""
        call = make("/graphs", request, idempotency_key)
        return await self._transport.fetch(list[JobView], call)

    async def rerun_job(
        self,
        job_id: UUID,
        request: RerunRequest = RerunRequest(),  # noqa: B008 - frozen
        *,
        idempotency_key: str | None = None,
    ) -> JobView:
        """A new job with the tasks of an ended one that have no result, at the same indexes."""
        call = make(f"/jobs/{job_id}/rerun", request, idempotency_key)
        return await self._transport.fetch(JobView, call)

    async def jobs(self, *, before: UUID | None = None, limit: int | None = None) -> JobPage:
        """A page of the account's jobs, newest first."""
        call = get("/jobs", before=None if before is None else str(before), limit=limit)
        return await self._transport.fetch(JobPage, call)

    async def job(self, job_id: UUID) -> JobView:
        """A job with its counts and its money."""
        return await self._transport.fetch(JobView, get(f"/jobs/{job_id}"))

    async def cancel_job(self, job_id: UUID, *, idempotency_key: str | None = None) -> JobView:
        """End a job; what is not being verified is refunded. Ended jobs stay as they are."""
        call = make(f"/jobs/{job_id}/cancel", None, idempotency_key)
        return await self._transport.fetch(JobView, call)

    async def change_job(
        self, job_id: UUID, order: OrderChange, *, idempotency_key: str | None = None
    ) -> JobView:
        """Give a job another priority or deadline, from the next claim on."""
        call = change(f"/jobs/{job_id}", order, idempotency_key)
        return await self._transport.fetch(JobView, call)

    async def change_task(
        self, task_id: UUID, order: OrderChange, *, idempotency_key: str | None = None
    ) -> TaskView:
        """Give one task another priority or deadline, from the next claim on."""
        call = change(f"/tasks/{task_id}", order, idempotency_key)
        return await self._transport.fetch(TaskView, call)

    async def timeline(self, task_id: UUID) -> Timeline:
        """A task's whole story."""
        return await self._transport.fetch(Timeline, get(f"/tasks/{task_id}/timeline"))

    async def tasks(
        self,
        job_id: UUID,
        *,
        after: int | None = None,
        limit: int | None = None,
        state: str | None = None,
    ) -> list[TaskView]:
        """Tasks in order of index, after the given one; with ``state`` only those in it."""
        call = get(f"/jobs/{job_id}/tasks", after=after, limit=limit, state=state)
        return await self._transport.fetch(list[TaskView], call)

    async def task(self, task_id: UUID) -> TaskView:
        """A task with all its attempts."""
        return await self._transport.fetch(TaskView, get(f"/tasks/{task_id}"))

    async def task_output(self, task_id: UUID) -> bytes:
        """The accepted output of a task. Treat it as what a stranger wrote."""
        return await self._transport.send(get(f"/tasks/{task_id}/output"))

    async def job_workers(self, job_id: UUID) -> list[DeviceShare]:
        """The devices that worked for a job and what each earned by it."""
        return await self._transport.fetch(list[DeviceShare], get(f"/jobs/{job_id}/workers"))

    async def result_page(
        self, job_id: UUID, *, after: int | None = None, output: bool = True
    ) -> ResultPage:
        """A page of accepted results, after the given index."""
        call = get(f"/jobs/{job_id}/results", after=after, output=output)
        return await self._transport.fetch(ResultPage, call)

    async def results(
        self, job_id: UUID, *, after: int | None = None, output: bool = True
    ) -> AsyncIterator[TaskResult]:
        """All results accepted by now, in order of index."""
        while True:
            page = await self.result_page(job_id, after=after, output=output)
            for result in page.items:
                yield result
            if page.next is None:
                return
            after = page.next

    async def events(
        self,
        *,
        after: int = 0,
        wait_ms: int = 0,
        job_id: UUID | None = None,
        limit: int | None = None,
    ) -> EventPage:
        """Events after a position; with ``wait_ms`` the answer waits that long for the first."""
        job = None if job_id is None else str(job_id)
        query = {"after": after, "wait_ms": wait_ms or None, "job_id": job, "limit": limit}
        timeout_s = READ_TIMEOUT_S + wait_ms / 1000
        call = Call(method="GET", path="/events", query=query, read_timeout_s=timeout_s)
        return await self._transport.fetch(EventPage, call)

    async def wait_for_job(
        self, job_id: UUID, on_progress: Callable[[JobView], object] | None = None
    ) -> JobView:
        """The job once it and all its tasks have ended.

        ``on_progress`` is called with the job at first and whenever it changed.
        """
        position = await self._position_of(job_id)
        seen: JobView | None = None
        while True:
            job = await self.job(job_id)
            if on_progress is not None and job != seen:
                on_progress(job)
            if has_ended(job):
                return job
            seen = job
            page = await self.events(after=position, wait_ms=LONG_POLL_MS, job_id=job_id)
            position = page.position
            await self._transport.pacing.sleep(GATHER_S)

    async def _position_of(self, job_id: UUID) -> int:
        """Where the job's events end now: what follows cannot be missed."""
        page = await self.events(job_id=job_id)
        while page.items:
            page = await self.events(after=page.position, job_id=job_id)
        return page.position


def has_ended(job: JobView) -> bool:
    """Whether nothing of a job can change any more, except that held earnings vest."""
    counts = job.counts
    unfinished = counts.blocked + counts.queued + counts.running + counts.verifying
    return job.state != "open" and unfinished == 0
