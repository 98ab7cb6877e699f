"""Which rows of the history are asked for."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from gstd.kernel.errors import InvalidInputError
from gstd.protocol.money import Direction, Part, TransferKind
from gstd.protocol.types import Asset

_YEARS: Final = range(1970, 9000)


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows: everything that is not given is not asked.

    ``since`` is included, ``until`` is not. ``job_id`` must be a job of the owner and selects what
    moved through its escrow; ``task_id`` selects whatever moved because of a task.
    """

    asset: Asset | None = None
    part: Part | None = None
    kinds: tuple[TransferKind, ...] = ()
    direction: Direction | None = None
    since: datetime | None = None
    until: datetime | None = None
    task_id: UUID | None = None
    job_id: UUID | None = None

    def check(self) -> None:
        """Raises ``InvalidInputError`` for times that cannot be meant."""
        check_time("since", self.since)
        check_time("until", self.until)
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise InvalidInputError(
                "`since` is not before `until`",
                hint="`since` is the first moment wanted, `until` the first one no longer wanted.",
            )
        if self.task_id is not None and self.job_id is not None:
            raise InvalidInputError(
                "`task_id` and `job_id` are given", hint="A task has one job: give the task alone."
            )

    def selection(self) -> tuple[str | None, str | None, list[str] | None, int | None]:
        """Asset, part, kinds and leg, as the queries take them."""
        leg = None if self.direction is None else int(self.direction is Direction.IN)
        return self.asset, self.part, list(self.kinds) or None, leg


def check_time(name: str, value: datetime | None) -> None:
    """Raises ``InvalidInputError`` for a time that cannot be meant."""
    if value is None:
        return
    if value.tzinfo is None:
        raise InvalidInputError(
            f"`{name}` has no time zone", hint="Write it like 2026-05-01T12:00:00Z."
        )
    if value.year not in _YEARS:
        raise InvalidInputError(
            f"`{name}` is in the year {value.year}",
            hint=f"Give a time between the years {_YEARS.start} and {_YEARS.stop}.",
        )
