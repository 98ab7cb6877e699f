"""``gstd why``."""

from __future__ import annotations

from uuid import UUID

from gstd.cli.output import emit, run
from gstd.cli.session import connect
from gstd.protocol.matching import DeviceWhy, TaskWhy
from gstd.sdk.errors import ApiError


def run_why(thing: UUID, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Say why a task, or else a device, is where it is."""

    async def work() -> TaskWhy | DeviceWhy:
        async with connect(url, api_key) as client:
            try:
                return await client.why_task(thing)
            except ApiError as error:
                if error.code != "task_not_found":
                    raise
            return await client.why_device(thing)

    emit(run(work()), as_json, _words)


def _words(why: TaskWhy | DeviceWhy) -> str:
    what = "task" if isinstance(why, TaskWhy) else "device"
    return f"{what}, {why.state}: {why.words}."
