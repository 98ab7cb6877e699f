"""The life of a task as pure rules: what its attempts so far mean for its state and money.

``next_state`` looks at all attempts of the present revision and says what should be. It derives
everything from them and remembers nothing, so it may be asked any number of times.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import msgspec

from gstd.kernel.settings import Policy
from gstd.protocol.types import Tier


class TaskState(StrEnum):
    """Where a task is; the last four are final."""

    BLOCKED = "blocked"
    QUEUED = "queued"
    RUNNING = "running"
    VERIFYING = "verifying"
    ACCEPTED = "accepted"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


FINAL_STATES = frozenset(
    {TaskState.ACCEPTED, TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED}
)


class AttemptState(StrEnum):
    """Where an attempt is; only the first two are not final."""

    RUNNING = "running"
    SUBMITTED = "submitted"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    EXPIRED = "expired"
    RELEASED = "released"
    CANCELLED = "cancelled"


class Verdict(StrEnum):
    """What was decided about an attempt."""

    PROVED = "proved"
    AGREED = "agreed"
    WRONG = "wrong"
    UNPROVEN = "unproven"
    LEASE_EXPIRED = "lease_expired"
    DEVICE_BARRED = "device_barred"
    HOST_FAULT = "host_fault"
    WALL_CLOCK = "wall_clock"
    SHUTTING_DOWN = "shutting_down"
    DECLINED = "declined"
    TASK_ENDED = "task_ended"


FAULTS = frozenset({Verdict.LEASE_EXPIRED, Verdict.HOST_FAULT, Verdict.WALL_CLOCK})
"""How an attempt may end that uses up one of the task's retries."""


class RunState(StrEnum):
    """Where a referee run is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a run produced, by hashes."""

    result_hash: bytes
    status: str
    exit_code: int
    fuel: int
    output_hash: bytes
    output_bytes: int


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One device's try, as far as the rules need it."""

    id: UUID
    device_id: UUID
    account_id: UUID
    state: AttemptState
    verdict: Verdict | None
    decided_at: datetime | None
    result: Result | None
    claimed_at: datetime | None = None
    submitted_at: datetime | None = None

    @property
    def run_ms(self) -> int:
        """From the claim to the result by the platform's clock; 0 without a result."""
        if self.claimed_at is None or self.submitted_at is None:
            return 0
        return (self.submitted_at - self.claimed_at) // timedelta(milliseconds=1)


class RefereeRun(msgspec.Struct, frozen=True, kw_only=True):
    """The platform's own run of the task's work. ``asked_by`` is the task that pays for it."""

    id: UUID
    state: RunState
    asked_by: UUID
    result: Result | None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task with what its job says about it. Amounts in nano."""

    id: UUID
    job_id: UUID
    owner: UUID
    state: TaskState
    wanted: int
    retries: int
    reason: str
    revision: int
    available_at: datetime
    deadline: datetime
    cancelled: bool
    idle: bool
    tier: Tier
    quorum: int
    reward: int
    fee: int


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt ends."""

    attempt: Attempt
    state: AttemptState
    verdict: Verdict


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What should be of a task now. ``result`` is what is delivered once it is accepted."""

    state: TaskState
    reason: str
    wanted: int = 0
    retries: int = 0
    available_at: datetime | None = None
    result: Result | None = None
    decisions: tuple[Decision, ...] = ()
    needs_referee: bool = False

    @property
    def is_final(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def accepted(self) -> list[Decision]:
        """The attempts that are paid."""
        return [item for item in self.decisions if item.state is AttemptState.ACCEPTED]

    @property
    def is_proven(self) -> bool:
        """Whether other tasks may build on the result: it is the referee's, or was agreed on."""
        verdicts = {item.verdict for item in self.accepted}
        return self.state is TaskState.ACCEPTED and verdicts <= {Verdict.PROVED, Verdict.AGREED}


def next_state(
    task: Task, attempts: Sequence[Attempt], run: RefereeRun | None, policy: Policy, now: datetime
) -> Step | None:
    """What follows from the attempts of the task's present revision; ``None`` for a final task.

    What opens a blocked task is not its attempts: see ``edges``.
    """
    if task.state in FINAL_STATES:
        return None
    if task.state is TaskState.BLOCKED:
        return _end(attempts, *_closing_state(task), []) if is_closing(task, now) else None
    submitted = [item for item in attempts if item.state is AttemptState.SUBMITTED]
    if run is not None and run.state is RunState.DONE:
        assert run.result is not None
        return _judge_by_truth(task, attempts, run.result, policy, now)
    agreed = _agreeing(submitted, task.quorum) if task.tier is Tier.QUORUM else None
    if agreed:
        return _accept(task, attempts, agreed, Verdict.AGREED)
    if submitted and _must_ask_referee(task, attempts, policy, now):
        if run is not None and run.state is RunState.FAILED:
            return _end(attempts, TaskState.FAILED, "the referee could not run it", submitted)
        return Step(
            state=TaskState.VERIFYING,
            reason="waiting for the referee to run it again",
            retries=_faults(attempts),
            needs_referee=True,
        )
    return _go_on(task, attempts, needed=task.quorum, policy=policy, now=now)


def _judge_by_truth(
    task: Task, attempts: Sequence[Attempt], truth: Result, policy: Policy, now: datetime
) -> Step:
    """The referee's result is known: matching attempts are right, others proved wrong."""
    submitted = [item for item in attempts if item.state is AttemptState.SUBMITTED]
    right = [item for item in submitted if _hash(item) == truth.result_hash]
    if right:
        return _accept(task, attempts, right, Verdict.PROVED)
    wrong = [_decide(item, AttemptState.REJECTED, Verdict.WRONG) for item in submitted]
    lies = len(wrong) + sum(item.verdict is Verdict.WRONG for item in attempts)
    if lies >= policy.max_wrong_results or (lies and is_closing(task, now)):
        return Step(
            state=TaskState.ACCEPTED,
            reason="every result was proved wrong: the referee's is delivered, the reward refunded",
            retries=_faults(attempts),
            result=truth,
            decisions=(*wrong, *_drop_running(attempts)),
        )
    left = [item for item in attempts if item not in submitted]
    step = _go_on(task, left, needed=1, policy=policy, now=now)
    return msgspec.structs.replace(step, decisions=(*wrong, *step.decisions))


def _go_on(
    task: Task, attempts: Sequence[Attempt], *, needed: int, policy: Policy, now: datetime
) -> Step:
    """No verdict is due: end what is over, else ask for as many attempts as are missing."""
    running = [item for item in attempts if item.state is AttemptState.RUNNING]
    submitted = [item for item in attempts if item.state is AttemptState.SUBMITTED]
    faults = _faults(attempts)
    if not submitted and is_closing(task, now):
        return _end(attempts, *_closing_state(task), [])
    if faults > policy.max_retries and not running and not submitted:
        return _end(attempts, TaskState.FAILED, f"{faults} attempts failed", [])
    in_favour = max(map(len, _by_hash(submitted).values()), default=0)
    wanted = max(0, needed - in_favour - len(running))
    if faults > policy.max_retries or (submitted and is_closing(task, now)):
        wanted = 0
    if wanted:
        state, words = TaskState.QUEUED, _queued_words(faults, in_favour, needed)
    elif running:
        state, words = TaskState.RUNNING, "running on a device"
    else:
        state, words = TaskState.VERIFYING, "comparing results"
    return Step(
        state=state,
        reason=words,
        wanted=wanted,
        retries=faults,
        available_at=_available_at(attempts, policy),
    )


def _must_ask_referee(
    task: Task, attempts: Sequence[Attempt], policy: Policy, now: datetime
) -> bool:
    """Tier ``full`` always; a quorum when it is split beyond hope or nobody else will come."""
    if task.tier is Tier.FULL:
        return True
    submitted = [item for item in attempts if item.state is AttemptState.SUBMITTED]
    running = [item for item in attempts if item.state is AttemptState.RUNNING]
    if running:
        return False
    is_split = len(submitted) >= 2 * task.quorum - 1
    return is_split or is_closing(task, now) or _faults(attempts) > policy.max_retries


def _accept(
    task: Task, attempts: Sequence[Attempt], right: Sequence[Attempt], verdict: Verdict
) -> Step:
    """The right attempts are paid, as many as the escrow locked for; other results are wrong."""
    result = right[0].result
    assert result is not None
    paid = sorted(right, key=lambda item: item.id)[: task.quorum]
    others = [
        _decide(item, AttemptState.REJECTED, Verdict.WRONG)
        for item in attempts
        if item.state is AttemptState.SUBMITTED and item not in right
    ]
    words = "proved by the referee" if verdict is Verdict.PROVED else "independent results agree"
    return Step(
        state=TaskState.ACCEPTED,
        reason=words,
        retries=_faults(attempts),
        result=result,
        decisions=(
            *(_decide(item, AttemptState.ACCEPTED, verdict) for item in paid),
            *others,
            *_drop_running(attempts),
        ),
    )


def _end(
    attempts: Sequence[Attempt],
    state: TaskState,
    reason: str,
    unproven: Iterable[Attempt],
) -> Step:
    """The task ends without a result; nobody is blamed for what could not be proved."""
    return Step(
        state=state,
        reason=reason,
        retries=_faults(attempts),
        decisions=(
            *(_decide(item, AttemptState.REJECTED, Verdict.UNPROVEN) for item in unproven),
            *_drop_running(attempts),
        ),
    )


def _drop_running(attempts: Sequence[Attempt]) -> list[Decision]:
    return [
        _decide(item, AttemptState.CANCELLED, Verdict.TASK_ENDED)
        for item in attempts
        if item.state is AttemptState.RUNNING
    ]


def _decide(attempt: Attempt, state: AttemptState, verdict: Verdict) -> Decision:
    return Decision(attempt=attempt, state=state, verdict=verdict)


def _agreeing(submitted: Sequence[Attempt], quorum: int) -> list[Attempt] | None:
    """The results of the one group that is large enough."""
    return next((group for group in _by_hash(submitted).values() if len(group) >= quorum), None)


def _by_hash(submitted: Sequence[Attempt]) -> dict[bytes, list[Attempt]]:
    groups: dict[bytes, list[Attempt]] = defaultdict(list)
    for item in submitted:
        groups[_hash(item)].append(item)
    return groups


def _hash(attempt: Attempt) -> bytes:
    assert attempt.result is not None, "a submitted attempt has its result"
    return attempt.result.result_hash


def _faults(attempts: Sequence[Attempt]) -> int:
    return sum(item.verdict in FAULTS for item in attempts)


def is_closing(task: Task, now: datetime) -> bool:
    """Whether the task ends unless a result is being verified."""
    return task.cancelled or task.idle or task.deadline <= now


def _closing_state(task: Task) -> tuple[TaskState, str]:
    if task.cancelled:
        return TaskState.CANCELLED, "cancelled by its requester"
    if task.idle:
        return TaskState.EXPIRED, "nothing happened to its job for too long"
    return TaskState.EXPIRED, "its deadline passed"


def _available_at(attempts: Sequence[Attempt], policy: Policy) -> datetime | None:
    """The last fault's time plus the delay of that retry; ``None`` without faults.

    Up to a fifth later, by the attempt's id, so that tasks that failed together come back apart
    and every look gives the same time.
    """
    ends = sorted(
        (item.decided_at, item.id)
        for item in attempts
        if item.verdict in FAULTS and item.decided_at
    )
    if not ends or not policy.retry_delays_ms:
        return None
    ended_at, attempt_id = ends[-1]
    delay_ms = policy.retry_delays_ms[min(len(ends), len(policy.retry_delays_ms)) - 1]
    per_mille = 1000 + attempt_id.int % 201
    return ended_at + timedelta(milliseconds=delay_ms * per_mille // 1000)


def _queued_words(faults: int, in_favour: int, needed: int) -> str:
    if in_favour:
        return f"waiting for another device to confirm ({in_favour} of {needed})"
    if faults:
        return f"waiting for another device after {faults} failed attempts"
    return "waiting for a device"
