"""A worker under signals: the first asks it to stop, the second ends the process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from gstd.worker.daemon import Worker
from gstd.worker.status import Ending

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _end_process(number: int) -> None:
    os._exit(128 + number)  # the sandbox's processes die with this one


async def run_until_signal(
    worker: Worker, hard_exit: Callable[[int], None] = _end_process
) -> Ending:
    """Run a worker until it ends by itself or SIGTERM or SIGINT stops it."""
    loop = asyncio.get_running_loop()
    asked = False

    def on_signal(number: int) -> None:
        nonlocal asked
        if asked:
            hard_exit(number)
        asked = True
        worker.stop()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await worker.run()
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
