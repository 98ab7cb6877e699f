"""Which device may have which task: every rule refuses and admits, and says so in words."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gstd.accounts.model import DeviceActor
from gstd.dispatch.eligibility import (
    Conditions,
    Rule,
    class_misfit,
    class_misfits,
    conditions_of,
    task_misfit,
)
from gstd.dispatch.matching import Asker, Balance
from gstd.dispatch.needs import TaskClass
from gstd.dispatch.queue import Candidate
from gstd.kernel.settings import Policy
from gstd.protocol.execution import Limits
from gstd.protocol.matching import NO_LIMITS, DeviceLimits
from gstd.protocol.types import Asset
from gstd.protocol.work import OffersRequest

LOOP = asyncio.new_event_loop()
NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODULES = [bytes([number]) * 32 for number in range(3)]
POOLS = [UUID(int=number) for number in range(3)]
NEEDS = TaskClass(
    id=1,
    profile="wasm/1",
    module_hash=MODULES[0],
    memory_bytes=1 << 20,
    fuel=1_000_000,
    wall_ms=1_000,
    min_trust=500,
    reward=100,
    asset=Asset.TEST,
    pool_id=None,
)


def device(
    limits: DeviceLimits = NO_LIMITS,
    *,
    trust: int = 500,
    joined: tuple[UUID, ...] = (),
    speed: float | None = None,
    **asked: Any,
) -> Conditions:
    actor = DeviceActor(
        device_id=UUID(int=1),
        account_id=UUID(int=2),
        name="a device",
        public_key="00" * 32,
        state="active",
        trust=trust,
        limits=limits,
        fuel_per_ms=speed,
        pools=joined,
    )
    request = OffersRequest(**{"profile": "wasm/1", **asked})
    return conditions_of(actor, request, Policy(slow_fuel_per_ms=1_000))


def needs(**changes: Any) -> TaskClass:
    return msgspec.structs.replace(NEEDS, **changes)


def hexes(*modules: bytes) -> list[str]:
    return [module.hex() for module in modules]


CASES = [
    (Rule.PROFILE, needs(), device(profile="other/1"), device()),
    (Rule.POOL, needs(pool_id=POOLS[0]), device(), device(joined=(POOLS[0],))),
    (
        Rule.POOL,
        needs(pool_id=POOLS[0]),
        device(joined=tuple(POOLS), limits=DeviceLimits(pools=[POOLS[1]])),
        device(joined=tuple(POOLS), limits=DeviceLimits(pools=[POOLS[0]])),
    ),
    (Rule.PUBLIC, needs(), device(public=False), device(public=True)),
    (Rule.TRUST, needs(), device(trust=499), device(trust=500)),
    (
        Rule.MEMORY,
        needs(),
        device(memory_bytes=(1 << 20) - 1),
        device(memory_bytes=1 << 20),
    ),
    (Rule.TIME, needs(), device(max_wall_ms=999), device(max_wall_ms=1_000)),
    (
        Rule.DENIED,
        needs(),
        device(denied_modules=hexes(MODULES[0])),
        device(denied_modules=hexes(MODULES[1])),
    ),
    (
        Rule.NOT_ALLOWED,
        needs(),
        device(allowed_modules=hexes(MODULES[1])),
        device(allowed_modules=hexes(MODULES[0])),
    ),
    (Rule.ASSET, needs(), device(assets=[Asset.GSTD]), device(assets=[Asset.TEST])),
    (
        Rule.REWARD,
        needs(),
        device(min_reward_nano={Asset.TEST: "101"}),
        device(min_reward_nano={Asset.TEST: "100", Asset.GSTD: "999"}),
    ),
]


@pytest.mark.parametrize(("rule", "needs", "misfit", "fit"), CASES)
def test_every_rule_refuses_and_admits(
    rule: Rule, needs: TaskClass, misfit: Conditions, fit: Conditions
) -> None:
    assert class_misfit(needs, misfit) is rule
    assert list(class_misfits(needs, misfit)) == [rule]
    assert class_misfit(needs, fit) is None
    assert not list(class_misfits(needs, fit))


@pytest.mark.parametrize(("left_ms", "expected"), [(999, Rule.DEADLINE), (1_000, None)])
def test_a_new_device_is_reckoned_slow(left_ms: int, expected: Rule | None) -> None:
    deadline = NOW + timedelta(milliseconds=left_ms)
    assert task_misfit(NEEDS, device(), deadline=deadline, tried=False, now=NOW) is expected


def test_a_fast_device_may_start_later_and_none_needs_more_than_the_wall_clock() -> None:
    soon = NOW + timedelta(milliseconds=100)
    fast, crawling = device(speed=10_000.0), device(speed=0.001)
    assert task_misfit(NEEDS, fast, deadline=soon, tried=False, now=NOW) is None
    later = NOW + timedelta(milliseconds=NEEDS.wall_ms)
    assert task_misfit(NEEDS, crawling, deadline=later, tried=False, now=NOW) is None


def test_what_was_tried_comes_before_the_deadline() -> None:
    assert task_misfit(NEEDS, device(), deadline=NOW, tried=True, now=NOW) is Rule.TRIED


def test_class_rules_and_task_rules_are_all_the_rules() -> None:
    refused_by_all = device(
        profile="x",
        trust=0,
        memory_bytes=65_536,
        max_wall_ms=1,
        denied_modules=hexes(MODULES[0]),
        allowed_modules=[],
        assets=[],
        min_reward_nano={Asset.TEST: "101"},
        public=False,
    )
    broken = {*class_misfits(NEEDS, refused_by_all)}
    broken |= {*class_misfits(needs(pool_id=POOLS[0]), refused_by_all)}
    assert broken | {Rule.TRIED, Rule.DEADLINE} == set(Rule)


def test_every_rule_has_words_for_one_and_many() -> None:
    for rule in Rule:
        for words in (rule.of_tasks, rule.of_devices):
            assert words(1).startswith("1 ")
            assert words(7).startswith("7 ")
    assert Rule.REWARD.of_devices(7) == "7 want a higher reward"
    assert Rule.MEMORY.of_devices(1) == "1 lacks memory"
    assert Rule.REWARD.of_tasks(1) == "1 pays below its minimum reward"
    assert Rule.TRUST.of_tasks(3) == "3 need more trust"


classes = st.builds(
    TaskClass,
    id=st.just(1),
    profile=st.sampled_from(["wasm/1", "other/1"]),
    module_hash=st.sampled_from(MODULES),
    memory_bytes=st.integers(65_536, 1 << 22),
    fuel=st.integers(1, 10**9),
    wall_ms=st.integers(100, 60_000),
    min_trust=st.integers(0, 1000),
    reward=st.integers(1, 1000),
    asset=st.sampled_from(Asset),
    pool_id=st.none() | st.sampled_from(POOLS),
)
hashes = st.lists(st.sampled_from(hexes(*MODULES)), max_size=3)
wishes = st.fixed_dictionaries(
    {},
    optional={
        "memory_bytes": st.integers(65_536, 1 << 22),
        "max_wall_ms": st.integers(1, 60_000),
        "min_reward_nano": st.dictionaries(st.sampled_from(Asset), st.integers(0, 1000).map(str)),
        "assets": st.none() | st.lists(st.sampled_from(Asset), max_size=2),
        "allowed_modules": st.none() | hashes,
        "denied_modules": hashes,
        "pools": st.none() | st.lists(st.sampled_from(POOLS), max_size=3),
        "public": st.booleans(),
    },
)


@given(classes, wishes, wishes, st.integers(0, 1000), st.lists(st.sampled_from(POOLS)))
def test_the_first_rule_is_the_first_of_all_rules_and_the_stricter_limit_counts(
    task: TaskClass,
    own: dict[str, Any],
    owners: dict[str, Any],
    trust: int,
    joined: list[UUID],
) -> None:
    both = device(DeviceLimits(**owners), trust=trust, joined=tuple(joined), **own)
    broken = list(class_misfits(task, both))
    assert class_misfit(task, both) == (broken[0] if broken else None)
    assert broken == sorted(broken, key=list(Rule).index)
    # Without its default of memory, a request asks with its own limits alone.
    plain = {"memory_bytes": None}
    alone = device(trust=trust, joined=tuple(joined), **{**plain, **own})
    owned = device(DeviceLimits(**owners), trust=trust, joined=tuple(joined), **plain)
    strict = device(DeviceLimits(**owners), trust=trust, joined=tuple(joined), **{**plain, **own})
    either = {*class_misfits(task, alone), *class_misfits(task, owned)}
    assert set(class_misfits(task, strict)) == either


@given(wishes)
def test_limits_survive_the_way_to_the_database_and_back(own: dict[str, Any]) -> None:
    limits = DeviceLimits(**own)
    assert msgspec.json.decode(msgspec.json.encode(limits), type=DeviceLimits) == limits


@given(
    st.lists(classes, min_size=1, max_size=4),
    st.lists(st.tuples(wishes, st.integers(1, 1000)), min_size=1, max_size=4),
)
def test_a_device_is_never_matched_with_a_task_that_does_not_fit(
    tasks: list[TaskClass], devices: list[tuple[dict[str, Any], int]]
) -> None:
    tasks = [msgspec.structs.replace(task, id=number) for number, task in enumerate(tasks)]
    candidates = [candidate_of(task, number) for number, task in enumerate(tasks)]
    askers = [asker_of(own, trust, number) for number, (own, trust) in enumerate(devices)]
    by_id = dict(enumerate(tasks))
    room = dict.fromkeys(askers, 8)
    for candidate, asker in Balance().match(candidates, by_id, askers, set(), room, NOW):
        assert class_misfit(by_id[candidate.class_id], asker.conditions) is None
        run_ms = min(candidate.limits.wall_ms, candidate.limits.fuel / asker.conditions.fuel_per_ms)
        assert NOW + timedelta(milliseconds=int(run_ms)) <= candidate.deadline


def candidate_of(task: TaskClass, number: int) -> Candidate:
    return Candidate(
        task_id=UUID(int=number),
        job_id=UUID(int=number),
        wanted=2,
        reward=task.reward,
        asset=task.asset,
        module_hash=task.module_hash,
        limits=Limits(fuel=task.fuel, memory_bytes=task.memory_bytes, wall_ms=task.wall_ms),
        profile=task.profile,
        class_id=number,
        order_key=number,
        deadline=NOW + timedelta(seconds=20),
    )


def asker_of(own: dict[str, Any], trust: int, number: int) -> Asker:
    actor = DeviceActor(
        device_id=UUID(int=number),
        account_id=UUID(int=number),
        name="a device",
        public_key="00" * 32,
        state="active",
        trust=trust,
        pools=(POOLS[0],),
    )
    request = OffersRequest(**{"profile": "wasm/1", **own})
    return Asker(
        device=actor,
        request=request,
        conditions=conditions_of(actor, request, Policy(slow_fuel_per_ms=1_000)),
        answer=asyncio.Future(loop=LOOP),
    )
