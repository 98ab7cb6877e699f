"""How many slots the work needs, and how a pool of workers follows that without flapping.

Pure rules. The signal rests on Little's law, ``L = λ·S`` (J. D. C. Little, "A Proof for the Queuing
Formula L = λW", Operations Research 9(3), 1961): work that arrives at rate λ and takes S on average
keeps λ·S slots busy. It holds for averages whatever their distribution, so S is a mean.
"""

from __future__ import annotations

import math
from collections import deque

import msgspec

from gstd.kernel.settings import Policy
from gstd.protocol.autoscale import AutoscaleSignal


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What the platform has to do now, in attempts.

    ``backlog`` counts what devices could claim if there were more of them, ``arrived`` what was
    posted within ``autoscale_arrivals_s``, ``running`` what devices hold. ``service_s`` is how long
    one took a slot lately, on average: its proof of work, and from claim to submit; ``None`` before
    anything was submitted.
    """

    backlog: int
    arrived: int
    service_s: float | None
    running: int


def desired_slots(
    *, arrival_per_s: float, service_s: float, backlog: int, running: int, policy: Policy
) -> int:
    """Slots that keep up with arrivals and work the backlog off within the target wait.

    The larger of Little's ``λ·S / utilisation`` and ``backlog·S / target wait``, rounded up, at
    least what runs (taking a slot away would interrupt it), at most ``autoscale_max_slots``.
    """
    keep_up = arrival_per_s * service_s * 100 / policy.autoscale_utilisation_percent
    work_off = backlog * service_s / policy.autoscale_target_wait_s
    needed = min(max(keep_up, work_off), float(policy.autoscale_max_slots))
    return min(max(math.ceil(needed), running), policy.autoscale_max_slots)


def signal_of(load: Load, online_devices: int, policy: Policy) -> AutoscaleSignal:
    """The signal of a load. ``online_devices`` is how many devices were heard of lately."""
    arrival_per_s = load.arrived / policy.autoscale_arrivals_s
    service_s = policy.autoscale_service_ms / 1000 if load.service_s is None else load.service_s
    desired = desired_slots(
        arrival_per_s=arrival_per_s,
        service_s=service_s,
        backlog=load.backlog,
        running=load.running,
        policy=policy,
    )
    serving = max(load.running, online_devices)  # an idle device has one free slot at least
    return AutoscaleSignal(
        desired_slots=desired,
        backlog=load.backlog,
        arrival_per_s=round(arrival_per_s, 3),
        service_s=round(service_s, 3),
        running=load.running,
        online_devices=online_devices,
        expected_wait_s=_wait_s(load.backlog, service_s, serving),
        words=_words(load, arrival_per_s, service_s, desired),
    )


def _wait_s(backlog: int, service_s: float, serving: int) -> float | None:
    if backlog == 0:
        return 0.0
    return round(backlog * service_s / serving, 3) if serving else None


def _words(load: Load, arrival_per_s: float, service_s: float, desired: int) -> str:
    if desired == 0:
        return "nothing waits, runs or arrives: no slots are needed"
    return (
        f"{load.backlog} attempts wait, {load.running} run, {arrival_per_s:.2g} arrive per second "
        f"and take {service_s:.2g} s each: {desired} slots are needed"
    )


class Sizing(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool does next: how many workers it should have, and why."""

    workers: int
    words: str


class Pool:
    """The size of a pool: up at once, down only when a whole window needed less.

    A short pause in the work therefore stops nobody, and what comes in waves keeps the workers of
    its highest wave. One look starts or stops at most ``step`` workers. It never goes below
    ``minimum`` or above ``maximum``; with a minimum of zero it ends all workers once a whole window
    needed none.
    """

    def __init__(self, *, minimum: int, maximum: int, step: int, window_s: float) -> None:
        if not 0 <= minimum <= maximum or maximum < 1 or step < 1:
            raise ValueError("a pool needs 0 <= minimum <= maximum, 1 <= maximum and 1 <= step")
        self._minimum = minimum
        self._maximum = maximum
        self._step = step
        self._window_s = window_s
        self._recent: deque[tuple[float, int]] = deque()
        self.workers = minimum

    def decide(self, needed: int, now_s: float) -> Sizing:
        """Take a recommendation of ``needed`` workers at ``now_s``, which never goes back."""
        wanted = min(max(needed, self._minimum), self._maximum)
        self._recent.append((now_s, wanted))
        while self._recent[0][0] <= now_s - self._window_s:
            self._recent.popleft()
        highest = max(workers for _, workers in self._recent)
        before = self.workers
        if wanted > before:
            self.workers = min(wanted, before + self._step)
        elif highest < before:
            self.workers = max(highest, before - self._step)
        return Sizing(workers=self.workers, words=self._reason(before, needed, highest))

    def _reason(self, before: int, needed: int, highest: int) -> str:
        if self.workers > before:
            return f"growing from {before} to {self.workers}: {needed} needed now"
        if self.workers < before:
            return (
                f"shrinking from {before} to {self.workers}: "
                f"at most {highest} needed for {self._window_s:g} s"
            )
        if needed > self._maximum:
            return f"staying at {before}, the maximum: {needed} needed now"
        if needed < before > self._minimum:
            return f"staying at {before}: {highest} were needed within {self._window_s:g} s"
        return f"staying at {before}: {needed} needed now"


def workers_for(desired: int, *, slots: int, share: float) -> int:
    """Workers of ``slots`` slots each that give this share (0 to 1) of the desired slots."""
    return math.ceil(desired * share / slots)
