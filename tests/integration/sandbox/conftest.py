"""One sandbox for all tests of the room: a zygote is meant to live long."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gstd.sandbox.runner import Sandbox


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def box(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path_factory.mktemp("sandbox") / "cache", slots=2) as sandbox:
        yield sandbox
