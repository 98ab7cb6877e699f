"""The reference is served by the platform itself and asks nobody else for anything."""

from __future__ import annotations

import re

from tests.integration.api.house import House

REFERENCE = re.compile(r"""(?:src|href|url)\s*=\s*["']([^"']+)""", re.IGNORECASE)


async def test_the_front_page_leads_to_the_reference(house: House) -> None:
    answer = await house.http.get("/")
    assert answer.status_code in (301, 302, 307)
    assert answer.headers["location"] == "/docs"


async def test_the_reference_page_loads_only_what_the_platform_serves(house: House) -> None:
    page = await house.http.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    references = REFERENCE.findall(page.text)
    assert len(references) >= 3
    assert [url for url in references if not url.startswith("/docs-assets/")] == []
    for url in references:
        asset = await house.http.get(url)
        assert (asset.status_code, len(asset.content) > 100) == (200, True), url
    assert re.findall(r"https?://[^\s\"'<>]+", page.text) == []


async def test_the_description_is_served_as_json(house: House) -> None:
    answer = await house.http.get("/docs/openapi.json")
    assert answer.status_code == 200
    description = answer.json()
    assert description["openapi"].startswith("3.1")
    assert "/api/v1/jobs" in description["paths"]
