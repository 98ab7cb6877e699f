"""Corrections: what one admin proposes moves only when another one applies it."""

from __future__ import annotations

import asyncio

import pytest

from gstd.protocol.corrections import (
    AccountName,
    CorrectableKind,
    CorrectionRequest,
    CorrectionView,
)
from gstd.protocol.types import Asset, Role
from gstd.sdk import ApiError
from tests.integration.api.house import House, Person

AMOUNT = 5_000


def name(person: Person) -> AccountName:
    return AccountName(kind=CorrectableKind.AVAILABLE, owner=person.id)


def wish(giver: Person, taker: Person, amount: int = AMOUNT) -> CorrectionRequest:
    return CorrectionRequest(
        debit=name(giver),
        credit=name(taker),
        asset=Asset.TEST,
        amount_nano=str(amount),
        reason="credited to the wrong account",
    )


async def available(person: Person) -> int:
    return sum(int(item.available_nano) for item in (await person.client.wallet()).balances)


async def test_a_correction_moves_money_once_when_a_second_admin_applies_it(house: House) -> None:
    first, second = [await house.person(Role.ADMIN) for _ in range(2)]
    giver, taker = await house.person(credit=AMOUNT), await house.person()
    made = await first.client.propose_correction(wish(giver, taker))
    assert (made.state, made.proposed_by, made.decided_by) == ("proposed", first.id, None)
    assert await available(giver) == AMOUNT
    with pytest.raises(ApiError) as refused:
        await first.client.decide_correction(made.id, apply=True)
    assert refused.value.code == "second_admin_needed"
    done = await second.client.decide_correction(made.id, apply=True)
    assert (done.state, done.decided_by) == ("applied", second.id)
    assert (await available(giver), await available(taker)) == (0, AMOUNT)
    with pytest.raises(ApiError) as again:
        await second.client.decide_correction(made.id, apply=True)
    assert again.value.code == "correction_decided"
    assert (await first.client.corrections())[0] == done
    assert (await first.client.check_ledger()).ok


async def test_what_was_proposed_may_be_rejected_by_anybody_who_is_admin(house: House) -> None:
    admin = await house.person(Role.ADMIN)
    giver, taker = await house.person(credit=AMOUNT), await house.person()
    made = await admin.client.propose_correction(wish(giver, taker))
    assert (await admin.client.decide_correction(made.id, apply=False)).state == "rejected"
    assert await available(giver) == AMOUNT


async def test_a_correction_never_overdraws(house: House) -> None:
    first, second = [await house.person(Role.ADMIN) for _ in range(2)]
    giver, taker = await house.person(credit=AMOUNT), await house.person()
    made = await first.client.propose_correction(wish(giver, taker, AMOUNT + 1))
    with pytest.raises(ApiError) as refused:
        await second.client.decide_correction(made.id, apply=True)
    assert refused.value.code == "insufficient_funds"
    assert made in await first.client.corrections()
    assert await available(giver) == AMOUNT


async def test_many_admins_at_once_apply_it_once(house: House) -> None:
    first = await house.person(Role.ADMIN)
    others = [await house.person(Role.ADMIN) for _ in range(8)]
    giver, taker = await house.person(credit=AMOUNT * 3), await house.person()
    made = await first.client.propose_correction(wish(giver, taker))
    answers = await asyncio.gather(
        *(admin.client.decide_correction(made.id, apply=True) for admin in others),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, CorrectionView) for answer in answers) == 1
    assert await available(taker) == AMOUNT


async def test_nobody_else_may_correct_and_nonsense_is_refused(house: House) -> None:
    admin, person = await house.person(Role.ADMIN), await house.person(credit=AMOUNT)
    with pytest.raises(ApiError) as refused:
        await person.client.propose_correction(wish(person, admin))
    assert refused.value.status == 403
    ownerless = AccountName(kind=CorrectableKind.AVAILABLE)
    for debit, credit in [
        (name(person), name(person)),
        (ownerless, name(person)),
        (AccountName(kind=CorrectableKind.FEE, owner=person.id), name(person)),
    ]:
        request = CorrectionRequest(
            debit=debit, credit=credit, asset=Asset.TEST, amount_nano="1", reason="x"
        )
        with pytest.raises(ApiError) as nonsense:
            await admin.client.propose_correction(request)
        assert (nonsense.value.status, nonsense.value.code) == (400, "invalid_input")
