"""One attempt from claim to result: fetch, run, sign, hand in, or give back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from gstd.kernel.errors import GstdError, Refusal
from gstd.protocol.execution import Limits, Outcome, TaskInput
from gstd.protocol.work import Released, ReleaseItem, ReleaseReason, SubmitItem
from gstd.sandbox.errors import WallClockExceeded
from gstd.sdk.device import DeviceClient
from gstd.sdk.errors import SdkError
from gstd.sdk.pacing import Pacing
from gstd.worker.attempts import Attempt, Phase
from gstd.worker.errors import LeaseOverError, is_fatal
from gstd.worker.misbehave import Alter
from gstd.worker.modules import ModuleCache
from gstd.worker.results import signed_result
from gstd.worker.status import Reporter
from gstd.worker.submitter import Submitter

log = structlog.get_logger()
T = TypeVar("T")

DETAIL_CHARACTERS = 500


class Runner(Protocol):
    """What a worker needs of ``gstd.sandbox.runner.Sandbox``."""

    async def run(self, module: bytes | Path, task: TaskInput, limits: Limits) -> Outcome: ...


class Execution:
    """Carries out attempts."""

    def __init__(
        self,
        client: DeviceClient,
        sandbox: Runner,
        modules: ModuleCache,
        submitter: Submitter,
        reporter: Reporter,
        alter: Alter,
        pacing: Pacing,
    ) -> None:
        self._client = client
        self._sandbox = sandbox
        self._modules = modules
        self._submitter = submitter
        self._reporter = reporter
        self._alter = alter
        self._pacing = pacing

    async def carry_out(self, attempt: Attempt) -> bool:
        """Run an attempt to its end and report it; false when this machine failed the run.

        Raises only ``ApiError`` when the device may not work any more. Cancelling kills the run.
        """
        try:
            item = await self._result(attempt)
        except Exception as error:
            if is_fatal(error):
                raise
            return await self._give_back(attempt, error)
        try:
            answer = await self._submitter.submit(attempt, item)
        except LeaseOverError as error:
            self._reporter.lost(attempt, error.detail)
            return True
        if isinstance(answer, Refusal):
            self._reporter.refused(attempt, answer)
        else:
            self._reporter.submitted(attempt, answer, item.status, item.fuel)
        return True

    async def _result(self, attempt: Attempt) -> SubmitItem:
        claimed = attempt.claimed
        module = await self._insist(attempt, lambda: self._modules.get(claimed.metered_hash))
        outcome = await self._sandbox.run(module, claimed.input, claimed.limits)
        attempt.phase = Phase.SUBMITTING
        return signed_result(self._client.key, claimed, self._alter(outcome))

    async def _give_back(self, attempt: Attempt, error: Exception) -> bool:
        """Release what could not be run; whatever broke, it says nothing about the module."""
        if isinstance(error, LeaseOverError):
            self._reporter.lost(attempt, error.detail)
            return True
        attempt.phase = Phase.RELEASING
        reason = ReleaseReason.HOST_FAULT
        if isinstance(error, WallClockExceeded):
            reason = ReleaseReason.WALL_CLOCK
        if isinstance(error, GstdError):
            detail = f"{error.code}: {error.detail}"[:DETAIL_CHARACTERS]
        else:
            log.error("attempt_broke", attempt_id=str(attempt.id), exc_info=error)
            detail = type(error).__name__
        await self._release(attempt, reason, detail)
        return reason is ReleaseReason.WALL_CLOCK

    async def _release(self, attempt: Attempt, reason: ReleaseReason, detail: str) -> None:
        item = ReleaseItem(attempt_id=attempt.id, reason=reason, detail=detail)
        try:
            (outcome,) = await self._insist(attempt, lambda: self._client.releases([item]))
        except (SdkError, LeaseOverError) as error:
            if is_fatal(error):
                raise
            self._reporter.lost(attempt, error.detail)
            return
        if isinstance(outcome, Released):
            self._reporter.released(attempt, reason, detail)
        else:
            self._reporter.lost(attempt, outcome.detail)

    async def _insist(self, attempt: Attempt, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call through passing failures until the attempt's lease is over."""
        backoff = self._pacing.backoff()
        while True:
            try:
                return await call()
            except SdkError as error:
                if not error.is_transient:
                    raise
                self._reporter.trouble(error)
                if self._pacing.monotonic() >= attempt.lease_until:
                    raise LeaseOverError from error
            await self._pacing.sleep(backoff.next_s())
