"""What opened tasks read: their own input and the accepted outputs of their parents."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import msgspec

from gstd.blobs.store import BlobCorruptError, BlobMissingError, Blobs
from gstd.database.connection import Connection
from gstd.kernel.settings import Policy
from gstd.protocol.execution import Limits, TaskInput
from gstd.protocol.graphs import Feed, OnFailure
from gstd.tasks.graph import fed, fed_bytes, input_bytes
from gstd.tasks.store import sql

_decode = msgspec.msgpack.Decoder(TaskInput).decode


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A blocked task, as far as opening it needs."""

    id: UUID
    job_id: UUID
    index: int
    priority: int
    template: bytes
    root: UUID
    limits: Limits
    feed: Feed
    on_failure: OnFailure


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Something a task reads: the output of one task, or those of a whole job."""

    place: int
    size: int
    outputs: int = 1
    job: UUID | None = None
    output_hash: bytes | None = None


async def inputs_of(
    connection: Connection, blobs: Blobs, opening: Sequence[Waiting], policy: Policy
) -> dict[UUID, TaskInput | str]:
    """The input of each task with what its parents wrote, or why it can have none."""
    reading = [item for item in opening if item.feed is not Feed.NONE]
    sources = await _sources(connection, reading)
    found: dict[UUID, TaskInput | str] = {}
    fitting: list[tuple[Waiting, TaskInput]] = []
    for item in opening:
        template = _decode(item.template)
        size = input_bytes(template) + sum(
            fed_bytes(item.feed, source.outputs, source.size) for source in sources[item.id]
        )
        if size > policy.max_input_bytes:
            found[item.id] = (
                f"what it reads of its parents makes its input {size} bytes, more than "
                f"{policy.max_input_bytes}"
            )
        else:
            fitting.append((item, template))
    hashes = await _hashes(connection, {item.id: sources[item.id] for item, _ in fitting})
    outputs = await _outputs(blobs, {key for keys in hashes.values() for key in keys if key})
    for item, template in fitting:
        keys = hashes[item.id]
        if any(key is not None and outputs[key] is None for key in keys):
            found[item.id] = "an output that it reads is gone from the store"
        else:
            parts = [None if key is None else outputs[key] for key in keys]
            found[item.id] = fed(template, item.feed, parts)
    return found


async def _sources(connection: Connection, reading: Sequence[Waiting]) -> dict[UUID, list[Source]]:
    """What each task reads, in order."""
    found: dict[UUID, list[Source]] = defaultdict(list)
    if not reading:
        return found
    rows = await connection.fetch(sql["outputs_of_tasks"], [item.id for item in reading])
    for row in rows:
        found[row["task_id"]].append(
            Source(place=row["place"], size=row["size"], output_hash=row["output_hash"])
        )
    whole = await _whole_sources(connection, {item.root for item in reading})
    return defaultdict(
        list,
        {
            item.id: sorted(
                [*whole.get(item.root, ()), *found[item.id]], key=lambda source: source.place
            )
            for item in reading
        },
    )


async def _whole_sources(connection: Connection, roots: Iterable[UUID]) -> dict[UUID, list[Source]]:
    """The whole jobs that tasks of each family read."""
    found: dict[UUID, list[Source]] = defaultdict(list)
    sizes: dict[UUID, tuple[int, int]] = {}
    for edge in await connection.fetch(sql["whole_edges"], list(roots)):
        parent = edge["parent"]
        if parent not in sizes:
            row = await connection.fetchrow(sql["size_of_job"], parent)
            assert row is not None, "an edge has its job"
            sizes[parent] = row["outputs"], row["size"]
        outputs, size = sizes[parent]
        source = Source(place=edge["place"], size=size, outputs=outputs, job=parent)
        found[edge["child"]].append(source)
    return found


async def _hashes(
    connection: Connection, sources: Mapping[UUID, Sequence[Source]]
) -> dict[UUID, list[bytes | None]]:
    """What to read, output by output; ``None`` for missing ones."""
    jobs: dict[UUID, list[bytes | None]] = {}
    found: dict[UUID, list[bytes | None]] = {}
    for task_id, read in sources.items():
        keys: list[bytes | None] = []
        for source in read:
            if source.job is None:
                keys.append(source.output_hash)
                continue
            if source.job not in jobs:
                rows = await connection.fetch(sql["outputs_of_job"], source.job)
                jobs[source.job] = [row["output_hash"] for row in rows]
            keys += jobs[source.job]
        found[task_id] = keys
    return found


async def _outputs(blobs: Blobs, keys: Iterable[bytes]) -> dict[bytes, bytes | None]:
    """Bytes by hash; ``None`` for those that the store has lost."""

    async def read(key: bytes) -> bytes | None:
        try:
            return await blobs.get(key)
        except (BlobMissingError, BlobCorruptError):
            return None

    names = list(keys)
    return dict(zip(names, await asyncio.gather(*map(read, names)), strict=True))
