"""The marketplace without its stores: days of thousands of devices in seconds, by the real rules.

Keys, turns, matching, balancing, breaker, retries and verdicts are the platform's own functions;
devices, requesters, the referee and time are simulated. The same seed gives the same history.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import msgspec

from gstd.accounts.health import Circuit
from gstd.accounts.judging import trust_after
from gstd.accounts.model import DeviceActor
from gstd.dispatch.eligibility import conditions_of
from gstd.dispatch.matching import Asker, Balance, room_for
from gstd.dispatch.needs import TaskClass
from gstd.dispatch.pops import in_turn
from gstd.dispatch.queue import Candidate, Meeting, Running
from gstd.kernel.settings import Policy
from gstd.protocol.execution import Limits
from gstd.protocol.types import Asset, Tier
from gstd.protocol.work import OffersRequest
from gstd.tasks.model import (
    FAULTS,
    Attempt,
    AttemptState,
    Decision,
    RunState,
    TaskState,
    Verdict,
)
from gstd.tasks.order import ms_since_epoch, task_keys
from tests.unit.tasks.history import START, TRUTH, History

PROFILE = "a profile"
LOOP = asyncio.new_event_loop()
LIMITS = Limits(fuel=3_000_000_000, wall_ms=30_000)
SMALL, LARGE = 64 << 20, 1 << 30
REFEREE_S = 5.0
LOOK_S = 1.0
ASKING = 40
"""Devices whose request for offers waits in the process that looks."""


class Manner(StrEnum):
    """How a device behaves."""

    HONEST = "honest"
    SILENT = "silent"
    FAULTY = "faulty"
    LIAR = "liar"


class SimTask(History):
    """A task with its place in the queue and what it needs."""

    def __init__(
        self, number: int, level: int, quorum: int, memory: int, now: datetime, policy: Policy
    ) -> None:
        super().__init__(Tier.QUORUM if quorum > 1 else Tier.FULL, quorum, policy)
        self.now = now
        self.memory = memory
        deadline = now + timedelta(hours=6)
        self.task = msgspec.structs.replace(
            self.task, id=UUID(int=number), available_at=now, deadline=deadline
        )
        [self.key] = task_keys(
            level=level,
            count=1,
            lead_ms=0,
            deadline=deadline,
            limits=LIMITS,
            policy=policy,
            now=now,
        )

    def claim_by(self, device: DeviceActor, number: int) -> Attempt:
        """The device takes one of the wanted attempts."""
        attempt = self.claim()
        own = {"device_id": device.device_id, "account_id": device.account_id}
        self._replace(attempt, id=UUID(int=number), **own)
        return self.attempts[-1]

    def candidate(self) -> Candidate:
        """As a head of the queue."""
        return Candidate(
            task_id=self.task.id,
            job_id=self.task.job_id,
            class_id=self.memory,
            order_key=self.key,
            wanted=self.task.wanted,
            reward=self.task.reward,
            asset=Asset.TEST,
            module_hash=bytes(32),
            limits=LIMITS,
            profile=PROFILE,
            deadline=self.task.deadline,
        )


class SimDevice:
    """A device: what the platform knows of it, and what it really is."""

    def __init__(self, number: int, manner: Manner, memory: int, slots: int) -> None:
        self.manner = manner
        self.memory = memory
        self.slots = slots
        self.holds: dict[UUID, SimTask] = {}
        self.actor = DeviceActor(
            device_id=UUID(int=1_000_000 + number),
            account_id=UUID(int=2_000_000 + number // 2),
            name=f"device {number}",
            public_key="00" * 32,
            state="active",
            trust=500,
            quota=4,
        )

    def asker(self, policy: Policy) -> Asker:
        """As it waits for offers."""
        free = max(1, self.slots - len(self.holds))
        request = OffersRequest(profile=PROFILE, memory_bytes=self.memory, free=free)
        return Asker(
            device=self.actor,
            request=request,
            conditions=conditions_of(self.actor, request, policy),
            answer=asyncio.Future(loop=LOOP),
        )


class Simulation:
    """One marketplace."""

    def __init__(self, seed: int, devices: int, policy: Policy) -> None:
        self.policy = policy
        self.chance = random.Random(seed)  # noqa: S311 - a simulation
        self.now = START
        self.tasks: dict[UUID, SimTask] = {}
        self.devices = {
            device.actor.device_id: device for device in map(self._device, range(devices))
        }
        self.touched: list[SimTask] = []
        """The tasks that the last event was about."""

        self.paid: Counter[UUID] = Counter()
        self.granted_while_out = 0
        self._balance = Balance()
        self._ready: dict[UUID, SimTask] = {}
        self._popped = 0
        self._number = 10_000_000
        self._coming: list[tuple[datetime, int, Callable[[], None]]] = []
        self._classes = {memory: _needs(memory) for memory in (SMALL, LARGE)}

    def post(self, after_s: float) -> None:
        """A task comes after so long."""
        level = self.chance.choices(range(4), (1, 3, 4, 2))[0]
        quorum = self.chance.choice((1, 1, 2, 3))
        memory = self.chance.choice((SMALL, LARGE))

        def come() -> None:
            number = len(self.tasks) + 1
            made = SimTask(number, level, quorum, memory, self.now, self.policy)
            self.tasks[made.task.id] = made
            self._settled(made)

        self._at(after_s, come)

    def run(self) -> Iterator[None]:
        """Let everything happen, an event at a time."""
        self._at(LOOK_S, self._look)
        while self._coming:
            self.now, _, happen = heapq.heappop(self._coming)
            self.touched = []
            happen()
            yield
            if not self._coming and any(not task.is_final for task in self.tasks.values()):
                self._at(LOOK_S, self._look)

    @property
    def ready(self) -> set[UUID]:
        """Tasks that may be claimed now."""
        return set(self._ready)

    def _device(self, number: int) -> SimDevice:
        manner = self.chance.choices(list(Manner), (90, 3, 4, 3))[0]
        memory = self.chance.choice((SMALL, LARGE))
        return SimDevice(number, manner, memory, self.chance.randint(1, 4))

    def _at(self, after_s: float, happen: Callable[[], None]) -> None:
        self._number += 1
        when = self.now + timedelta(seconds=after_s)
        heapq.heappush(self._coming, (when, self._number, happen))

    def _settled(self, task: SimTask) -> None:
        """After anything happened to a task: its place in the queue, its referee, its end."""
        self.touched.append(task)
        self._ready.pop(task.task.id, None)
        if task.is_in(TaskState.QUEUED):
            wait_s = (task.task.available_at - self.now).total_seconds()
            if wait_s <= 0:
                self._ready[task.task.id] = task
            else:
                self._at(wait_s, lambda: self._tick(task))
        if task.run is not None and task.run.state is RunState.QUEUED:
            task.run = msgspec.structs.replace(task.run, state=RunState.RUNNING)
            self._at(REFEREE_S, lambda: self._know(task))

    def _tick(self, task: SimTask) -> None:
        task.now = self.now
        self._settled(task)

    def _know(self, task: SimTask) -> None:
        if not task.is_final:
            self._changed(task, lambda: task.referee(RunState.DONE))

    def _look(self) -> None:
        """What the matchmaker does for the devices that wait in one process."""
        idle = [device for device in self.devices.values() if self._asks(device)]
        waiting = self.chance.sample(idle, min(ASKING, len(idle)))
        askers = {device.asker(self.policy): device for device in waiting}
        running = {
            device.actor.device_id: Running(attempts=len(device.holds), is_silent=False)
            for device in waiting
        }
        room = room_for(list(askers), running, self.now)
        out = {asker for asker in askers if asker.device.circuit(self.now) is Circuit.OPEN}
        heads = [task.candidate() for task in self._ready.values()]
        turn = in_turn(heads, self._popped, self.policy.overdue_every, ms_since_epoch(self.now))
        matches = self._balance.match(
            turn, self._classes, list(askers), self._barred(), room, self.now
        )
        for candidate, asker in matches:
            self._popped += 1
            self.granted_while_out += asker in out and 2 * len(out) <= len(askers)
            self._grant(self.tasks[candidate.task_id], askers[asker])
        if self._coming:
            self._at(LOOK_S if self._ready else 30.0, self._look)

    def _asks(self, device: SimDevice) -> bool:
        """A silent device is gone once it has taken something; one that beats nobody hears."""
        is_gone = device.manner is Manner.SILENT and bool(device.holds)
        return not is_gone and device.actor.state == "active" and len(device.holds) < device.slots

    def _barred(self) -> set[Meeting]:
        found: set[Meeting] = set()
        since = self.now - timedelta(milliseconds=self.policy.same_device_after_ms)
        for task in self._ready.values():
            for attempt in task.attempts:
                if attempt.state not in {AttemptState.EXPIRED, AttemptState.RELEASED}:
                    found.add((task.task.id, attempt.account_id))
                elif attempt.decided_at and attempt.decided_at > since:
                    found.add((task.task.id, attempt.device_id))
        return found

    def _grant(self, task: SimTask, device: SimDevice) -> None:
        self._number += 1
        task.now = self.now
        attempt = task.claim_by(device.actor, self._number)
        device.holds[attempt.id] = task
        self._settled(task)
        run_s = self.chance.uniform(1, 30)
        if device.manner is Manner.SILENT:
            lease_s = self.policy.lease_ms / 1000
            self._at(lease_s, lambda: self._end(task, device, attempt, Verdict.LEASE_EXPIRED))
        elif device.manner is Manner.FAULTY:
            self._at(0.5, lambda: self._end(task, device, attempt, Verdict.HOST_FAULT))
        else:
            number = TRUTH + (device.manner is Manner.LIAR)
            self._at(run_s, lambda: self._submit(task, device, attempt, number))

    def _end(self, task: SimTask, device: SimDevice, attempt: Attempt, verdict: Verdict) -> None:
        del device.holds[attempt.id]
        if self._is_running(task, attempt):
            self._changed(task, lambda: task.end(attempt, verdict))
            if verdict in FAULTS:
                jitter = self.chance.random()
                device.actor = device.actor.failed(1, self.now, self.policy, jitter)

    def _submit(self, task: SimTask, device: SimDevice, attempt: Attempt, number: int) -> None:
        del device.holds[attempt.id]
        if self._is_running(task, attempt):
            self._changed(task, lambda: task.submit(attempt, number))

    def _is_running(self, task: SimTask, attempt: Attempt) -> bool:
        return any(
            item.id == attempt.id and item.state is AttemptState.RUNNING for item in task.attempts
        )

    def _changed(self, task: SimTask, change: Callable[[], None]) -> None:
        """A change of a task's rows, with what follows for its devices."""
        task.now = self.now
        before = len(task.steps)
        change()
        for step in task.steps[before:]:
            for decision in step.decisions:
                self._judge(decision)
        self._settled(task)

    def _judge(self, decision: Decision) -> None:
        device = self.devices[decision.attempt.device_id]
        accepted = int(decision.state is AttemptState.ACCEPTED)
        wrong = int(decision.verdict is Verdict.WRONG)
        trust = trust_after(device.actor.trust, accepted, wrong)
        is_lost = wrong and trust < self.policy.min_trust
        device.actor = msgspec.structs.replace(
            device.actor.succeeded(accepted, self.policy),
            trust=trust,
            state="suspended" if is_lost else device.actor.state,
        )
        self.paid[decision.attempt.id] += accepted


def _needs(memory: int) -> TaskClass:
    return TaskClass(
        id=memory,
        profile=PROFILE,
        module_hash=bytes(32),
        memory_bytes=memory,
        fuel=LIMITS.fuel,
        wall_ms=LIMITS.wall_ms,
        min_trust=0,
        reward=10,
        asset=Asset.TEST,
        pool_id=None,
    )
