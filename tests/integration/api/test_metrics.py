"""The signal and the metrics over HTTP: who may read them, and what they tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gstd.protocol.autoscale import AutoscaleSignal
from gstd.protocol.types import Role
from gstd.protocol.work import OffersRequest
from gstd.sandbox.profile import PROFILE
from tests.integration.api.house import House, Person, bearer, open_house, problem_of
from tests.servers import until

TOKEN = "a-token-of-operators"  # noqa: S105 - of this test only


async def metrics(house: House, person: Person) -> dict[str, float]:
    """Every sample by its name, with its state in brackets."""
    answer = await house.http.get("/metrics", headers=bearer(person))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        sample.name + (f"[{sample.labels['state']}]" if "state" in sample.labels else ""): (
            sample.value
        )
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


@pytest.mark.parametrize("role", list(Role))
async def test_every_account_may_read_the_signal(house: House, role: Role) -> None:
    signal = await (await house.person(role)).client.autoscale()
    assert isinstance(signal, AutoscaleSignal)
    assert signal.words


async def test_the_signal_follows_the_work_as_numbers_that_keda_reads(house: House) -> None:
    requester, device = await house.requester(), await house.device()
    await house.job(requester, tasks=300)
    await device.client.offers(OffersRequest(profile=PROFILE))

    async def found() -> dict[str, Any] | None:
        answer = await house.http.get("/api/v1/autoscale", headers=bearer(requester))
        signal: dict[str, Any] = answer.json()
        return signal if signal["backlog"] >= 300 and signal["online_devices"] else None

    signal = await until(found)
    assert type(signal["desired_slots"]) is int
    assert signal["desired_slots"] >= 1


async def test_metrics_tell_an_admin_of_work_and_log(house: House) -> None:
    admin, requester = await house.person(Role.ADMIN), await house.requester()
    await house.job(requester, tasks=5)
    await house.number_events()

    async def settled() -> dict[str, float] | None:
        numbers = await metrics(house, admin)
        return numbers if numbers["gstd_backlog_attempts"] == 5 else None

    found = await until(settled)
    assert found["gstd_tasks[queued]"] == 5
    assert found["gstd_tasks[verifying]"] == 0
    assert found["gstd_open_jobs"] == 1
    assert found["gstd_desired_slots"] >= 1
    assert found["gstd_events_total"] > 0
    assert found["gstd_unnumbered_events"] == 0
    assert found["gstd_referee_runs[queued]"] >= 0
    assert found["gstd_valkey_up"] == 1
    assert found["gstd_build_info"] == 1


async def test_metrics_are_not_public(house: House) -> None:
    problem_of(await house.http.get("/metrics"), 401, "not_authenticated")
    worker = await house.person(Role.WORKER)
    problem_of(await house.http.get("/metrics", headers=bearer(worker)), 403, "not_allowed")
    headers = {"Authorization": "Bearer None"}
    problem_of(await house.http.get("/metrics", headers=headers), 401, "not_authenticated")


async def test_their_own_token_opens_the_metrics_and_nothing_else(
    database_urls: dict[str, str], tmp_path: Path
) -> None:
    urls = database_urls["app"], database_urls["owner"], None
    async with open_house(tmp_path, *urls, metrics_token=TOKEN) as house:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = await house.http.get("/metrics", headers=headers)
        assert answer.status_code == 200
        assert "gstd_expected_wait_seconds 0.0" in answer.text
        refused = await house.http.get("/api/v1/autoscale", headers=headers)
        problem_of(refused, 401, "not_authenticated")
        admin = await house.person(Role.ADMIN)
        assert (await metrics(house, admin))["gstd_valkey_up"] == 0
