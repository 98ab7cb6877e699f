"""What a worker tells about itself: events and counters, through a callback."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, StrEnum
from uuid import UUID

import msgspec
import structlog

from gstd.kernel.errors import GstdError, Refusal
from gstd.protocol.execution import Status
from gstd.protocol.types import Asset
from gstd.protocol.work import ReleaseReason, Submitted
from gstd.worker.attempts import Attempt

log = structlog.get_logger()


class ExitCode(IntEnum):
    """How a worker's process ends."""

    STOPPED = 0
    BARRED = 3
    NOT_ENROLLED = 4


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """Why a worker stopped, for the person who started it."""

    exit_code: ExitCode
    detail: str
    hint: str = ""


class Kind(StrEnum):
    """What happened to a worker."""

    IDLE = "idle"
    CLAIMED = "claimed"
    MISSED = "missed"
    SUBMITTED = "submitted"
    REFUSED = "refused"
    RELEASED = "released"
    LOST = "lost"
    TROUBLE = "trouble"
    STOPPING = "stopping"
    STOPPED = "stopped"


_QUIET = frozenset({Kind.IDLE, Kind.CLAIMED, Kind.MISSED, Kind.SUBMITTED})


class WorkerEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. ``code`` and ``hint`` come with what went wrong.

    ``state`` is the attempt's state that the platform answered to a submit: ``submitted`` while
    the verdict is open, ``accepted`` or ``rejected``.
    """

    kind: Kind
    text: str
    job_id: UUID | None = None
    task_id: UUID | None = None
    attempt_id: UUID | None = None
    reward_nano: int = 0
    asset: Asset | None = None
    status: Status | None = None
    fuel: int = 0
    state: str = ""
    code: str = ""
    hint: str = ""


class Counters(msgspec.Struct, kw_only=True):
    """Totals since the worker started.

    ``accepted`` and ``rejected`` count verdicts that were known when a submit was answered; the
    others come later, on the account. ``estimated_nano`` is what all submitted results earn if
    none of them is rejected.
    """

    running: int = 0
    claimed: int = 0
    missed: int = 0
    submitted: int = 0
    accepted: int = 0
    rejected: int = 0
    refused: int = 0
    released: int = 0
    lost: int = 0
    estimated_nano: dict[Asset, int] = {}


OnEvent = Callable[[WorkerEvent, Counters], None]
"""Called in the event loop with every event: it must be quick and must not raise."""


class Reporter:
    """Counts, logs and passes on what happens."""

    def __init__(self, on_event: OnEvent | None = None) -> None:
        self.counters = Counters()
        self._on_event = on_event
        self._last_idle: str | None = None

    def idle(self, why: str) -> None:
        """There is no work; said once until something changes."""
        if why != self._last_idle:
            self._last_idle = why
            self._emit(WorkerEvent(kind=Kind.IDLE, text=why))

    def claimed(self, attempt: Attempt) -> None:
        self._last_idle = None
        self.counters.claimed += 1
        self.counters.running += 1
        self._emit(_about(attempt, Kind.CLAIMED, "a task is claimed"))

    def missed(self, refusal: Refusal) -> None:
        """A claim was refused: mostly somebody else was quicker."""
        self.counters.missed += 1
        self._emit(
            WorkerEvent(kind=Kind.MISSED, text=refusal.detail, code=refusal.code, hint=refusal.hint)
        )

    def submitted(self, attempt: Attempt, answer: Submitted, status: Status, fuel: int) -> None:
        counters = self.counters
        counters.submitted += 1
        counters.accepted += answer.state == "accepted"
        if answer.state == "rejected":
            counters.rejected += 1
        else:
            earned = counters.estimated_nano.get(attempt.asset, 0) + attempt.reward_nano
            counters.estimated_nano[attempt.asset] = earned
        event = _about(attempt, Kind.SUBMITTED, f"the result is handed in: {answer.state}")
        self._emit(msgspec.structs.replace(event, state=answer.state, status=status, fuel=fuel))

    def refused(self, attempt: Attempt, refusal: Refusal) -> None:
        """The platform did not take a result."""
        self.counters.refused += 1
        event = _about(attempt, Kind.REFUSED, refusal.detail)
        self._emit(msgspec.structs.replace(event, code=refusal.code, hint=refusal.hint))

    def released(self, attempt: Attempt, reason: ReleaseReason, detail: str) -> None:
        """A task was given back."""
        self.counters.released += 1
        event = _about(attempt, Kind.RELEASED, detail or reason.value)
        self._emit(msgspec.structs.replace(event, code=reason.value))

    def lost(self, attempt: Attempt, why: str) -> None:
        """An attempt ended without this worker's doing."""
        self.counters.lost += 1
        self._emit(_about(attempt, Kind.LOST, why))

    def ended(self) -> None:
        """An attempt left its slot, in whatever way."""
        self.counters.running -= 1

    def trouble(self, error: GstdError) -> None:
        """Something went wrong that the worker tries again."""
        self._last_idle = None
        self._emit(
            WorkerEvent(kind=Kind.TROUBLE, text=error.detail, code=error.code, hint=error.advice)
        )

    def stopping(self) -> None:
        self._emit(WorkerEvent(kind=Kind.STOPPING, text="no new tasks; giving running ones back"))

    def stopped(self, ending: Ending) -> None:
        self._emit(WorkerEvent(kind=Kind.STOPPED, text=ending.detail, hint=ending.hint))

    def _emit(self, event: WorkerEvent) -> None:
        note = log.debug if event.kind in _QUIET else log.warning
        attempt = None if event.attempt_id is None else str(event.attempt_id)
        note(f"worker_{event.kind}", text=event.text, code=event.code or None, attempt_id=attempt)
        if self._on_event is not None:
            self._on_event(event, self.counters)


def _about(attempt: Attempt, kind: Kind, text: str) -> WorkerEvent:
    return WorkerEvent(
        kind=kind,
        text=text,
        job_id=attempt.job_id,
        task_id=attempt.claimed.task_id,
        attempt_id=attempt.id,
        reward_nano=attempt.reward_nano,
        asset=attempt.asset,
    )
