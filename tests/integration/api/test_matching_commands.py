"""gstd pool, why and worker limit, as processes that talk to a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gstd.protocol.types import Asset, Role
from gstd.protocol.work import OffersRequest
from gstd.sandbox.profile import PROFILE
from tests.integration.api.house import House
from tests.integration.api.test_money_commands import Shell, served


@pytest.fixture
async def shell(house: House, tmp_path: Path) -> AsyncIterator[Shell]:
    async with served(house) as url:
        yield Shell(url, tmp_path)


async def test_a_pool_is_made_joined_listed_and_left(house: House, shell: Shell) -> None:
    owner, member = await house.requester(), await house.person(Role.WORKER)
    made = (await shell.gstd(owner, "pool", "create", "[red]friends", "--json")).json
    pool = made["pool"]["id"]
    wrong = await shell.gstd(member, "pool", "join", pool, "--secret", "wrong")
    assert wrong.code == 1
    assert "wrong_pool_secret" in wrong.err
    joined = await shell.gstd(member, "pool", "join", pool, "--secret", made["secret"])
    assert joined.out == "Your devices serve the pool [red]friends.\n"
    assert "[red]friends" in (await shell.gstd(member, "pool", "list")).out
    assert str(member.id) in (await shell.gstd(owner, "pool", "members", pool)).out
    left = await shell.gstd(member, "pool", "leave", pool)
    assert left.out == "You have left the pool [red]friends.\n"
    assert "No pools yet" in (await shell.gstd(member, "pool", "list")).out


async def test_a_device_is_limited_and_told_why(house: House, shell: Shell) -> None:
    person, device = await house.requester(), await house.device()
    words = ["worker", "limit", str(device.id)]
    limited = await shell.gstd(device.owner, *words, "--min-reward", "5", "--max-seconds", "10")
    assert limited.out == "at most 10 s, at least 5 GSTD, at least 5 TEST\n"
    more = await shell.gstd(device.owner, *words, "--no-pools", "--max-seconds", "60", "--json")
    assert more.json["limits"]["pools"] == []
    assert more.json["limits"]["min_reward_nano"][Asset.TEST] == "5000000000"
    job = await house.job(person)
    [task] = await person.client.tasks(job.id)
    await device.client.offers(OffersRequest(profile=PROFILE))
    told = await shell.gstd(device.owner, "why", str(device.id))
    assert told.out.startswith("device, active: 1 task is ready, none for this device: ")
    assert "1 pays below its minimum reward" in told.out
    why = await shell.gstd(person, "why", str(task.id))
    assert why.out.startswith("task, queued: ")
    assert "higher reward" in why.out
    cleared = await shell.gstd(device.owner, *words, "--clear")
    assert cleared.out == "takes every task\n"
    nothing = await shell.gstd(person, "why", str(device.id))
    assert nothing.code == 1
    assert "device_not_found" in nothing.err
