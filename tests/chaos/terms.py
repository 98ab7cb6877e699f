"""Every change of the leader's row, written down by the database itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import NamedTuple

import asyncpg

REMEMBER = """
CREATE TABLE leader_history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, term bigint, holder text,
    at timestamptz DEFAULT clock_timestamp(), expires_at timestamptz
);
CREATE FUNCTION remember_term() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO public.leader_history (term, holder, expires_at)
    VALUES (NEW.term, NEW.holder, NEW.expires_at);
    RETURN NULL;
END $$;
CREATE TRIGGER remember AFTER INSERT OR UPDATE ON leader
    FOR EACH ROW EXECUTE FUNCTION remember_term();
"""


class Term(NamedTuple):
    """Who leads since when."""

    number: int
    holder: str

    @property
    def pid(self) -> int:
        """The scheduler's process."""
        return int(self.holder.rsplit("-", 2)[1])


class Terms:
    """The terms of one database, which are kept from the beginning."""

    def __init__(self, owner_url: str) -> None:
        self._url = owner_url

    async def remember(self) -> None:
        """Begin to write them down."""
        async with self._owner() as owner:
            await owner.execute(REMEMBER)

    async def now(self) -> Term | None:
        """The present term; nothing before the first and while the database is away."""
        try:
            async with self._owner() as owner:
                row = await owner.fetchrow("SELECT term, holder FROM leader")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return None
        return Term(*row) if row else None

    def after(self, last: Term) -> Callable[[], Awaitable[Term | None]]:
        """Looks for a later term."""

        async def look() -> Term | None:
            term = await self.now()
            return term if term is not None and term.number > last.number else None

        return look

    async def assert_one_led_at_a_time(self) -> None:
        """A new term for each new holder, never before the last lease was over."""
        async with self._owner() as owner:
            rows = await owner.fetch("SELECT * FROM leader_history ORDER BY id")
        assert rows[-1]["term"] > 1, "nobody was ever followed"
        for last, row in pairwise(rows):
            followed = row["holder"] != last["holder"]
            assert row["term"] == last["term"] + followed
            assert not followed or row["at"] >= last["expires_at"]

    @asynccontextmanager
    async def _owner(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        owner = await asyncpg.connect(self._url)
        try:
            yield owner
        finally:
            await owner.close()
