"""Kill PostgreSQL and the API again and again under load: what was answered once is there once."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter

import pytest

from gstd.sdk import Client
from tests.chaos.customers import Customer
from tests.chaos.site import Site
from tests.chaos.witness import Witness
from tests.servers import until

SCALE = int(os.environ.get("GSTD_TEST_SCALE", "1"))
CYCLES = 3 * SCALE
CUSTOMERS = 16
PATIENCE_S = 60
BETWEEN_KILLS = 60
"""Operations that are answered before the next kill."""


@pytest.mark.timeout(90 * (1 + SCALE))
async def test_what_was_answered_survives_every_crash_exactly_once(site: Site) -> None:
    seed = random.randrange(1 << 32)  # noqa: S311 - printed, to tell runs apart
    witness = Witness()
    customers = [
        Customer(site, await site.account(), witness, seed + number) for number in range(CUSTOMERS)
    ]
    keys_before = await site.count("SELECT count(*) FROM idempotency")
    await crash_under_load(site, witness, customers)
    left = sum(len(customer.aside) for customer in customers)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(customer.settle_the_rest() for customer in customers))
    lost = await lost_answers(witness)
    report = {
        "seed": seed,
        "kills": 2 * CYCLES,
        "acknowledged": witness.acknowledged,
        "refused": sum(one.answers[0].status >= 400 for one in witness.operations.values()),
        "unknown": sum(one.unknown > 0 for one in witness.operations.values()),
        "unknown tries": sum(one.unknown for one in witness.operations.values()),
        "replayed": sum(one.answers[0].is_replay for one in witness.operations.values()),
        "left aside": left,
        "lost": len(lost),
    }
    print("\ncrashes:", report)  # noqa: T201 - seen with -s
    assert lost == []
    async with Client(site.url, site.admin_key) as admin:
        recorded = await admin.recorded_errors()
    assert (witness.failures, recorded) == ([], [])
    assert report["unknown"] > 0, "no kill met an operation under way"
    await assert_books_agree(site, witness, customers, keys_before)
    await witness.close()


async def crash_under_load(site: Site, witness: Witness, customers: list[Customer]) -> None:
    """Customers live through all the kills."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as lives:
        for customer in customers:
            lives.create_task(customer.live(stop))
        for _ in range(CYCLES):
            for kill in (site.kill_postgres, site.kill_api):
                await until(witness.asking(BETWEEN_KILLS), PATIENCE_S)
                before = site.restarts
                kill()
                await site.back(before)
        await until(witness.asking(BETWEEN_KILLS), PATIENCE_S)
        stop.set()


async def lost_answers(witness: Witness) -> list[str]:
    """Keys whose answer is not the same one, however often it was asked for."""
    lost = []

    async def ask(key: str) -> None:
        operation = witness.operations[key]
        again = await witness.repeat(operation)
        first, *others = [*operation.answers, again]
        if not (again.is_replay and all(other.same_as(first) for other in others)):
            lost.append(key)

    keys = list(witness.operations)
    for at in range(0, len(keys), CUSTOMERS):
        await asyncio.gather(*map(ask, keys[at : at + CUSTOMERS]))
    return lost


async def assert_books_agree(
    site: Site, witness: Witness, customers: list[Customer], keys_before: int
) -> None:
    """The clients' books, the database's rows and the ledger's own check."""
    await asyncio.gather(*(customer.assert_all_true() for customer in customers))
    people = [customer.id for customer in customers]
    posted = sum(len(customer.jobs) for customer in customers)
    assert await site.count("SELECT count(*) FROM job WHERE account_id = ANY($1)", people) == posted
    keys = await site.count("SELECT count(*) FROM idempotency") - keys_before
    assert keys == len(witness.operations) == witness.acknowledged
    assert await site.count("SELECT count(*) FROM idempotency WHERE status IS NULL") == 0
    kinds = Counter(
        f"{one.request.url.path.rpartition('/')[2]} {one.answers[0].status}"
        for one in witness.operations.values()
    )
    assert {"jobs 201", "jobs 402", "test-credits 201", "cancel 200"} == set(kinds), kinds
    async with Client(site.url, site.admin_key) as admin:
        check = await admin.check_ledger()
        assert check.ok, check.invariants
        assert check.sum_nano == "0"
