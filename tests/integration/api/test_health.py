"""Health: what works, what does not, and that each part is named."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import httpx2

from gstd.database.migrate import latest_version
from gstd.protocol.people import Health
from tests.integration.api.house import URL, House, bearer, open_house, problem_of
from tests.servers import Wire, running_valkey, until


def parts(health: Health) -> dict[str, str]:
    return {part.name: part.status for part in health.parts}


async def health_of(house: House) -> tuple[int, Health]:
    response = await house.http.get("/api/v1/health")
    return response.status_code, (await (await house.person()).client.health())


async def test_a_whole_platform_is_healthy(house: House) -> None:
    response = await house.http.get("/api/v1/health")
    assert response.status_code == 200
    answer = response.json()
    assert answer["status"] == "healthy"
    assert answer["schema_version"] == latest_version()
    assert [part["name"] for part in answer["parts"]] == ["postgresql", "valkey"]
    assert {part["status"] for part in answer["parts"]} == {"ok"}
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_without_valkey_in_its_settings_a_platform_is_healthy(
    database_urls: dict[str, str], tmp_path: Path
) -> None:
    async with open_house(tmp_path, database_urls["app"], database_urls["owner"], None) as house:
        status, health = await health_of(house)
    assert (status, health.status) == (200, "healthy")
    assert parts(health) == {"postgresql": "ok", "valkey": "off"}


async def test_a_platform_that_lost_valkey_is_degraded_works_on_and_recovers(
    database_urls: dict[str, str], tmp_path: Path
) -> None:
    async with running_valkey() as server:
        urls = database_urls["app"], database_urls["owner"], server.address().url()
        async with open_house(tmp_path, *urls) as house:
            assert (await health_of(house))[1].status == "healthy"
            await server.stop()
            status, health = await health_of(house)
            assert (status, health.status) == (200, "degraded")
            assert parts(health) == {"postgresql": "ok", "valkey": "gone"}
            job = await house.job(await house.requester())
            device = await house.device()
            assert len(await house.claim(device, job)) == 1
            await server.start()

            async def is_healthy() -> bool:
                return (await health_of(house))[1].status == "healthy"

            await until(is_healthy)


async def test_a_platform_that_lost_postgresql_is_unhealthy_says_so_and_recovers(
    database_urls: dict[str, str], tmp_path: Path
) -> None:
    async with (
        Wire.to(database_urls["app"]) as (wire, url),
        open_house(tmp_path, url, database_urls["owner"], None) as house,
    ):
        person = await house.person()
        await wire.cut()
        response = await house.http.get("/api/v1/health")
        assert response.status_code == 503
        assert response.json()["status"] == "unhealthy"
        states = {part["name"]: part["status"] for part in response.json()["parts"]}
        assert states["postgresql"] == "gone"
        refused = await house.http.get("/api/v1/account", headers=bearer(person))
        problem_of(refused, 503, "database_unavailable")
        posted = await house.http.post("/api/v1/jobs", headers=bearer(person), json={})
        problem_of(posted, 503, "database_unavailable")
        await wire.mend()

        async def is_back() -> bool:
            found = await house.http.get("/api/v1/account", headers=bearer(person))
            return found.status_code == 200

        await until(is_back)
        assert (await person.client.health()).status == "healthy"


async def test_connections_that_died_cost_at_most_a_503_and_never_a_500(
    database_urls: dict[str, str], tmp_path: Path
) -> None:
    async with (
        Wire.to(database_urls["app"]) as (wire, url),
        open_house(tmp_path, url, database_urls["owner"], None) as house,
    ):
        person = await house.person()
        for _ in range(5):
            wire.drop()
            response = await house.http.get("/api/v1/wallet", headers=bearer(person))
            assert response.status_code in (200, 503), response.text
        assert (await house.http.get("/api/v1/wallet", headers=bearer(person))).is_success


async def test_a_schema_of_another_version_is_unhealthy(
    database_urls: dict[str, str], tmp_path: Path
) -> None:
    async with open_house(tmp_path, database_urls["app"], database_urls["owner"], None) as house:
        owner = await asyncpg.connect(database_urls["owner"])
        await owner.execute("INSERT INTO schema_migration VALUES (9999, 'later.sql', 'x')")
        await owner.close()
        response = await house.http.get("/api/v1/health")
    assert response.status_code == 503
    assert response.json()["schema_version"] == 9999
    assert response.json()["parts"][0]["status"] == "outdated"


async def test_health_needs_no_credential(house: House) -> None:
    async with httpx2.AsyncClient(transport=house.transport, base_url=URL) as stranger:
        assert (await stranger.get("/api/v1/health")).status_code == 200
