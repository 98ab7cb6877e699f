"""The notebook of a transaction: which rows somebody should hear of once it is committed.

Rooms note identifiers while they write; what was noted is told after the commit, and forgotten
with a rollback. So nobody below needs to know who listens, and nobody can tell too early.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from uuid import UUID

_open: ContextVar[set[UUID] | None] = ContextVar("notebook", default=None)


def note_queued(tasks: Iterable[UUID]) -> None:
    """Note tasks whose place in the queue this transaction changes. Outside of one: nothing."""
    noted = _open.get()
    if noted is not None:
        noted.update(tasks)


@contextmanager
def notebook() -> Iterator[set[UUID]]:
    """What is noted while the block runs."""
    noted: set[UUID] = set()
    token = _open.set(noted)
    try:
        yield noted
    finally:
        _open.reset(token)
