"""Heartbeats: one call for all attempts, three times per lease."""

from __future__ import annotations

from gstd.protocol.work import Alive
from gstd.sdk.device import DeviceClient
from gstd.sdk.errors import SdkError
from gstd.sdk.pacing import Pacing
from gstd.worker.attempts import Board
from gstd.worker.errors import is_fatal
from gstd.worker.status import Reporter

BEATS_PER_LEASE = 3


class Heart:
    """Keeps leases alive and ends runs whose attempt is over."""

    def __init__(
        self, client: DeviceClient, board: Board, reporter: Reporter, pacing: Pacing
    ) -> None:
        self._client = client
        self._board = board
        self._reporter = reporter
        self._pacing = pacing

    async def run(self) -> None:
        """Beat for ever. Raises ``ApiError`` when the device may not work any more."""
        while True:
            await self._board.occupied()
            shortest_s = min(attempt.lease_s for attempt in self._board)
            await self._pacing.sleep(shortest_s / BEATS_PER_LEASE)
            await self.beat()

    async def beat(self) -> None:
        """One heartbeat for everything that is held."""
        held = list(self._board)
        if not held:
            return
        sent_at = self._pacing.monotonic()
        try:
            outcomes = await self._client.heartbeats([attempt.id for attempt in held])
        except SdkError as error:
            if is_fatal(error):
                raise
            self._reporter.trouble(error)
        else:
            for attempt, outcome in zip(held, outcomes, strict=True):
                if isinstance(outcome, Alive):
                    attempt.extend(sent_at, outcome.lease_ms)
                else:
                    attempt.lose(outcome.detail)
        for attempt in held:
            if attempt.lease_until <= self._pacing.monotonic():
                attempt.lose("its lease ended while the platform could not be reached")
