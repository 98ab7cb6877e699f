"""Messages between a requester and the platform: modules, jobs, tasks and their results."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from gstd.protocol.execution import Limits, Status, TaskInput
from gstd.protocol.graphs import Feed, JobAfter, JobInput, OnFailure, ParentView
from gstd.protocol.types import Asset, HexHash, Name, Nano, Priority, Text, Tier

MAX_RANGE = 10_000_000
MAX_LISTED_INPUTS = 100_000
MAX_PARENT_JOBS = 64
MAX_GRAPH_JOBS = 1_000


class ModuleView(msgspec.Struct, frozen=True, kw_only=True):
    """An uploaded module. ``id`` is the SHA-256 of its bytes."""

    id: HexHash
    metered_hash: HexHash
    name: str
    size: int
    imports: list[str]
    exports: list[str]
    memory_min_pages: int
    memory_max_pages: int | None
    functions: int
    profile: str
    uploaded_at: datetime


class ExecuteRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Run a module once on the platform, free of charge and within the trial limits."""

    input: TaskInput = TaskInput()
    limits: Limits | None = None


class ExecuteResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What the run did, and the result hash a device would have signed for it."""

    status: Status
    exit_code: int
    fuel: int
    stdout: bytes
    stderr: str
    result_hash: HexHash
    profile: str
    wall_ms: int


class InputRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``count`` inputs whose ``args`` contain ``{index}``, which counts up from ``start``."""

    count: Annotated[int, Meta(ge=1, le=MAX_RANGE)]
    start: Annotated[int, Meta(ge=0, le=2**53)] = 0
    args: Annotated[tuple[Text, ...], Meta(max_length=64)] = ("{index}",)
    stdin: bytes = b""

    def input_at(self, index: int, seed: int) -> TaskInput:
        """The input of the task with this index, 0-based."""
        value = str(self.start + index)
        args = tuple(arg.replace("{index}", value) for arg in self.args)
        return TaskInput(args=args, stdin=self.stdin, seed=seed)


class JobRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A module mapped over inputs: exactly one of ``inputs`` and ``range``.

    ``reward_nano`` is what a worker receives per accepted result. ``deadline`` must lie in the
    future; without one the job expires after the platform's longest job life. Devices below
    ``min_trust`` do not get its tasks, and with a ``pool`` only devices of its members do.

    ``after`` names jobs to wait for; the tasks of one with edges are ``blocked`` until what they
    wait for is proved or agreed. ``feed`` says how they get its outputs, ``on_failure`` what
    happens when there will be none.
    """

    module: HexHash
    reward_nano: Nano
    name: Name = "job"
    inputs: Annotated[list[JobInput], Meta(min_length=1, max_length=MAX_LISTED_INPUTS)] | None = (
        None
    )
    range: InputRange | None = None
    asset: Asset = Asset.GSTD
    tier: Tier = Tier.FULL
    quorum: Annotated[int, Meta(ge=2, le=5)] = 2
    priority: Priority = Priority.NORMAL
    deadline: datetime | None = None
    limits: Limits = Limits()
    min_trust: Annotated[int, Meta(ge=0, le=1000)] = 0
    pool: UUID | None = None
    after: Annotated[tuple[JobAfter, ...], Meta(max_length=MAX_PARENT_JOBS)] = ()
    feed: Feed = Feed.CONCAT
    on_failure: OnFailure = OnFailure.STOP


class GraphRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Jobs that wait for one another by name. All of them are posted, or none."""

    jobs: Annotated[list[JobRequest], Meta(min_length=1, max_length=MAX_GRAPH_JOBS)]


class RerunRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Run again what a job has no result for; what is null stays as it was."""

    reward_nano: Nano | None = None
    deadline: datetime | None = None


class OrderChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another priority or deadline for what has not ended; what is null stays as it is."""

    priority: Priority | None = None
    deadline: datetime | None = None


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """What a job locks. What is not paid out or run comes back.

    ``copies`` is the largest number of accepted results one task can pay for.
    """

    tasks: int
    copies: int
    reward_nano: Nano
    fee_nano: Nano
    referee_nano: Nano
    task_nano: Nano
    total_nano: Nano
    asset: Asset


class JobCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks by state; ``queued`` includes tasks whose rows are not made yet.

    ``paid`` counts accepted tasks all of whose earnings have vested, ``rejected_results`` results
    that were found wrong.
    """

    tasks: int = 0
    blocked: int = 0
    queued: int = 0
    running: int = 0
    verifying: int = 0
    accepted: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    paid: int = 0
    rejected_results: int = 0


class JobMoney(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job's money is: funded + restored = released + fee + referee + refunded + locked.

    ``restored`` came from restitution; ``frozen``, a part of locked, waits for a ruling.
    """

    funded_nano: Nano
    restored_nano: Nano
    released_nano: Nano
    fee_nano: Nano
    referee_nano: Nano
    refunded_nano: Nano
    locked_nano: Nano
    frozen_nano: Nano


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    name: str
    state: str
    reason: str
    module: HexHash
    tier: Tier
    quorum: int
    priority: Priority
    asset: Asset
    limits: Limits
    profile: str
    quote: Quote
    counts: JobCounts
    money: JobMoney
    created_at: datetime
    deadline: datetime
    closed_at: datetime | None
    min_trust: int = 0
    pool: UUID | None = None
    after: list[ParentView] = []
    feed: Feed = Feed.CONCAT
    on_failure: OnFailure = OnFailure.STOP
    rerun_of: UUID | None = None
    """The job whose indexes this one repeats; their results complete each other."""


class JobSummary(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    name: str
    state: str
    module: HexHash
    tier: Tier
    tasks: int
    total_nano: Nano
    asset: Asset
    created_at: datetime
    closed_at: datetime | None


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first. Pass ``next`` as ``before`` to go on; null means the end."""

    items: list[JobSummary]
    next: UUID | None


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One device's try at a task, with the verdict and what it earned."""

    id: UUID
    device_id: UUID
    device_name: str
    revision: int
    state: str
    verdict: str | None
    reason: str | None
    claimed_at: datetime
    submitted_at: datetime | None
    decided_at: datetime | None
    status: Status | None
    fuel: int | None
    result_hash: str | None
    earned_nano: Nano | None
    earning_state: str | None


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task. ``reason`` says in words what it waits for or why it ended."""

    id: UUID
    job_id: UUID
    index: int
    state: str
    reason: str
    revision: int
    retries: int
    priority: Priority
    deadline: datetime
    available_at: datetime
    attempts: list[AttemptView]


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a task. ``position`` is where the audit log has it.

    Offers and heartbeats are not in the log: an offer's time is in its identifier, and of
    heartbeats the attempt keeps the last and their number.
    """

    at: datetime
    kind: str
    words: str
    attempt_id: UUID | None = None
    device_name: str | None = None
    position: int | None = None


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """A task's whole story so far, in order of time."""

    task: TaskView
    moments: list[Moment]


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted task's result. ``output`` is null when the page asked for none."""

    task_id: UUID
    index: int
    status: Status
    exit_code: int
    fuel: int
    output_hash: HexHash
    output_bytes: int
    result_hash: HexHash
    output: bytes | None = None


class ResultPage(msgspec.Struct, frozen=True, kw_only=True):
    """In order of index. Pass ``next`` as ``after`` to go on; null means the end for now."""

    items: list[TaskResult]
    next: int | None


class DeviceShare(msgspec.Struct, frozen=True, kw_only=True):
    """What one device did for a job and what it earned by it."""

    device_id: UUID
    device_name: str
    state: str
    trust: int
    accepted: int
    rejected: int
    held_nano: Nano
    vested_nano: Nano
