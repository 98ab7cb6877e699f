"""The client of a requester, a worker's owner or an admin: every route of a person."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import IO, Self
from uuid import UUID

import httpx2
import msgspec

from gstd.kernel.ids import new_id
from gstd.protocol.audit import (
    AuditKey,
    CheckpointPage,
    ConsistencyProof,
    DifferencePage,
    LeafPage,
    StatementProof,
)
from gstd.protocol.corrections import CorrectionDecision, CorrectionRequest, CorrectionView
from gstd.protocol.jobs import (
    DeviceShare,
    ExecuteRequest,
    ExecuteResponse,
    GraphRequest,
    JobPage,
    JobRequest,
    JobView,
    ModuleView,
    Quote,
    RerunRequest,
    ResultPage,
    TaskResult,
    TaskView,
)
from gstd.protocol.money import (
    BalancesAt,
    Direction,
    Part,
    StatementPage,
    StatementRow,
    Total,
    TransferKind,
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
from gstd.protocol.types import Asset
from gstd.sdk.pacing import DEFAULT_PACING, Pacing
from gstd.sdk.transport import READ_TIMEOUT_S, BearerKey, Call, QueryValue, Transport

EXECUTE_TIMEOUT_S = 120.0
UPLOAD_TIMEOUT_S = 120.0
"""A new module is inspected and compiled before the answer."""

AUDIT_TIMEOUT_S = 120.0
"""The first page of differences looks at every attempt."""

DOWNLOAD_TIMEOUT_S = 120.0
"""The platform sorts a long statement before its first row."""

LONG_POLL_MS = 20_000
GATHER_S = 0.1
"""How long news of a job gather before the job is looked at again."""

_UNAVAILABLE = 503


class StatementFilters(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows of a statement. ``since`` is included, ``until`` is not; both need a time zone.

    ``job_id`` is one of your own jobs; ``task_id`` selects what moved because of a task.
    """

    asset: Asset | None = None
    part: Part | None = None
    kind: TransferKind | None = None
    direction: Direction | None = None
    since: datetime | None = None
    until: datetime | None = None
    task_id: UUID | None = None
    job_id: UUID | None = None

    def query(self) -> dict[str, QueryValue]:
        """The filters as parameters of the routes."""
        return {
            "asset": self.asset,
            "part": self.part,
            "kind": self.kind,
            "direction": self.direction,
            "since": None if self.since is None else self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
            "task_id": None if self.task_id is None else str(self.task_id),
            "job_id": None if self.job_id is None else str(self.job_id),
        }


EVERYTHING = StatementFilters()


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

    # The audit log

    async def audit_key(self) -> AuditKey:
        """The audit log's name and public key. Answers everybody."""
        return await self._transport.fetch(AuditKey, _open("/audit/key"))

    async def audit_checkpoint(self) -> str:
        """The newest signed head of the audit log, as a note. Answers everybody."""
        return (await self._transport.send(_open("/audit/checkpoint"))).decode()

    async def audit_checkpoints(
        self, *, after: int = 0, limit: int | None = None
    ) -> CheckpointPage:
        """Signed heads with more than ``after`` leaves, by size. Answers everybody."""
        call = _open("/audit/checkpoints", after=after, limit=limit)
        return await self._transport.fetch(CheckpointPage, call)

    async def audit_consistency(self, first: int, second: int) -> ConsistencyProof:
        """That the log of one size is the beginning of that of another. Answers everybody."""
        call = _open("/audit/consistency", first=first, second=second)
        return await self._transport.fetch(ConsistencyProof, call)

    async def audit_proof(self, positions: Sequence[int]) -> StatementProof:
        """The account's own events at these positions, with proofs to check offline."""
        call = _get("/audit/proof", positions=",".join(map(str, positions)))
        return await self._transport.fetch(StatementProof, call)

    async def audit_leaves(self, *, after: int = 0, limit: int | None = None) -> LeafPage:
        """The content of every leaf, by position. Admins only."""
        call = _get("/admin/audit/leaves", after=after, limit=limit)
        return await self._transport.fetch(LeafPage, call)

    async def audit_differences(
        self, *, after: int = 0, limit: int | None = None
    ) -> DifferencePage:
        """Where the log and the tables it describes disagree. Admins only."""
        call = Call(
            method="GET",
            path="/admin/audit/differences",
            query={"after": after, "limit": limit},
            read_timeout_s=AUDIT_TIMEOUT_S,
        )
        return await self._transport.fetch(DifferencePage, call)

    # The history of money

    async def statement(
        self,
        filters: StatementFilters = EVERYTHING,
        *,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> StatementPage:
        """A page of what every transfer did to the wallet, newest first."""
        query = {**filters.query(), "cursor": cursor, "limit": limit}
        call = Call(method="GET", path="/wallet/statement", query=query)
        return await self._transport.fetch(StatementPage, call)

    async def statement_rows(
        self, filters: StatementFilters = EVERYTHING
    ) -> AsyncIterator[StatementRow]:
        """All rows of the statement, newest first."""
        cursor: str | None = None
        while True:
            page = await self.statement(filters, cursor=cursor, limit=500)
            for row in page.items:
                yield row
            cursor = page.next
            if cursor is None:
                return

    async def statement_csv(
        self,
        to: IO[bytes],
        filters: StatementFilters = EVERYTHING,
        *,
        on_progress: Callable[[int], object] | None = None,
    ) -> int:
        """Write the statement as CSV; returns its length. ``on_progress`` hears of the bytes."""
        call = _long("/wallet/statement.csv", filters.query())
        return await self._transport.download(call, to, on_progress)

    async def totals(
        self,
        *,
        asset: Asset | None = None,
        part: Part | None = None,
        kind: TransferKind | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Total]:
        """What moved in and out, by asset, part and kind."""
        filters = StatementFilters(asset=asset, part=part, kind=kind, since=since, until=until)
        call = Call(method="GET", path="/wallet/totals", query=filters.query())
        return await self._transport.fetch(list[Total], call)

    async def balances_at(self, at: datetime | None = None) -> BalancesAt:
        """The account's balances at a time, which is included; else now."""
        call = _get("/wallet/balances", at=None if at is None else at.isoformat())
        return await self._transport.fetch(BalancesAt, call)

    async def export_ledger(
        self, to: IO[bytes], *, on_progress: Callable[[int], object] | None = None
    ) -> int:
        """Write the whole ledger as a journal of hledger. Admins only."""
        return await self._transport.download(_long("/admin/ledger/export", {}), to, on_progress)

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
            idempotency_key=_own_or_new(idempotency_key),
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

    async def post_graph(
        self, request: GraphRequest, *, idempotency_key: str | None = None
    ) -> list[JobView]:
        """Post jobs that wait for one another by name: all of them, or none."""
        call = _make("/graphs", request, idempotency_key)
        return await self._transport.fetch(list[JobView], call)

    async def rerun_job(
        self,
        job_id: UUID,
        request: RerunRequest = RerunRequest(),  # noqa: B008 - frozen
        *,
        idempotency_key: str | None = None,
    ) -> JobView:
        """A new job with the tasks of an ended one that have no result, at the same indexes."""
        call = _make(f"/jobs/{job_id}/rerun", request, idempotency_key)
        return await self._transport.fetch(JobView, call)

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


def _long(path: str, query: dict[str, QueryValue]) -> Call:
    """A download, whose first byte may take a while."""
    return Call(method="GET", path=path, query=query, read_timeout_s=DOWNLOAD_TIMEOUT_S)


def _get(path: str, **query: str | int | bool | None) -> Call:
    return Call(method="GET", path=path, query=query)


def _open(path: str, **query: str | int | bool | None) -> Call:
    return Call(method="GET", path=path, query=query, anonymous=True)


def _make(path: str, request: msgspec.Struct | None, idempotency_key: str | None) -> Call:
    return Call(
        method="POST",
        path=path,
        body=b"" if request is None else msgspec.json.encode(request),
        idempotency_key=_own_or_new(idempotency_key),
    )


def _own_or_new(idempotency_key: str | None) -> str:
    """The caller's key; an empty one is sent and refused rather than replaced on every call."""
    return str(new_id()) if idempotency_key is None else idempotency_key
