"""One leader among any number of schedulers, by a lease row with a term."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import timedelta

from gstd.database.connection import Connection, Database
from gstd.database.sql import load_queries
from gstd.kernel.clock import Clock
from gstd.kernel.errors import GstdError

_sql = load_queries("gstd.maintenance")


class SupersededError(GstdError):
    """Another process leads now."""

    code = "leadership_superseded"


class Leadership:
    """This process's claim to a named piece of periodic work."""

    def __init__(
        self, database: Database, clock: Clock, lease_ms: int, name: str = "scheduler"
    ) -> None:
        self._database = database
        self._clock = clock
        self._lease = timedelta(milliseconds=lease_ms)
        self._name = name
        self.holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"

    async def lead(self) -> int | None:
        """Take or renew the lease; the term, or ``None`` while another process leads."""
        now = self._clock.now()
        async with self._database.transaction() as connection:
            term: int | None = await connection.fetchval(
                _sql["lead"], self._name, self.holder, now + self._lease, now
            )
        return term

    async def renew(self) -> None:
        """Lead for a whole lease from now, unless another process took over."""
        until = self._clock.now() + self._lease
        async with self._database.transaction() as connection:
            await connection.execute(_sql["renew"], self._name, self.holder, until)

    async def check(self, connection: Connection) -> None:
        """Raise ``SupersededError`` if another process took over, however sure this one is.

        A leader may sleep longer than its lease between any two steps of its work. Its holder's
        name is its own, so whoever finds another one there is of an earlier term.
        """
        if await connection.fetchval(_sql["superseded"], self._name, self.holder):
            raise SupersededError

    async def resign(self) -> None:
        """Let another process lead at once."""
        async with self._database.transaction() as connection:
            await connection.execute(_sql["resign"], self._name, self.holder, self._clock.now())
