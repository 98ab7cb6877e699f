"""Random lives of one task: what must hold after every event, and where every life ends."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gstd.protocol.types import Tier
from gstd.tasks.model import (
    FAULTS,
    AttemptState,
    RunState,
    Step,
    TaskState,
    Verdict,
)
from tests.unit.tasks.history import OPEN, POLICY, TRUTH, History, numbers

SCALE = int(os.environ.get("GSTD_TEST_SCALE", "1"))
DELAYS = [timedelta(milliseconds=delay) for delay in POLICY.retry_delays_ms]

ENDS = [
    Verdict.LEASE_EXPIRED,
    Verdict.DEVICE_BARRED,
    Verdict.HOST_FAULT,
    Verdict.WALL_CLOCK,
    Verdict.SHUTTING_DOWN,
    Verdict.DECLINED,
]


class Life(RuleBasedStateMachine):
    """Devices that claim, answer, lie, fail and leave; a requester, a clock and a referee."""

    history: History

    @initialize(kind=st.sampled_from([(Tier.FULL, 1), (Tier.QUORUM, 2), (Tier.QUORUM, 3)]))
    def post(self, kind: tuple[Tier, int]) -> None:
        self.history = History(*kind)

    @property
    def live(self) -> bool:
        return not self.history.is_final

    @precondition(lambda self: self.history.can_be_claimed)
    @rule()
    def claim(self) -> None:
        self.history.claim()

    @precondition(lambda self: self.history.of(AttemptState.RUNNING))
    @rule(number=st.sampled_from([TRUTH, TRUTH, 1, 2, 3]), data=st.data())
    def submit(self, number: int, data: st.DataObject) -> None:
        running = self.history.of(AttemptState.RUNNING)
        self.history.submit(data.draw(st.sampled_from(running)), number)

    @precondition(lambda self: self.history.of(AttemptState.RUNNING))
    @rule(verdict=st.sampled_from(ENDS), data=st.data())
    def end(self, verdict: Verdict, data: st.DataObject) -> None:
        running = self.history.of(AttemptState.RUNNING)
        self.history.end(data.draw(st.sampled_from(running)), verdict)

    @precondition(lambda self: self.history.run and self.history.run.state is RunState.QUEUED)
    @rule(state=st.sampled_from([RunState.DONE, RunState.DONE, RunState.FAILED]))
    def referee(self, state: RunState) -> None:
        self.history.referee(state)

    @precondition(lambda self: self.history.run is None)
    @rule(state=st.sampled_from([None, None, RunState.DONE, RunState.FAILED]))
    def another_task_of_the_same_work_was_judged(self, state: RunState | None) -> None:
        if state is not None:
            self.history.know(state)

    @rule(seconds=st.sampled_from([1, 5, 30, 30, 30, 4000]))
    def wait(self, seconds: int) -> None:
        self.history.pass_time(seconds)

    @precondition(lambda self: self.live and not self.history.task.cancelled)
    @rule(really=st.integers(0, 5))
    def cancel(self, really: int) -> None:
        if really == 0:
            self.history.cancel()

    @invariant()
    def asking_again_changes_nothing(self) -> None:
        history = self.history
        step = history.ask()
        if step is None:
            assert history.is_final
            return
        assert step.decisions == ()
        assert (step.state, step.wanted, step.retries, step.reason) == (
            history.task.state,
            history.task.wanted,
            history.task.retries,
            history.task.reason,
        )
        assert step.available_at in (None, history.task.available_at)
        assert not step.needs_referee or history.run is not None

    @invariant()
    def never_more_attempts_than_the_escrow_can_pay(self) -> None:
        history = self.history
        running = len(history.of(AttemptState.RUNNING))
        assert history.task.wanted + running + history.in_favour() <= history.task.quorum
        assert len(history.of(AttemptState.ACCEPTED)) <= history.task.quorum

    @invariant()
    def queued_means_wanted(self) -> None:
        task = self.history.task
        assert (task.wanted > 0) == (task.state is TaskState.QUEUED)

    @invariant()
    def nothing_waits_for_nobody(self) -> None:
        history = self.history
        if history.is_final:
            assert not history.of(*OPEN)
            return
        is_running = bool(history.of(AttemptState.RUNNING))
        referee_comes = history.run is not None and history.run.state is RunState.QUEUED
        assert history.task.wanted or is_running or referee_comes

    @invariant()
    def only_faults_use_up_retries(self) -> None:
        history = self.history
        faults = len(history.with_verdict(*FAULTS))
        assert history.task.retries == faults
        assert faults <= POLICY.max_retries + history.task.quorum
        if faults > POLICY.max_retries:
            assert history.task.wanted == 0

    @invariant()
    def retries_wait_for_their_delay(self) -> None:
        history = self.history
        faults = history.with_verdict(*FAULTS)
        if faults and history.task.wanted:
            last = max(item.decided_at for item in faults if item.decided_at)
            delay = DELAYS[min(len(faults), len(DELAYS)) - 1]
            assert last + delay <= history.task.available_at <= last + 1.2 * delay

    @invariant()
    def verdicts_follow_the_referee_or_a_quorum(self) -> None:
        history = self.history
        task = history.task
        accepted = history.of(AttemptState.ACCEPTED)
        assert len(set(numbers(accepted))) <= 1
        if task.state is TaskState.ACCEPTED:
            self._check_delivery(history.steps[-1])
        else:
            assert not accepted
        for item in history.with_verdict(Verdict.PROVED):
            assert numbers([item]) == [TRUTH]
        truth_known = history.run is not None and history.run.state is RunState.DONE
        by_vote = bool(history.with_verdict(Verdict.AGREED))  # before the truth was known, if ever
        for item in history.with_verdict(Verdict.WRONG):
            assert numbers([item]) != [TRUTH] or not truth_known or by_vote

    def _check_delivery(self, step: Step) -> None:
        history = self.history
        accepted = history.of(AttemptState.ACCEPTED)
        assert step.result is not None
        delivered = step.result.result_hash[0]
        if not accepted:
            assert history.run is not None
            assert history.run.state is RunState.DONE
            assert delivered == TRUTH
            lies = len(history.with_verdict(Verdict.WRONG))
            is_over = history.task.cancelled or history.now >= history.task.deadline
            assert lies >= (1 if is_over else POLICY.max_wrong_results)
            return
        assert set(numbers(accepted)) == {delivered}
        is_proved = {item.verdict for item in accepted} == {Verdict.PROVED}
        if not is_proved:
            assert {item.verdict for item in accepted} == {Verdict.AGREED}
            assert len(accepted) == history.task.quorum

    @invariant()
    def what_is_not_decided_keeps_a_task_alive(self) -> None:
        history = self.history
        if not history.is_final:
            return
        last = history.steps[-1]
        unproven = history.with_verdict(Verdict.UNPROVEN)
        if last.state in (TaskState.CANCELLED, TaskState.EXPIRED):
            assert not unproven
        if unproven:
            assert last.state is TaskState.FAILED
            assert history.run is not None
            assert history.run.state is RunState.FAILED


@pytest.mark.parametrize("steps", [12, 40])
def test_every_life_keeps_the_promises(steps: int) -> None:
    run_state_machine_as_test(
        Life, settings=settings(max_examples=150 * SCALE, stateful_step_count=steps, deadline=None)
    )
