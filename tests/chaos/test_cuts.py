"""The connection ends between the commit and the answer: the repetition gets the stored answer."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator

import httpx2
import msgspec
import pytest

from gstd.protocol.people import NewAccount
from gstd.sdk import Client, Pacing
from tests.chaos.proxy import Cut, LossyProxy
from tests.chaos.site import Site

CREDIT = 1_000_000_000
AT_ONCE = Pacing(draw=lambda: 0.0)
"""Tests repeat without a pause."""

AFTER_COMMIT = [[Cut.NOTHING], [Cut.PART_OF_HEAD], [Cut.ALL_BUT_A_BYTE]]
CUTS = [*AFTER_COMMIT, [Cut.NOT_WAITED_FOR], list(Cut), [*Cut] * 2]


def named(cuts: list[Cut]) -> str:
    return ", ".join(cut.name.lower() for cut in cuts)


@pytest.fixture
async def proxy(site: Site) -> AsyncIterator[LossyProxy]:
    async with LossyProxy.to(site.url) as proxy:
        yield proxy


async def assert_settled(site: Site, who: NewAccount, *, jobs: int, granted: int) -> None:
    """The account has these jobs, this money and a sound ledger."""
    async with Client(site.url, who.api_key) as client:
        page = await client.jobs()
        assert len(page.items) == jobs
        [balance] = (await client.wallet()).balances
        locked = sum(int(job.total_nano) for job in page.items)
        assert int(balance.escrow_nano) == locked
        assert int(balance.total_nano) == granted
    async with Client(site.url, site.admin_key) as admin:
        assert (await admin.check_ledger()).ok


def assert_repeated_with_one_key(proxy: LossyProxy, cuts: list[Cut]) -> None:
    """One try per cut and one more, all alike; what was committed before was only replayed."""
    tries = proxy.exchanges
    assert [one.cut for one in tries] == [*cuts, None]
    assert len({one.request.headers["idempotency-key"] for one in tries}) == 1
    assert len({one.request.body for one in tries}) == 1
    answers = [one.answer for one in tries if one.answer is not None]
    assert len({answer.body for answer in answers}) == 1
    replayed = ["idempotent-replayed" in answer.headers for answer in answers]
    assert all(replayed[1:])
    if tries[0].answer is not None:
        assert not replayed[0]


@pytest.mark.parametrize("cuts", CUTS, ids=named)
async def test_the_sdk_posts_one_job_however_often_its_answer_is_lost(
    site: Site, proxy: LossyProxy, cuts: list[Cut]
) -> None:
    who = await site.account(CREDIT)
    async with Client(proxy.url, who.api_key, pacing=AT_ONCE) as client:
        proxy.cuts.extend(cuts)
        job = await client.post_job(site.job())
        assert [item.id for item in (await client.jobs()).items] == [job.id]
    assert_repeated_with_one_key(proxy, cuts)
    await assert_settled(site, who, jobs=1, granted=CREDIT)


@pytest.mark.parametrize("cuts", CUTS, ids=named)
async def test_the_sdk_grants_once_however_often_its_answer_is_lost(
    site: Site, proxy: LossyProxy, cuts: list[Cut]
) -> None:
    who = await site.account()
    async with Client(proxy.url, site.admin_key, pacing=AT_ONCE) as admin:
        proxy.cuts.extend(cuts)
        wallet = await admin.credit(who.account.id, CREDIT)
        assert wallet.balances[0].available_nano == str(CREDIT)
    assert_repeated_with_one_key(proxy, cuts)
    await assert_settled(site, who, jobs=0, granted=CREDIT)


@pytest.mark.parametrize("cuts", AFTER_COMMIT, ids=named)
async def test_any_client_that_keeps_its_key_gets_the_lost_answer(
    site: Site, proxy: LossyProxy, cuts: list[Cut]
) -> None:
    who = await site.account(CREDIT)
    headers = {"Authorization": f"Bearer {who.api_key}", "Idempotency-Key": "kept"}
    body = msgspec.json.encode(site.job())
    proxy.cuts.extend(cuts)
    async with httpx2.AsyncClient(base_url=proxy.url, headers=headers, trust_env=False) as http:
        with pytest.raises(httpx2.TransportError):
            await http.post("/api/v1/jobs", content=body)
        answer = await http.post("/api/v1/jobs", content=body)
    assert answer.status_code == 201
    assert answer.headers["idempotent-replayed"] == "true"
    lost = proxy.exchanges[0].answer
    assert lost is not None
    assert answer.content == lost.body
    assert "idempotent-replayed" not in lost.headers
    await assert_settled(site, who, jobs=1, granted=CREDIT)


async def test_the_command_line_posts_one_job_although_answers_are_lost(
    site: Site, proxy: LossyProxy
) -> None:
    who = await site.account(CREDIT)
    proxy.cuts.extend(2 * AFTER_COMMIT[0])
    command = ["job", "submit", site.module_id, "--reward", "0.001", "--count", "1", "--json"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gstd.cli.main", *command),
        env={
            **os.environ,
            "GSTD_URL": proxy.url,
            "GSTD_API_KEY": who.api_key,
            "GSTD_STATE": site.settings.state,
        },
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert not proxy.cuts
    [job] = {one.answer.body for one in proxy.exchanges if one.answer is not None}
    assert json.loads(output)["id"] == json.loads(job)["id"]
    await assert_settled(site, who, jobs=1, granted=CREDIT)
