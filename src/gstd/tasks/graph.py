"""Dependency graphs as pure rules: cycles, what becomes of a task that waits, bytes of inputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

import msgspec

from gstd.kernel.settings import Policy
from gstd.protocol.execution import TaskInput
from gstd.protocol.graphs import Feed, JobInput, OnFailure, Shape, TaskRef
from gstd.protocol.jobs import JobRequest
from gstd.tasks.errors import GraphCycleError, GraphTooLargeError

Node = TypeVar("Node", bound=Hashable)

FRAME_BYTES = 5
"""What a frame adds to an output: whether it is there, and its length."""


class Fate(StrEnum):
    """What becomes of a task that waits."""

    WAIT = "wait"
    OPEN = "open"
    SKIP = "skip"
    """It ends."""

    STOP = "stop"
    """It ends, and with it all of its job that waits."""


class Prospect(msgspec.Struct, frozen=True, kw_only=True):
    """What a task's parents are: is any of them still to come, which one ended badly."""

    waiting: bool
    failed: str | None


class Place(StrEnum):
    """The two ends of a job in the graph of a request: before and after all of its tasks."""

    BEGIN = "begin"
    END = "end"


Vertex = tuple[str, Place | int]
"""A job's name with one of its ends or the index of one of its tasks."""


def fate(on_failure: OnFailure, prospect: Prospect) -> Fate:
    """What becomes of a task that waits, by the policy of its job."""
    if prospect.failed is not None and on_failure is OnFailure.STOP:
        return Fate.STOP
    if prospect.failed is not None and on_failure is OnFailure.SKIP:
        return Fate.SKIP
    return Fate.WAIT if prospect.waiting else Fate.OPEN


def parents_of(item: TaskInput) -> tuple[int | TaskRef, ...]:
    """The edges an input names; a plain ``TaskInput`` has none."""
    return item.after if isinstance(item, JobInput) else ()


def plain(item: TaskInput) -> TaskInput:
    """The input without its edges, as devices get it."""
    return TaskInput(args=item.args, stdin=item.stdin, seed=item.seed)


def input_bytes(item: TaskInput) -> int:
    """What of an input counts against ``max_input_bytes``."""
    return len(item.stdin) + sum(len(arg.encode()) for arg in item.args)


def fed_bytes(feed: Feed, outputs: int, output_bytes: int) -> int:
    """By how much so many outputs make standard input longer."""
    if feed is Feed.NONE:
        return 0
    return output_bytes + (outputs * FRAME_BYTES if feed is Feed.FRAMES else 0)


def fed(template: TaskInput, feed: Feed, outputs: Sequence[bytes | None]) -> TaskInput:
    """The input with the outputs of its parents, in order; ``None`` is a missing one."""
    if feed is Feed.NONE:
        return template
    framed = feed is Feed.FRAMES
    parts = [_frame(output) if framed else output or b"" for output in outputs]
    return msgspec.structs.replace(template, stdin=b"".join([template.stdin, *parts]))


def _frame(output: bytes | None) -> bytes:
    present, data = output is not None, output or b""
    return bytes([present]) + len(data).to_bytes(4, "big") + data


def check_graph(requests: Mapping[str, JobRequest], policy: Policy) -> None:
    """Raise ``GraphTooLargeError``, or ``GraphCycleError`` naming one cycle of these jobs."""
    edges = sum(len(request.after) for request in requests.values())
    edges += sum(1 for _ in _task_pairs(requests))
    if edges > policy.max_graph_edges:
        raise GraphTooLargeError(f"{edges} edges are more than {policy.max_graph_edges}")
    named = _vertices(requests, policy.max_graph_nodes)
    if cycle := find_cycle(_pairs(requests, named)):
        raise GraphCycleError(" -> ".join(_words(cycle)))


def find_cycle(pairs: Iterable[tuple[Node, Node]]) -> list[Node] | None:
    """One cycle of a graph of (parent, child), its first node again at its end; O(V + E)."""
    children: dict[Node, list[Node]] = defaultdict(list)
    missing: dict[Node, int] = defaultdict(int)
    for parent, child in pairs:
        children[parent].append(child)
        missing[child] += 1
    ready = [node for node in children if node not in missing]
    while ready:
        for child in children.get(ready.pop(), ()):
            missing[child] -= 1
            if not missing[child]:
                ready.append(child)
    left = {node: None for node, count in missing.items() if count}
    if not left:
        return None
    parent_of = {child: node for node in left for child in children.get(node, ()) if child in left}
    path, seen = [next(iter(left))], set[Node]()
    while path[-1] not in seen:  # whoever is left has a parent that is left
        seen.add(path[-1])
        path.append(parent_of[path[-1]])
    return path[path.index(path[-1]) :][::-1]


def _vertices(requests: Mapping[str, JobRequest], most: int) -> list[Vertex]:
    """Tasks that have edges of their own, and those that follow them one to one.

    Raises ``GraphTooLargeError`` when they and the jobs are more than ``most``.
    """
    followers: dict[str, list[str]] = defaultdict(list)
    for name, request in requests.items():
        for edge in request.after:
            if edge.shape is Shape.ONE_TO_ONE:
                followers[edge.job].append(name)
    found = dict.fromkeys(vertex for pair in _task_pairs(requests) for vertex in pair)
    todo = list(found)
    while todo and len(found) + len(requests) <= most:
        name, index = todo.pop()
        new = [(other, index) for other in followers[name] if (other, index) not in found]
        found.update(dict.fromkeys(new))
        todo += new
    if len(found) + len(requests) > most:
        raise GraphTooLargeError(f"the graph has more than {most} nodes")
    return list(found)


def _pairs(
    requests: Mapping[str, JobRequest], named: Iterable[Vertex]
) -> Iterator[tuple[Vertex, Vertex]]:
    """The graph of a request; the ends of a job stand for its tasks that are not ``named``.

    A job that follows one to one begins after its parent begins and ends after it ends.
    """
    yield from _task_pairs(requests)
    indexes: dict[str, list[Place | int]] = defaultdict(list)
    for name, index in named:
        indexes[name].append(index)
        yield (name, Place.BEGIN), (name, index)
        yield (name, index), (name, Place.END)
    for name, request in requests.items():
        yield (name, Place.BEGIN), (name, Place.END)
        for edge in request.after:
            if edge.shape is Shape.ALL:
                yield (edge.job, Place.END), (name, Place.BEGIN)
                continue
            for place in (Place.BEGIN, Place.END, *indexes[edge.job]):
                yield (edge.job, place), (name, place)


def _task_pairs(requests: Mapping[str, JobRequest]) -> Iterator[tuple[Vertex, Vertex]]:
    """The edges that inputs name. Jobs that were posted before are vertices without parents."""
    for name, request in requests.items():
        for index, item in enumerate(request.inputs or ()):
            for parent in parents_of(item):
                if isinstance(parent, int):
                    yield (name, parent), (name, index)
                else:
                    yield (parent.job, parent.index), (name, index)


def _words(cycle: Iterable[Vertex]) -> list[str]:
    """Vertices by name; the two ends of a job are the job."""
    names = [name if isinstance(place, Place) else f"{name}[{place}]" for name, place in cycle]
    words = [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]
    return words if len(words) > 1 else words * 2
