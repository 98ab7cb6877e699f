"""Edges of a dependency graph as requesters write and read them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from gstd.protocol.execution import TaskInput
from gstd.protocol.types import Name

Index = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class Shape(StrEnum):
    """What a task of a job waits for in another job."""

    ALL = "all"
    """Every task of it: fan-in."""

    ONE_TO_ONE = "one_to_one"
    """The task of its own index."""


class Feed(StrEnum):
    """How outputs of parents become standard input, after what the input itself has there."""

    NONE = "none"
    """Not at all: only the order counts."""

    CONCAT = "concat"
    """One after the other."""

    FRAMES = "frames"
    """Each after a byte (1, or 0 for a missing one) and its length in four bytes, big-endian."""


class OnFailure(StrEnum):
    """What happens to a job's tasks when something they wait for ends without a good result."""

    STOP = "stop"
    """Every task of the job that still waits ends."""

    SKIP = "skip"
    """Only what depends on the failed task ends."""

    CONTINUE = "continue"
    """It runs with what there is; the missing output is marked as missing."""


class JobAfter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job to wait for: the id of an earlier job, or the name of one in the same graph."""

    job: Name
    shape: Shape = Shape.ALL


class TaskRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A task to wait for, in an earlier job or in one of the same graph."""

    job: Name
    index: Index


class JobInput(TaskInput, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task's input, and the tasks it waits for: indexes in the same job, or elsewhere.

    Their outputs are read in this order, after those of the jobs the whole job waits for.
    """

    after: tuple[Index | TaskRef, ...] = ()


class ParentView(msgspec.Struct, frozen=True, kw_only=True):
    """A job that another waits for. ``left`` of its ``tasks`` have no good result yet."""

    job_id: UUID
    shape: str
    tasks: int
    left: int
