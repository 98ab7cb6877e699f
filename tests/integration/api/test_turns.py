"""Priorities and deadlines that change while devices wait: the next look knows, index or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from gstd.dispatch.indexing import Indexer
from gstd.protocol.jobs import OrderChange
from gstd.protocol.types import Priority
from gstd.protocol.work import OffersRequest
from gstd.sandbox.profile import PROFILE
from tests.integration.api.house import House, Person, bearer, open_house
from tests.servers import running_valkey, until

ONE = OffersRequest(profile=PROFILE, wait_ms=20_000)


@pytest_asyncio.fixture(loop_scope="session", params=["index", "rows", "no valkey"])
async def house(
    request: pytest.FixtureRequest, database_urls: dict[str, str], tmp_path: Path
) -> AsyncIterator[House]:
    """A platform whose devices look into the index, or past a missing one, or have no Valkey."""
    async with AsyncExitStack() as stack:
        url = None
        if request.param != "no valkey":
            url = (await stack.enter_async_context(running_valkey())).address().url()
        urls = database_urls["app"], database_urls["owner"], url
        made = await stack.enter_async_context(open_house(tmp_path, *urls))
        platform = made.platform
        indexer = Indexer(platform.database, platform.bus, platform.clock)
        if request.param == "index":
            await indexer.keep()
            assert await indexer.index.is_complete()
        yield made


async def change(house: House, person: Person, path: str, change: OrderChange) -> None:
    answer = await house.http.patch(
        f"/api/v1/{path}", headers=bearer(person), json={"priority": change.priority}
    )
    assert answer.status_code < 300, answer.text


@pytest.mark.parametrize("of_job", [True, False])
async def test_a_device_that_waits_gets_what_was_made_urgent_meanwhile(
    house: House, of_job: bool
) -> None:
    """All work is shown to a device that never claims; it comes back in its new order."""
    person, other = await house.requester(), await house.device()
    first = await house.job(person, priority=Priority.HIGH)
    second = await house.job(person, priority=Priority.LOW)
    shown = (await other.client.offers(OffersRequest(profile=PROFILE, free=2))).offers
    assert [offer.job_id for offer in shown] == [first.id, second.id]
    device = await house.device()
    wait = asyncio.create_task(device.client.offers(ONE))
    await until(lambda: len(house.platform.matchmaker._askers) == 1)
    path = f"jobs/{second.id}" if of_job else f"tasks/{shown[1].task_id}"
    await change(house, person, path, OrderChange(priority=Priority.CRITICAL))
    [offer] = (await asyncio.wait_for(wait, 10)).offers
    assert offer.job_id == second.id
