"""Who of the waiting devices gets what: room, turns by trust, one device per account."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gstd.accounts.model import DeviceActor
from gstd.dispatch.eligibility import conditions_of
from gstd.dispatch.matching import MANY, Asker, Balance, room_for
from gstd.dispatch.needs import TaskClass
from gstd.dispatch.queue import Candidate, Running
from gstd.kernel.ids import new_id
from gstd.kernel.settings import Policy
from gstd.protocol.execution import Limits
from gstd.protocol.types import Asset
from gstd.protocol.work import OffersRequest

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROFILE = "a profile"


LOOP = asyncio.new_event_loop()


def asker(
    *, trust: int = 500, free: int = 1, account: UUID | None = None, is_out: bool = False
) -> Asker:
    device = DeviceActor(
        device_id=new_id(),
        account_id=account or new_id(),
        name="a device",
        public_key="00" * 32,
        state="active",
        trust=trust,
        quota=64,
        ejected_until=NOW + timedelta(hours=1) if is_out else None,
    )
    request = OffersRequest(profile=PROFILE, free=free)
    return Asker(
        device=device,
        request=request,
        conditions=conditions_of(device, request, Policy()),
        answer=asyncio.Future(loop=LOOP),
    )


CLASSES = {
    1: TaskClass(
        id=1,
        profile=PROFILE,
        module_hash=bytes(32),
        memory_bytes=1,
        fuel=1,
        wall_ms=1,
        min_trust=0,
        reward=1,
        asset=Asset.TEST,
        pool_id=None,
    )
}


def candidate(wanted: int = 1, shown: int = 0) -> Candidate:
    return Candidate(
        task_id=new_id(),
        job_id=new_id(),
        class_id=1,
        order_key=0,
        wanted=wanted,
        shown=shown,
        reward=1,
        asset=Asset.TEST,
        module_hash=bytes(32),
        limits=Limits(),
        profile=PROFILE,
        deadline=NOW + timedelta(days=1),
    )


def test_tasks_are_shared_by_trust_over_many_looks() -> None:
    devices = [asker(trust=trust) for trust in (900, 600, 300)]
    balance, won = Balance(), Counter[int]()
    for _ in range(3_000):
        room = dict.fromkeys(devices, 1)
        for _, winner in balance.match([candidate()], CLASSES, devices, set(), room, NOW):
            won[winner.device.trust] += 1
    assert won == {900: 1_500, 600: 1_000, 300: 500}


def test_nobody_gets_more_than_its_room() -> None:
    small, large = asker(trust=1000, free=2), asker(trust=100, free=50)
    room = room_for([small, large], {}, NOW)
    matches = Balance().match(
        [candidate() for _ in range(100)], CLASSES, [small, large], set(), room, NOW
    )
    assert Counter(winner is small for _, winner in matches) == {True: 2, False: 50}


def test_a_quorum_goes_to_different_accounts() -> None:
    account = new_id()
    devices = [asker(account=account), asker(account=account), asker()]
    matches = Balance().match(
        [candidate(wanted=3)], CLASSES, devices, set(), dict.fromkeys(devices, 1), NOW
    )
    assert sorted(winner.device.account_id for _, winner in matches) == sorted(
        {account, devices[2].device.account_id}
    )


def test_what_others_solve_already_is_not_shown_again() -> None:
    device = asker()
    assert Balance().match([candidate(shown=1)], CLASSES, [device], set(), {device: 1}, NOW) == []


def test_a_silent_device_has_no_room_and_a_busy_one_only_its_rest() -> None:
    silent, busy = asker(free=10), asker(free=10)
    running = {
        silent.device.device_id: Running(attempts=1, is_silent=True),
        busy.device.device_id: Running(attempts=60, is_silent=False),
    }
    assert room_for([silent, busy], running, NOW) == {silent: 0, busy: 4}


def test_in_a_panic_each_ejected_device_may_try_one() -> None:
    few = [asker(is_out=True, free=3) for _ in range(MANY - 1)]
    assert set(room_for(few, {}, NOW).values()) == {0}
    many = [*few, asker(free=3)]
    assert list(room_for(many, {}, NOW).values()) == [1] * (MANY - 1) + [3]
