"""Errors that nobody expected: recorded for the operator, without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import structlog

from gstd.database.connection import Connection, Database, to_structs
from gstd.database.sql import load_queries
from gstd.kernel.errors import GstdError
from gstd.kernel.ids import new_id
from gstd.protocol.people import RecordedError

log = structlog.get_logger()
_sql = load_queries("gstd.events")

_DETAIL_CHARACTERS = 2_000
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


async def record(
    database: Database,
    error: BaseException,
    *,
    place: str,
    now: datetime,
    request_id: str | None = None,
    context: Mapping[str, str] | None = None,
) -> None:
    """Log an unexpected error and keep it for the operator, if the database can be reached."""
    log.error("unexpected_error", place=place, request_id=request_id, exc_info=error)
    try:
        async with database.transaction() as connection:
            await connection.execute(
                _sql["record_error"],
                new_id(),
                now,
                error.code if isinstance(error, GstdError) else type(error).__name__,
                place,
                request_id,
                str(error)[:_DETAIL_CHARACTERS],
                dict(context or {}),
            )
    except GstdError as failure:
        log.warning("error_not_recorded", code=failure.code)


async def recorded(
    connection: Connection, *, since: datetime = LONG_AGO, limit: int = 100
) -> list[RecordedError]:
    """Recorded errors, newest first."""
    return to_structs(await connection.fetch(_sql["recorded_errors"], since, limit), RecordedError)
