"""Two days of two thousand devices: the invariants after every event, and how it all ends."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from gstd.accounts.health import Circuit
from gstd.kernel.settings import Policy
from gstd.tasks.model import AttemptState, TaskState, Verdict
from tests.unit.dispatch.simulation import LARGE, Manner, SimTask, Simulation
from tests.unit.tasks.history import OPEN, TRUTH

SCALE = int(os.environ.get("GSTD_TEST_SCALE", "1"))
DEVICES = 2_000
TASKS = 2_500 * SCALE
DAYS = 2.0
POLICY = Policy()
TAKEN = {*OPEN, AttemptState.ACCEPTED, AttemptState.REJECTED}


def check_task(simulation: Simulation, task: SimTask) -> None:
    """What must hold for a task at any moment."""
    taken = [item.account_id for item in task.attempts if item.state in TAKEN]
    assert len(taken) == len(set(taken)), "an account has two attempts of one task"
    assert task.task.retries <= POLICY.max_retries + 1
    accepted = task.of(AttemptState.ACCEPTED)
    assert len(accepted) <= task.task.quorum
    assert len({item.result for item in accepted}) <= 1
    is_open = task.task.wanted > 0
    assert is_open == task.is_in(TaskState.QUEUED)
    if task.task.id in simulation.ready:
        assert is_open
        assert task.task.available_at <= simulation.now
    finals = [step.state for step in task.steps if step.is_final]
    assert len(finals) <= 1, "what has ended stays ended"


def check_devices(simulation: Simulation) -> None:
    """What must hold for devices at any moment."""
    for device in simulation.devices.values():
        assert len(device.holds) <= device.slots
        assert 1 <= device.actor.quota <= POLICY.max_quota
    assert simulation.granted_while_out == 0, "a device that is out got a task"


@pytest.mark.timeout(60 + 60 * SCALE)
@pytest.mark.parametrize("seed", [1, 2])
def test_two_days_of_two_thousand_devices(seed: int) -> None:
    simulation = Simulation(seed, DEVICES, POLICY)
    for _ in range(TASKS):
        simulation.post(simulation.chance.uniform(0, DAYS * 86_400))
    for number, _ in enumerate(simulation.run()):
        if number % 97 == 0:
            check_devices(simulation)
        for task in simulation.touched:
            check_task(simulation, task)
    check_devices(simulation)
    assert len(simulation.tasks) == TASKS
    check_end(simulation)


def check_end(simulation: Simulation) -> None:
    """Everything has ended, nothing was paid twice, and who misbehaved is known for it."""
    ends = Counter(task.task.state for task in simulation.tasks.values())
    assert set(ends) <= {TaskState.ACCEPTED, TaskState.FAILED}
    assert ends[TaskState.FAILED] < TASKS / 100
    assert set(simulation.paid.values()) <= {0, 1}
    accepted = [
        item for task in simulation.tasks.values() for item in task.of(AttemptState.ACCEPTED)
    ]
    assert sum(simulation.paid.values()) == len(accepted)
    trust: dict[Manner, list[int]] = {manner: [] for manner in Manner}
    for device in simulation.devices.values():
        trust[device.manner].append(device.actor.trust)
    assert sum(trust[Manner.LIAR]) / len(trust[Manner.LIAR]) < 500
    assert sum(trust[Manner.HONEST]) / len(trust[Manner.HONEST]) > 500


def test_lies_are_caught_where_the_referee_looks() -> None:
    simulation = Simulation(3, 200, POLICY)
    for _ in range(500):
        simulation.post(simulation.chance.uniform(0, 20_000))
    for _ in simulation.run():
        pass
    for task in simulation.tasks.values():
        if task.task.quorum == 1:
            right = [item.result for item in task.of(AttemptState.ACCEPTED) if item.result]
            assert all(item.result_hash[0] == TRUTH for item in right)
    wrong = {
        item.device_id
        for task in simulation.tasks.values()
        for item in task.with_verdict(Verdict.WRONG)
    }
    assert wrong
    liars = {key for key, each in simulation.devices.items() if each.manner is Manner.LIAR}
    alone = {
        item.device_id
        for task in simulation.tasks.values()
        if task.task.quorum == 1
        for item in task.with_verdict(Verdict.WRONG)
    }
    assert alone <= liars


def test_large_tasks_never_wait_behind_each_other_for_small_devices() -> None:
    simulation = Simulation(4, 100, POLICY)
    for _ in range(200):
        simulation.post(1.0)
    for _ in simulation.run():
        pass
    for device in simulation.devices.values():
        for task in simulation.tasks.values():
            has_tried = any(item.device_id == device.actor.device_id for item in task.attempts)
            assert not has_tried or task.memory <= device.memory <= LARGE


def test_devices_that_fail_are_taken_out_and_get_nothing_meanwhile() -> None:
    simulation = Simulation(5, 60, POLICY)
    for _ in range(1_500):
        simulation.post(simulation.chance.uniform(0, 10_000))
    out: set[Manner] = set()
    for _ in simulation.run():
        out |= {
            device.manner
            for device in simulation.devices.values()
            if device.actor.circuit(simulation.now) is Circuit.OPEN
        }
    assert out == {Manner.FAULTY, Manner.SILENT}
    check_devices(simulation)
