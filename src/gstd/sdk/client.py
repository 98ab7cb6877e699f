"""The client of a requester, a worker's owner or an admin: every route of a person."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self
from uuid import UUID

import httpx2
import msgspec

from gstd.kernel.ids import new_id
from gstd.protocol.corrections import CorrectionDecision, CorrectionRequest, CorrectionView
from gstd.protocol.jobs import (
    DeviceShare,
    ExecuteRequest,
    ExecuteResponse,
    JobPage,
    JobRequest,
    JobView,
    ModuleView,
    Quote,
    ResultPage,
    TaskResult,
    TaskView,
)
from gstd.protocol.people import (
    AccountRequest,
    AccountView,
    CreditRequest,
    DeviceView,
    EnrolmentCode,
    EventPage,
    Health,
    LedgerCheck,
    NewAccount,
    RecordedError,
    WalletView,
)
from gstd.sdk.pacing import DEFAULT_PACING, Pacing
from gstd.sdk.transport import READ_TIMEOUT_S, BearerKey, Call, Transport

EXECUTE_TIMEOUT_S = 120.0
UPLOAD_TIMEOUT_S = 120.0
"""A new module is inspected and compiled before the answer."""

LONG_POLL_MS = 20_000
GATHER_S = 0.1
"""How long news of a job gather before the job is looked at again."""

_UNAVAILABLE = 503


class Client:
    """Calls the platform with an account's API key; without one only ``health`` answers.

    Methods raise ``ApiError`` with the platform's code and hint, ``UnreachableError``, or
    ``UnexpectedAnswerError``. What makes something or moves money carries an idempotency key: the
    retries of one call use one key, and a caller may give its own to repeat a call later.
    Use as ``async with Client(url, api_key) as client:``.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        pacing: Pacing = DEFAULT_PACING,
        http: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        credential = None if api_key is None else BearerKey(api_key)
        self._transport = Transport(url, credential, pacing=pacing, http=http)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    # The platform, accounts and money

    async def health(self) -> Health:
        """How the platform is; also answers while it is unhealthy."""
        call = Call(method="GET", path="/health", anonymous=True, also_fine=(_UNAVAILABLE,))
        return await self._transport.fetch(Health, call)

    async def account(self) -> AccountView:
        """The account of the API key."""
        return await self._transport.fetch(AccountView, _get("/account"))

    async def create_account(
        self, request: AccountRequest, *, idempotency_key: str | None = None
    ) -> NewAccount:
        """A new account and its API key, which is shown this once. Admins only."""
        call = _make("/accounts", request, idempotency_key)
        return await self._transport.fetch(NewAccount, call)

    async def credit(
        self, account_id: UUID, amount_nano: int, *, idempotency_key: str | None = None
    ) -> WalletView:
        """Give an account test credits. Admins only, development mode only."""
        request = CreditRequest(account_id=account_id, amount_nano=str(amount_nano))
        call = _make("/test-credits", request, idempotency_key)
        return await self._transport.fetch(WalletView, call)

    async def wallet(self) -> WalletView:
        """The account's balances."""
        return await self._transport.fetch(WalletView, _get("/wallet"))

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

    async def check_ledger(self) -> LedgerCheck:
        """All invariants of the ledger. Admins only."""
        return await self._transport.fetch(LedgerCheck, _get("/admin/ledger/check"))

    async def propose_correction(
        self, request: CorrectionRequest, *, idempotency_key: str | None = None
    ) -> CorrectionView:
        """Propose a transfer that mends a mistake. Admins only."""
        call = _make("/admin/corrections", request, idempotency_key)
        return await self._transport.fetch(CorrectionView, call)

    async def decide_correction(
        self, correction_id: UUID, *, apply: bool, idempotency_key: str | None = None
    ) -> CorrectionView:
        """Apply or reject what another admin proposed. Admins only."""
        path = f"/admin/corrections/{correction_id}/decision"
        call = _make(path, CorrectionDecision(apply=apply), idempotency_key)
        return await self._transport.fetch(CorrectionView, call)

    async def corrections(self, *, limit: int | None = None) -> list[CorrectionView]:
        """Corrections, newest first. Admins only."""
        call = _get("/admin/corrections", limit=limit)
        return await self._transport.fetch(list[CorrectionView], call)

    async def recorded_errors(self, *, limit: int | None = None) -> list[RecordedError]:
        """Errors that nobody expected, newest first. Admins only."""
        call = _get("/admin/errors", limit=limit)
        return await self._transport.fetch(list[RecordedError], call)

    # Devices

    async def new_enrolment_code(self, *, idempotency_key: str | None = None) -> EnrolmentCode:
        """A one-time code that links a device to this account."""
        call = _make("/devices/codes", None, idempotency_key)
        return await self._transport.fetch(EnrolmentCode, call)

    async def devices(self) -> list[DeviceView]:
        """The account's devices, oldest first."""
        return await self._transport.fetch(list[DeviceView], _get("/devices"))

    async def revoke_device(self, device_id: UUID) -> DeviceView:
        """End a device's work for good. Revoking twice changes nothing."""
        call = Call(method="POST", path=f"/devices/{device_id}/revoke", safe=True)
        return await self._transport.fetch(DeviceView, call)

    # Modules

    async def upload_module(
        self, module: bytes, name: str, *, idempotency_key: str | None = None
    ) -> ModuleView:
        """Upload a WebAssembly module; the same bytes always have the same id."""
        call = Call(
            method="POST",
            path="/wasm/upload",
            query={"name": name},
            body=module,
            content_type="application/wasm",
            idempotency_key=idempotency_key or str(new_id()),
            read_timeout_s=UPLOAD_TIMEOUT_S,
        )
        return await self._transport.fetch(ModuleView, call)

    async def modules(self) -> list[ModuleView]:
        """The account's modules."""
        return await self._transport.fetch(list[ModuleView], _get("/wasm"))

    async def module(self, module_id: str) -> ModuleView:
        """What a module is."""
        return await self._transport.fetch(ModuleView, _get(f"/wasm/{module_id}/metadata"))

    async def execute(self, module_id: str, request: ExecuteRequest) -> ExecuteResponse:
        """Run a module once on the platform, free of charge and within the trial limits."""
        call = Call(
            method="POST",
            path=f"/wasm/{module_id}/execute",
            body=msgspec.json.encode(request),
            read_timeout_s=EXECUTE_TIMEOUT_S,
        )
        return await self._transport.fetch(ExecuteResponse, call)

    # Jobs, tasks and results

    async def quote(self, request: JobRequest) -> Quote:
        """What a job would lock. Changes nothing."""
        body = msgspec.json.encode(request)
        call = Call(method="POST", path="/jobs/quote", body=body, safe=True)
        return await self._transport.fetch(Quote, call)

    async def post_job(self, request: JobRequest, *, idempotency_key: str | None = None) -> JobView:
        """Lock the money and post the job, or do neither."""
        return await self._transport.fetch(JobView, _make("/jobs", request, idempotency_key))

    async def jobs(self, *, before: UUID | None = None, limit: int | None = None) -> JobPage:
        """A page of the account's jobs, newest first."""
        call = _get("/jobs", before=None if before is None else str(before), limit=limit)
        return await self._transport.fetch(JobPage, call)

    async def job(self, job_id: UUID) -> JobView:
        """A job with its counts and its money."""
        return await self._transport.fetch(JobView, _get(f"/jobs/{job_id}"))

    async def cancel_job(self, job_id: UUID, *, idempotency_key: str | None = None) -> JobView:
        """End a job; what is not being verified is refunded. Ended jobs stay as they are."""
        call = _make(f"/jobs/{job_id}/cancel", None, idempotency_key)
        return await self._transport.fetch(JobView, call)

    async def tasks(
        self, job_id: UUID, *, after: int | None = None, limit: int | None = None
    ) -> list[TaskView]:
        """Tasks in order of index, after the given one."""
        call = _get(f"/jobs/{job_id}/tasks", after=after, limit=limit)
        return await self._transport.fetch(list[TaskView], call)

    async def task(self, task_id: UUID) -> TaskView:
        """A task with all its attempts."""
        return await self._transport.fetch(TaskView, _get(f"/tasks/{task_id}"))

    async def task_output(self, task_id: UUID) -> bytes:
        """The accepted output of a task. Treat it as what a stranger wrote."""
        return await self._transport.send(_get(f"/tasks/{task_id}/output"))

    async def job_workers(self, job_id: UUID) -> list[DeviceShare]:
        """The devices that worked for a job and what each earned by it."""
        return await self._transport.fetch(list[DeviceShare], _get(f"/jobs/{job_id}/workers"))

    async def result_page(
        self, job_id: UUID, *, after: int | None = None, output: bool = True
    ) -> ResultPage:
        """A page of accepted results, after the given index."""
        call = _get(f"/jobs/{job_id}/results", after=after, output=output)
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


def _get(path: str, **query: str | int | bool | None) -> Call:
    return Call(method="GET", path=path, query=query)


def _make(path: str, request: msgspec.Struct | None, idempotency_key: str | None) -> Call:
    return Call(
        method="POST",
        path=path,
        body=b"" if request is None else msgspec.json.encode(request),
        idempotency_key=idempotency_key or str(new_id()),
    )
