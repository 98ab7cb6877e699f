"""One task in memory: events as a database would record them, steps applied as ``advance`` does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from gstd.kernel.settings import Policy
from gstd.protocol.types import Tier
from gstd.tasks.model import (
    Attempt,
    AttemptState,
    RefereeRun,
    Result,
    RunState,
    Step,
    Task,
    TaskState,
    Verdict,
    next_state,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(max_wrong_results=3)
TRUTH = 0
OPEN = (AttemptState.RUNNING, AttemptState.SUBMITTED)


def result(number: int) -> Result:
    """The result with this number; equal numbers are equal results."""
    return Result(
        result_hash=bytes([number]) * 32,
        status="ok",
        exit_code=0,
        fuel=1,
        output_hash=bytes([number]) * 32,
        output_bytes=1,
    )


class History:
    """A task and all that happens to it. Every event is followed by what ``next_state`` says."""

    def __init__(self, tier: Tier, quorum: int, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.now = START
        self.task = Task(
            id=UUID(int=1),
            job_id=UUID(int=2),
            owner=UUID(int=3),
            state=TaskState.QUEUED,
            wanted=quorum,
            retries=0,
            reason="waiting for a device",
            revision=0,
            available_at=START,
            deadline=START + timedelta(hours=1),
            cancelled=False,
            idle=False,
            tier=tier,
            quorum=quorum,
            reward=10,
            fee=1,
        )
        self.attempts: list[Attempt] = []
        self.run: RefereeRun | None = None
        self.steps: list[Step] = []

    def of(self, *states: AttemptState) -> list[Attempt]:
        """Attempts in one of these states."""
        return [item for item in self.attempts if item.state in states]

    def with_verdict(self, *verdicts: Verdict) -> list[Attempt]:
        """Attempts that ended so."""
        return [item for item in self.attempts if item.verdict in verdicts]

    def is_in(self, state: TaskState) -> bool:
        """Whether the task is in this state now."""
        return self.task.state is state

    @property
    def is_final(self) -> bool:
        return bool(self.steps) and self.steps[-1].is_final

    @property
    def can_be_claimed(self) -> bool:
        return (
            self.task.wanted > 0
            and self.task.available_at <= self.now
            and self.now < self.task.deadline
        )

    def claim(self) -> Attempt:
        """A new device takes one of the wanted attempts, as the guarded update does."""
        number = len(self.attempts)
        attempt = Attempt(
            id=UUID(int=1000 + number),
            device_id=UUID(int=2000 + number),
            account_id=UUID(int=3000 + number),
            state=AttemptState.RUNNING,
            verdict=None,
            decided_at=None,
            result=None,
        )
        self.attempts.append(attempt)
        wanted = self.task.wanted - 1
        state, reason = self.task.state, self.task.reason
        if wanted == 0:
            state, reason = TaskState.RUNNING, "running on a device"
        self.task = msgspec.structs.replace(self.task, wanted=wanted, state=state, reason=reason)
        return attempt

    def _replace(self, attempt: Attempt, **changes: object) -> None:
        position = next(i for i, item in enumerate(self.attempts) if item.id == attempt.id)
        self.attempts[position] = msgspec.structs.replace(self.attempts[position], **changes)

    def submit(self, attempt: Attempt, number: int) -> None:
        self._replace(attempt, state=AttemptState.SUBMITTED, result=result(number))
        self.settle()

    def end(self, attempt: Attempt, verdict: Verdict) -> None:
        """The attempt ends without a result."""
        is_expiry = verdict in {Verdict.LEASE_EXPIRED, Verdict.DEVICE_BARRED}
        state = AttemptState.EXPIRED if is_expiry else AttemptState.RELEASED
        self._replace(attempt, state=state, verdict=verdict, decided_at=self.now)
        self.settle()

    def cancel(self) -> None:
        self.task = msgspec.structs.replace(self.task, cancelled=True)
        self.settle()

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.settle()

    def referee(self, state: RunState) -> None:
        """The run that was asked for ends."""
        assert self.run is not None
        done = result(TRUTH) if state is RunState.DONE else None
        self.run = msgspec.structs.replace(self.run, state=state, result=done)
        self.settle()

    def know(self, state: RunState) -> None:
        """The same work was run for another task."""
        self.run = RefereeRun(
            id=UUID(int=9), state=RunState.QUEUED, asked_by=UUID(int=8), result=None
        )
        self.referee(state)

    def ask(self) -> Step | None:
        """What follows from the present rows."""
        return next_state(self.task, self.attempts, self.run, self.policy, self.now)

    def settle(self) -> None:
        """Apply what follows, and the referee that it asks for."""
        step = self.ask()
        if step is None:
            return
        if step.needs_referee and self.run is None:
            self.run = RefereeRun(
                id=UUID(int=9), state=RunState.QUEUED, asked_by=self.task.id, result=None
            )
        self.task = msgspec.structs.replace(
            self.task,
            state=step.state,
            wanted=step.wanted,
            retries=step.retries,
            reason=step.reason,
            available_at=step.available_at or self.task.available_at,
        )
        for item in step.decisions:
            self._replace(item.attempt, state=item.state, verdict=item.verdict, decided_at=self.now)
        self.steps.append(step)

    def in_favour(self) -> int:
        """The largest number of equal results that are not decided yet."""
        hashes = [
            item.result.result_hash for item in self.of(AttemptState.SUBMITTED) if item.result
        ]
        return max(map(hashes.count, hashes), default=0)


def numbers(attempts: Sequence[Attempt]) -> list[int]:
    """The result numbers of attempts that have a result."""
    return [item.result.result_hash[0] for item in attempts if item.result is not None]
