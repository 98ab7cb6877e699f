"""One platform of real processes for all tests of this folder that a worker gets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.chaos.site import Site
from tests.servers import folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def site() -> AsyncIterator[Site]:
    async with folder() as path, Site.open(path / "state") as site:
        yield site
