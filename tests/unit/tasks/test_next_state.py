"""The rules of a task's life by example."""

from __future__ import annotations

from datetime import timedelta
from itertools import product

import msgspec
import pytest

from gstd.kernel.settings import Policy
from gstd.protocol.types import Tier
from gstd.tasks.model import (
    FINAL_STATES,
    AttemptState,
    RunState,
    TaskState,
    Verdict,
)
from tests.unit.tasks.history import START, TRUTH, History, numbers

LIE, OTHER_LIE, THIRD_LIE = 1, 2, 3
FAULTY = [Verdict.LEASE_EXPIRED, Verdict.HOST_FAULT, Verdict.WALL_CLOCK]


@pytest.mark.parametrize("state", [*sorted(FINAL_STATES), TaskState.BLOCKED])
def test_final_and_blocked_tasks_stay_as_they_are(state: TaskState) -> None:
    history = History(Tier.FULL, 1)
    history.task = msgspec.structs.replace(history.task, state=state)
    assert history.ask() is None


def test_a_result_of_tier_full_waits_for_the_referee_and_is_paid_when_it_agrees() -> None:
    history = History(Tier.FULL, 1)
    history.submit(history.claim(), TRUTH)
    assert history.is_in(TaskState.VERIFYING)
    assert history.steps[-1].needs_referee
    history.referee(RunState.DONE)
    assert history.is_in(TaskState.ACCEPTED)
    [paid] = history.steps[-1].accepted
    assert paid.verdict is Verdict.PROVED


@pytest.mark.parametrize("verdicts", list(product(FAULTY, repeat=4)))
def test_three_faults_are_retried_at_1_5_and_30_s_and_the_fourth_ends_the_task(
    verdicts: tuple[Verdict, ...],
) -> None:
    history = History(Tier.FULL, 1)
    for verdict, delay in zip(verdicts[:3], (1, 5, 30), strict=True):
        history.end(history.claim(), verdict)
        assert history.is_in(TaskState.QUEUED)
        waits = (history.task.available_at - history.now) / timedelta(seconds=delay)
        assert 1 <= waits <= 1.2
        assert not history.can_be_claimed
        history.pass_time(1.2 * delay)
        assert history.can_be_claimed
    history.end(history.claim(), verdicts[3])
    assert history.is_in(TaskState.FAILED)
    assert history.task.retries == 4


@pytest.mark.parametrize("verdict", [Verdict.SHUTTING_DOWN, Verdict.DECLINED])
def test_leaving_politely_uses_up_nothing(verdict: Verdict) -> None:
    history = History(Tier.FULL, 1)
    for _ in range(10):
        history.end(history.claim(), verdict)
    assert (history.task.state, history.task.retries) == (TaskState.QUEUED, 0)
    assert history.can_be_claimed


def test_lies_use_up_no_retries() -> None:
    history = History(Tier.FULL, 1, Policy())
    for _ in range(4):
        history.submit(history.claim(), LIE)
        if history.run is not None and history.run.state is RunState.QUEUED:
            history.referee(RunState.DONE)
        assert (history.task.state, history.task.retries) == (TaskState.QUEUED, 0)
    assert [item.verdict for item in history.attempts] == [Verdict.WRONG] * 4
    history.submit(history.claim(), TRUTH)
    assert history.is_in(TaskState.ACCEPTED)


def test_after_the_last_lie_the_referees_output_is_delivered_and_nobody_is_paid() -> None:
    history = History(Tier.FULL, 1)
    for _ in range(history.policy.max_wrong_results):
        assert history.is_in(TaskState.QUEUED)
        history.submit(history.claim(), LIE)
        if history.run is not None and history.run.state is RunState.QUEUED:
            history.referee(RunState.DONE)
    step = history.steps[-1]
    assert step.state is TaskState.ACCEPTED
    assert step.accepted == []
    assert step.result is not None
    assert step.result.result_hash[0] == TRUTH


@pytest.mark.parametrize("quorum", [2, 3])
def test_a_quorum_pays_everyone_who_agrees(quorum: int) -> None:
    history = History(Tier.QUORUM, quorum)
    attempts = [history.claim() for _ in range(quorum)]
    assert history.task.wanted == 0
    for attempt in attempts:
        assert history.is_in(TaskState.RUNNING)
        history.submit(attempt, LIE)  # nobody but the quorum says what is true
    assert history.is_in(TaskState.ACCEPTED)
    assert len(history.steps[-1].accepted) == quorum


def test_a_split_quorum_asks_a_third_device() -> None:
    history = History(Tier.QUORUM, 2)
    one, other = history.claim(), history.claim()
    history.submit(one, TRUTH)
    history.submit(other, LIE)
    assert (history.task.state, history.task.wanted) == (TaskState.QUEUED, 1)
    assert history.run is None
    history.submit(history.claim(), TRUTH)
    assert [item.verdict for item in history.attempts] == [
        Verdict.AGREED,
        Verdict.WRONG,
        Verdict.AGREED,
    ]


def test_a_three_way_split_goes_to_the_referee() -> None:
    history = History(Tier.QUORUM, 2)
    one, other = history.claim(), history.claim()
    history.submit(one, LIE)
    history.submit(other, OTHER_LIE)
    history.submit(history.claim(), TRUTH)
    assert history.steps[-1].needs_referee
    history.referee(RunState.DONE)
    assert history.is_in(TaskState.ACCEPTED)
    assert numbers(history.of(AttemptState.ACCEPTED)) == [TRUTH]
    assert len(history.with_verdict(Verdict.WRONG)) == 2


def test_a_split_of_lies_leaves_one_attempt_to_find_the_truth() -> None:
    history = History(Tier.QUORUM, 2, Policy())
    one, other = history.claim(), history.claim()
    history.submit(one, LIE)
    history.submit(other, OTHER_LIE)
    history.submit(history.claim(), THIRD_LIE)
    history.referee(RunState.DONE)
    assert (history.task.state, history.task.wanted) == (TaskState.QUEUED, 1)
    history.submit(history.claim(), TRUTH)
    assert history.is_in(TaskState.ACCEPTED)


@pytest.mark.parametrize("tier", [(Tier.FULL, 1), (Tier.QUORUM, 2)])
def test_a_referee_that_cannot_run_it_ends_the_task_and_blames_nobody(
    tier: tuple[Tier, int],
) -> None:
    history = History(*tier)
    attempts = [history.claim() for _ in range(tier[1])]
    for number, attempt in enumerate(attempts):
        history.submit(attempt, number)
    history.cancel()
    history.referee(RunState.FAILED)
    assert history.is_in(TaskState.FAILED)
    assert {item.verdict for item in history.attempts} == {Verdict.UNPROVEN}


@pytest.mark.parametrize(
    ("is_cancelled", "state"), [(True, TaskState.CANCELLED), (False, TaskState.EXPIRED)]
)
@pytest.mark.parametrize("is_running", [False, True])
def test_a_task_without_results_ends_when_cancelled_or_late(
    is_cancelled: bool, state: TaskState, is_running: bool
) -> None:
    history = History(Tier.FULL, 1)
    if is_running:
        history.claim()
    if is_cancelled:
        history.cancel()
    else:
        history.pass_time(3600)
    assert history.is_in(state)
    assert {item.verdict for item in history.attempts} <= {Verdict.TASK_ENDED}


def test_the_deadline_itself_is_too_late() -> None:
    history = History(Tier.FULL, 1)
    history.pass_time(3599.999)
    assert history.is_in(TaskState.QUEUED)
    history.pass_time(0.001)
    assert history.now == START + timedelta(hours=1)
    assert history.is_in(TaskState.EXPIRED)


def test_a_result_that_waits_for_its_verdict_is_still_paid_after_a_cancel() -> None:
    history = History(Tier.FULL, 1)
    history.submit(history.claim(), TRUTH)
    history.cancel()
    history.pass_time(7200)
    assert history.is_in(TaskState.VERIFYING)
    history.referee(RunState.DONE)
    assert history.is_in(TaskState.ACCEPTED)
    assert len(history.steps[-1].accepted) == 1


def test_an_incomplete_quorum_goes_to_the_referee_at_the_deadline() -> None:
    history = History(Tier.QUORUM, 3)
    history.submit(history.claim(), TRUTH)
    assert history.is_in(TaskState.QUEUED)
    history.pass_time(3600)
    assert history.steps[-1].needs_referee
    history.referee(RunState.DONE)
    assert len(history.steps[-1].accepted) == 1


def test_work_known_before_is_judged_at_once() -> None:
    history = History(Tier.FULL, 1)
    history.submit(history.claim(), LIE)
    history.referee(RunState.DONE)
    history.submit(history.claim(), TRUTH)
    assert history.is_in(TaskState.ACCEPTED)


def test_a_quorum_goes_on_when_the_referee_once_could_not_run_the_same_work() -> None:
    history = History(Tier.QUORUM, 2)
    history.know(RunState.FAILED)
    history.submit(history.claim(), TRUTH)
    assert history.is_in(TaskState.QUEUED)
    history.submit(history.claim(), TRUTH)
    assert history.is_in(TaskState.ACCEPTED)
