"""What a device does, over HTTP, with real proofs of work."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from gstd.blobs.store import BlobMissingError
from gstd.dispatch import claims, submits
from gstd.ledger import service as ledger
from gstd.protocol.types import Role
from gstd.protocol.work import (
    Claimed,
    ClaimItem,
    HeartbeatsRequest,
    OffersRequest,
    ReleaseItem,
    ReleaseReason,
    SubmitItem,
)
from gstd.sandbox.profile import PROFILE
from gstd.sdk import ApiError
from tests.integration.api.house import REWARD, House, codes, outcome, signed, solved


async def test_offers_become_claims_become_results_become_money(house: House) -> None:
    person, device = await house.requester(), await house.device()
    job = await house.job(person, tasks=3)
    offers = await house.offers_of(device, job, 3)
    assert {offer.reward_nano for offer in offers} == {str(REWARD)}
    claimed = await device.client.claims([solved(offer) for offer in offers])
    assert codes(claimed) == ["Claimed"] * 3
    attempts = [item for item in claimed if isinstance(item, Claimed)]
    assert codes(await device.client.heartbeats([a.attempt_id for a in attempts])) == ["Alive"] * 3
    assert (await person.client.job(job.id)).counts.running == 3
    submitted = await device.client.submits([signed(device, item) for item in attempts])
    assert codes(submitted) == ["Submitted"] * 3
    await house.referee()
    assert (await person.client.job(job.id)).counts.accepted == 3
    now = house.platform.clock.now()
    await house.platform.database.run(lambda conn: ledger.vest_due(conn, now, 1000))
    [balance] = (await device.owner.client.wallet()).balances
    assert balance.available_nano == str(3 * REWARD)
    assert (await person.client.job(job.id)).counts.paid == 3


async def test_claims_and_submits_repeated_give_the_same_attempts(house: House) -> None:
    person, device = await house.requester(), await house.device()
    job = await house.job(person)
    [offer] = await house.offers_of(device, job, 1)
    item = solved(offer)
    first, again = await device.client.claims([item]), await device.client.claims([item])
    assert first == again
    [claimed] = first
    assert isinstance(claimed, Claimed)
    result = signed(device, claimed)
    assert codes(await device.client.submits([result])) == ["Submitted"]
    assert codes(await device.client.submits([result])) == ["Submitted"]
    other = signed(device, claimed, outcome(b"changed my mind"))
    assert codes(await device.client.submits([other])) == ["already_submitted"]


async def test_a_batch_of_64_has_one_outcome_per_item_in_order(house: House) -> None:
    person, device = await house.requester(), await house.device()
    job = await house.job(person, tasks=64)
    offers = await house.offers_of(device, job, 64)
    items = [solved(offer) for offer in offers]
    wrong = {
        3: (msgspec.structs.replace(items[3], nonces=items[4].nonces), "invalid_proof"),
        11: (msgspec.structs.replace(items[11], task_id=uuid4()), "invalid_proof"),
        20: (msgspec.structs.replace(items[20], expires_at=1), "offer_expired"),
        33: (msgspec.structs.replace(items[33], nonces=[]), "invalid_proof"),
        63: (msgspec.structs.replace(items[63], count=0, nonces=[]), "invalid_proof"),
    }
    sent: list[ClaimItem] = [wrong[n][0] if n in wrong else item for n, item in enumerate(items)]
    outcomes = await device.client.claims(sent)
    expected = [wrong[n][1] if n in wrong else "Claimed" for n in range(64)]
    assert codes(outcomes) == expected
    claimed = {n: item for n, item in enumerate(outcomes) if isinstance(item, Claimed)}
    assert all(item.task_id == items[n].task_id for n, item in claimed.items())

    results = [signed(device, item) for item in claimed.values()]
    bad: dict[int, tuple[SubmitItem, str]] = {
        0: (msgspec.structs.replace(results[0], signature=b"x" * 64), "bad_signature"),
        1: (msgspec.structs.replace(results[1], attempt_id=uuid4()), "attempt_not_found"),
        2: (msgspec.structs.replace(results[2], revision=5), "wrong_task"),
        3: (msgspec.structs.replace(results[3], stdout=b"another"), "bad_signature"),
        4: (msgspec.structs.replace(results[5]), "Submitted"),
        5: (msgspec.structs.replace(results[5]), "Submitted"),
    }
    answers = await device.client.submits(
        [bad[n][0] if n in bad else item for n, item in enumerate(results)]
    )
    assert codes(answers) == [bad[n][1] if n in bad else "Submitted" for n in range(len(results))]
    assert (await person.client.job(job.id)).counts.verifying == len(results) - 5


async def test_a_batch_beyond_64_or_empty_is_refused(house: House) -> None:
    device = await house.device()
    for attempts in ([], [uuid4()] * 65):
        body = HeartbeatsRequest(attempts=attempts)
        with pytest.raises(ApiError) as refusal:
            await device.client._post(Any, "/heartbeats", body)
        assert (refusal.value.status, refusal.value.code) == (400, "invalid_input")


async def test_one_poisonous_claim_costs_the_others_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, device = await house.requester(), await house.device()
    job = await house.job(person, tasks=3)
    items = [solved(offer) for offer in await house.offers_of(device, job, 3)]
    real = claims.claim

    async def touchy(conn: Any, batch: Any, *rest: Any) -> Any:
        outcomes = await real(conn, batch, *rest)
        if items[1].offer_id in [one.item.offer_id for one in batch]:
            raise RuntimeError("poison")
        return outcomes

    monkeypatch.setattr(claims, "claim", touchy)
    assert codes(await device.client.claims(items)) == ["Claimed", "internal_error", "Claimed"]
    assert (await person.client.job(job.id)).counts.running == 2
    admin = await house.person(Role.ADMIN)
    places = [(e.place, e.detail) for e in await admin.client.recorded_errors()]
    assert places.count(("work.claims", "poison")) == 1


async def test_one_poisonous_result_costs_the_others_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, device = await house.requester(), await house.device()
    job = await house.job(person, tasks=3)
    results = [signed(device, item) for item in await house.claim(device, job, 3)]
    real = submits.submit

    async def touchy(conn: Any, batch: Any, *rest: Any) -> Any:
        outcomes = await real(conn, batch, *rest)
        if results[0].attempt_id in [one.item.attempt_id for one in batch]:
            raise ZeroDivisionError
        return outcomes

    monkeypatch.setattr(submits, "submit", touchy)
    answers = codes(await device.client.submits(results))
    assert answers == ["internal_error", "Submitted", "Submitted"]
    counts = (await person.client.job(job.id)).counts
    assert (counts.running, counts.verifying) == (1, 2)


async def test_a_released_task_goes_to_another_device(house: House) -> None:
    person, first, second = await house.requester(), await house.device(), await house.device()
    job = await house.job(person)
    [claimed] = await house.claim(first, job)
    item = ReleaseItem(attempt_id=claimed.attempt_id, reason=ReleaseReason.SHUTTING_DOWN)
    assert codes(await first.client.releases([item, item])) == ["Released", "Released"]
    assert codes(await first.client.releases([item])) == ["attempt_over"]
    assert codes(await first.client.heartbeats([claimed.attempt_id])) == ["attempt_over"]
    assert codes(await first.client.submits([signed(first, claimed)])) == ["attempt_over"]
    [again] = await house.claim(second, job)
    assert again.task_id == claimed.task_id


async def test_an_attempt_belongs_to_its_device(house: House) -> None:
    person, device, thief = await house.requester(), await house.device(), await house.device()
    job = await house.job(person)
    [claimed] = await house.claim(device, job)
    assert codes(await thief.client.heartbeats([claimed.attempt_id])) == ["attempt_over"]
    stolen = signed(thief, claimed)
    assert codes(await thief.client.submits([stolen])) == ["attempt_not_found"]
    item = ReleaseItem(attempt_id=claimed.attempt_id, reason=ReleaseReason.DECLINED)
    assert codes(await thief.client.releases([item])) == ["attempt_over"]
    assert codes(await device.client.heartbeats([claimed.attempt_id])) == ["Alive"]


async def test_an_offer_of_one_device_is_worth_nothing_to_another(house: House) -> None:
    person, device, thief = await house.requester(), await house.device(), await house.device()
    job = await house.job(person)
    [offer] = await house.offers_of(device, job, 1)
    assert codes(await thief.client.claims([solved(offer)])) == ["invalid_proof"]
    assert codes(await device.client.claims([solved(offer)])) == ["Claimed"]


@pytest.mark.parametrize("bits", [0, -1, 1])
async def test_a_claim_without_work_is_refused_although_it_names_no_work(
    house: House, bits: int
) -> None:
    person, device = await house.requester(), await house.device()
    job = await house.job(person)
    [task] = await person.client.tasks(job.id)
    forged = ClaimItem(
        offer_id=uuid4(), task_id=task.id, bits=bits, count=1, expires_at=2**40, nonces=["0"]
    )
    assert codes(await device.client.claims([forged])) == ["invalid_proof"]


async def test_module_bytes_are_for_devices_that_hold_an_attempt(house: House) -> None:
    person, device, other = await house.requester(), await house.device(), await house.device()
    job = await house.job(person)
    [claimed] = await house.claim(device, job)
    data = await device.client.module(claimed.metered_hash)
    assert hashlib.sha256(data).hexdigest() == claimed.metered_hash
    for who, name in ((other, claimed.metered_hash), (device, "0" * 64), (device, "zz")):
        with pytest.raises(ApiError) as refusal:
            await who.client.module(name)
        assert (refusal.value.status, refusal.value.code) == (404, "attempt_not_found")


async def test_a_device_without_work_is_told_why(house: House) -> None:
    device = await house.device()
    idle = await device.client.offers(OffersRequest(profile=PROFILE))
    assert (idle.offers, idle.idle) == ([], "no task is waiting")
    await house.job(await house.requester())
    other = await device.client.offers(OffersRequest(profile="another/1"))
    assert other.offers == []
    assert "execution profile" in str(other.idle)


async def test_bytes_that_no_attempt_vouches_for_are_never_stored(house: House) -> None:
    device, stranger = await house.device(), await house.device()
    job = await house.job(await house.requester())
    [claimed] = await house.claim(device, job)
    forged = msgspec.structs.replace(
        signed(device, claimed, outcome(b"forged")), signature=b"\0" * 64
    )
    foreign = signed(stranger, claimed, outcome(b"foreign"))
    assert codes(await device.client.submits([forged])) == ["bad_signature"]
    assert codes(await stranger.client.submits([foreign])) == ["attempt_not_found"]
    for output in (b"forged", b"foreign"):
        with pytest.raises(BlobMissingError):
            await house.platform.blobs.get(hashlib.sha256(output).digest())
    good = signed(device, claimed, outcome(b"vouched for"))
    assert codes(await device.client.submits([good])) == ["Submitted"]
    digest = hashlib.sha256(b"vouched for").digest()
    assert await house.platform.blobs.get(digest) == b"vouched for"
