"""A platform with a paid job in its sealed log, and a hand that tampers with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg

from gstd.database.connection import APP_ROLE
from gstd.database.provision import OWNER_ROLE
from gstd.embedded.postgres import PostgresAddress
from gstd.protocol.types import Role
from gstd.sdk.audit import AuditReport, verify
from tests.conftest import PASSWORD
from tests.integration.api.house import House, Person, open_house, signed
from tests.servers import fresh_database


class Scene:
    """A platform with a paid job whose log is sealed, and a way to tamper with it."""

    def __init__(self, house: House, admin: Person, requester: Person, superuser: str) -> None:
        self.house = house
        self.admin = admin
        self.requester = requester
        self._superuser = superuser

    async def tamper(self, *statements: str) -> None:
        connection = await asyncpg.connect(self._superuser)
        try:
            await connection.execute("SET session_replication_role = replica")
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def verify(self, kept: str | None = None) -> AuditReport:
        return await verify(self.admin.client, kept=kept)


@asynccontextmanager
async def open_scene(cluster: PostgresAddress, folder: Path) -> AsyncIterator[Scene]:
    """A platform of its own; what happens to its database harms no other test."""
    async with fresh_database(cluster, f"test_{uuid4().hex}") as name:
        database = cluster.dsn(name, APP_ROLE, PASSWORD)
        owner = cluster.dsn(name, OWNER_ROLE, PASSWORD)
        async with open_house(folder, database, owner, None) as house:
            requester, device = await house.requester(), await house.device()
            job = await house.job(requester, tasks=2)
            claimed = await house.claim(device, job, 2)
            await device.client.submits([signed(device, each) for each in claimed])
            await house.referee()
            await house.number_events()
            await house.job(requester)
            await house.number_events()
            admin = await house.person(Role.ADMIN)
            yield Scene(house, admin, requester, cluster.dsn(name))
