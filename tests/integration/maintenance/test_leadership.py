"""One leader at a time, by a lease with a term."""

from __future__ import annotations

import asyncio

import pytest

from gstd.database.connection import Database
from gstd.kernel.clock import ManualClock
from gstd.maintenance.leadership import Leadership, SupersededError

LEASE_S = 10


async def test_the_first_leads_and_keeps_leading_in_one_term(
    database: Database, clock: ManualClock
) -> None:
    first, second = (
        Leadership(database, clock, LEASE_S * 1000),
        Leadership(database, clock, LEASE_S * 1000),
    )
    assert await first.lead() == 1
    assert await second.lead() is None
    for _ in range(3):
        clock.advance(seconds=LEASE_S - 1)
        assert await first.lead() == 1
        assert await second.lead() is None


async def test_a_leader_that_died_is_followed_in_the_next_term(
    database: Database, clock: ManualClock
) -> None:
    first, second = (
        Leadership(database, clock, LEASE_S * 1000),
        Leadership(database, clock, LEASE_S * 1000),
    )
    await first.lead()
    clock.advance(seconds=LEASE_S)
    assert await second.lead() == 2
    assert await first.lead() is None
    clock.advance(seconds=LEASE_S)
    assert await first.lead() == 3


async def test_who_resigns_is_followed_at_once(database: Database, clock: ManualClock) -> None:
    first, second = (
        Leadership(database, clock, LEASE_S * 1000),
        Leadership(database, clock, LEASE_S * 1000),
    )
    await first.lead()
    await second.resign()
    assert await second.lead() is None
    await first.resign()
    assert await second.lead() == 2
    await first.resign()
    assert await second.lead() == 2


async def test_of_many_at_once_one_leads(database: Database, clock: ManualClock) -> None:
    people = [Leadership(database, clock, LEASE_S * 1000) for _ in range(10)]
    terms = await asyncio.gather(*(one.lead() for one in people))
    assert sorted(terms, key=str) == [1] + [None] * 9


async def test_two_kinds_of_work_have_their_own_leaders(
    database: Database, clock: ManualClock
) -> None:
    first, second = (
        Leadership(database, clock, LEASE_S * 1000, "a"),
        Leadership(database, clock, LEASE_S * 1000, "b"),
    )
    assert await first.lead() == 1
    assert await second.lead() == 1


async def test_who_was_followed_is_told_so_whatever_became_of_the_follower(
    database: Database, clock: ManualClock
) -> None:
    first, second = (
        Leadership(database, clock, LEASE_S * 1000),
        Leadership(database, clock, LEASE_S * 1000),
    )

    async def check(one: Leadership) -> None:
        await database.run(one.check)

    await first.lead()
    clock.advance(seconds=LEASE_S)
    await check(first)
    await second.lead()
    await check(second)
    with pytest.raises(SupersededError):
        await check(first)
    clock.advance(seconds=LEASE_S)
    with pytest.raises(SupersededError):
        await check(first)
    assert await first.lead() == 3
    await check(first)


async def test_a_lease_is_renewed_only_by_who_has_it(
    database: Database, clock: ManualClock
) -> None:
    first, second = (
        Leadership(database, clock, LEASE_S * 1000),
        Leadership(database, clock, LEASE_S * 1000),
    )
    await first.lead()
    clock.advance(seconds=LEASE_S - 1)
    await first.renew()
    clock.advance(seconds=1)
    assert await second.lead() is None
    clock.advance(seconds=LEASE_S)
    assert await second.lead() == 2
    await first.renew()
    clock.advance(seconds=LEASE_S)
    assert await first.lead() == 3
