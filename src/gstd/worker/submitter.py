"""Hands in results: whatever is ready while a call is under way goes together in the next."""

from __future__ import annotations

import asyncio
from collections import deque

from gstd.kernel.errors import Refusal
from gstd.protocol.work import MAX_BATCH, SubmitItem, Submitted
from gstd.sdk.device import DeviceClient
from gstd.sdk.errors import SdkError
from gstd.sdk.pacing import Pacing
from gstd.worker.attempts import Attempt
from gstd.worker.errors import LeaseOverError, is_fatal
from gstd.worker.status import Reporter

BATCH_BYTES = 24 << 20
"""Outputs in one request: base64 makes a third more of them, and the platform takes 64 MiB."""

Answer = Submitted | Refusal


class Pending:
    """A result on its way."""

    def __init__(self, attempt: Attempt, item: SubmitItem) -> None:
        self.attempt = attempt
        self.item = item
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    @property
    def size(self) -> int:
        return len(self.item.stdout) + len(self.item.stderr)


class Submitter:
    """One sender for all attempts of a worker."""

    def __init__(self, client: DeviceClient, reporter: Reporter, pacing: Pacing) -> None:
        self._client = client
        self._reporter = reporter
        self._pacing = pacing
        self._backoff = pacing.backoff()
        self._waiting: deque[Pending] = deque()
        self._news = asyncio.Event()

    async def submit(self, attempt: Attempt, item: SubmitItem) -> Answer:
        """The platform's answer to a result.

        Raises ``LeaseOverError`` when the platform could not be reached before the lease ended.
        """
        pending = Pending(attempt, item)
        self._waiting.append(pending)
        self._news.set()
        return await pending.answer

    async def run(self) -> None:
        """Send for ever. Raises ``ApiError`` when the device may not work any more."""
        while True:
            await self._news.wait()
            batch = self.take_batch()
            if not self._waiting:
                self._news.clear()
            if batch:
                await self._send(batch)

    def take_batch(self) -> list[Pending]:
        """What goes into the next call, within the limits of one request."""
        batch: list[Pending] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH:
            size += self._waiting[0].size
            if batch and size > BATCH_BYTES:
                break
            pending = self._waiting.popleft()
            if not pending.answer.done():  # else its attempt was cancelled meanwhile
                batch.append(pending)
        return batch

    async def _send(self, batch: list[Pending]) -> None:
        try:
            outcomes = await self._client.submits([pending.item for pending in batch])
        except SdkError as error:
            if is_fatal(error):
                raise
            await self._failed(batch, error)
            return
        self._backoff.reset()
        for pending, outcome in zip(batch, outcomes, strict=True):
            _settle(pending, outcome)

    async def _failed(self, batch: list[Pending], error: SdkError) -> None:
        """The whole call failed: wait and send again, or find out which item is to blame."""
        if error.is_transient:
            self._reporter.trouble(error)
            await self._pacing.sleep(self._backoff.next_s())
            self._again(batch)
        elif len(batch) > 1:
            for pending in batch:
                await self._send([pending])
        else:
            _settle(batch[0], error.refusal())

    def _again(self, batch: list[Pending]) -> None:
        now = self._pacing.monotonic()
        for pending in reversed(batch):
            if pending.attempt.lease_until > now:
                self._waiting.appendleft(pending)
                self._news.set()
            elif not pending.answer.done():
                pending.answer.set_exception(LeaseOverError())


def _settle(pending: Pending, outcome: Answer) -> None:
    if not pending.answer.done():
        pending.answer.set_result(outcome)
