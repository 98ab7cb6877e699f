"""``gstd worker pool``: worker processes on this machine, as many as the work needs."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from rich.status import Status

from gstd.cli.credentials import find_credentials
from gstd.cli.output import err, out, print_json
from gstd.cli.up import report_restart, stop_signal
from gstd.cli.worker import Enrolment
from gstd.dispatch.autoscale import Pool, workers_for
from gstd.embedded.process import Command, ManagedProcess, State
from gstd.embedded.state import StateLock, private_folder
from gstd.kernel.errors import GstdError
from gstd.kernel.settings import PREFIX, Policy
from gstd.protocol.autoscale import AutoscaleSignal
from gstd.sdk.client import Client
from gstd.sdk.errors import SdkError
from gstd.sdk.pacing import Pacing
from gstd.worker.status import ExitCode

ONCE = Pacing(retry_for_s=0.0)
"""The next look is the retry."""

FOR_GOOD = frozenset({ExitCode.BARRED, ExitCode.NOT_ENROLLED})
"""How a worker ends that must not be started again."""


class PoolLimitsError(GstdError):
    """The pool's limits contradict each other."""

    code = "invalid_pool"
    hint = "Choose --min and --max so that 0 <= min <= max."


class PoolBarredError(GstdError):
    """Every worker of the pool ended for good."""

    code = "pool_barred"
    hint = "See the workers' logs below --home, and `gstd worker list` for their devices' state."


class PoolOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool may start. ``share`` (0 to 1) is its part of the slots that the work needs."""

    name: str
    home: Path
    minimum: int
    maximum: int
    slots: int
    memory_mb: int
    share: float


class Action(StrEnum):
    """What a look led to. ``wait``: the platform did not answer, so nothing changes."""

    GROW = "grow"
    SHRINK = "shrink"
    KEEP = "keep"
    WAIT = "wait"


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One look at the signal, a line of ``--json``: how many workers run now, and why."""

    action: Action
    workers: int
    signal: AutoscaleSignal | None
    words: str


Tell = Callable[[Look], None]


class Workers:
    """The pool's processes, each with a device of its own. Leaving the context stops them all.

    A worker sits in a numbered place, whose folder keeps its device's key and its log. A place
    whose device was barred stays closed: a new device in its stead would undo the bar.
    """

    def __init__(self, owner: Client, url: str, options: PoolOptions) -> None:
        self._owner = owner
        self._url = url
        self._options = options
        self._live: dict[int, ManagedProcess] = {}
        self._closed: set[int] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop(list(self._live))

    def count(self) -> int:
        """How many run. Raises ``PoolBarredError`` when none ever can again."""
        ended = {at for at, worker in self._live.items() if worker.state is State.STOPPED}
        for place in ended:
            self._live.pop(place)
            err.print(f"[yellow]worker {place} ended for good; its place stays empty[/]")
        self._closed |= ended
        if len(self._closed) == self._options.maximum:
            raise PoolBarredError(f"all {self._options.maximum} workers ended for good")
        return len(self._live)

    async def resize(self, wanted: int) -> None:
        """Start or stop until as many run, as far as there are places."""
        running = self.count()
        taken = self._closed | self._live.keys()
        free = [at for at in range(1, self._options.maximum + 1) if at not in taken]
        for place in free[: max(0, wanted - running)]:
            await self._start(place)
        await self._stop(sorted(self._live, reverse=True)[: max(0, running - wanted)])

    async def _start(self, place: int) -> None:
        worker = ManagedProcess(await self._command(place), on_state=report_restart)
        await worker.start()
        self._live[place] = worker

    async def _stop(self, places: list[int]) -> None:
        """All at once. A worker that is asked to stop gives its tasks back first."""
        stopping = [self._live.pop(place) for place in places]
        await asyncio.gather(*(worker.stop() for worker in stopping))

    async def _command(self, place: int) -> Command:
        """The worker's command. Of our own settings it gets none: a one-time code, once, is all."""
        options = self._options
        home = private_folder(options.home / str(place))
        env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        if not Enrolment.in_home(home).is_done():
            env["GSTD_ENROLMENT_CODE"] = (await self._owner.new_enrolment_code()).code
        return Command(
            name=f"worker {place}",
            argv=(
                *(sys.executable, "-m", "gstd.cli.main", "worker", "start"),
                *("--name", f"{options.name}-{place}", "--home", str(home), "--url", self._url),
                *("--slots", str(options.slots), "--memory-mb", str(options.memory_mb)),
            ),
            log=home / "worker.log",
            env=env,
            calls_hold_leash=True,
            final_codes=FOR_GOOD,
        )


class Follower:
    """Looks at the signal again and again, and lets the workers follow it."""

    def __init__(
        self, owner: Client, workers: Workers, options: PoolOptions, policy: Policy, tell: Tell
    ) -> None:
        self._owner = owner
        self._workers = workers
        self._options = options
        self._every_s = policy.pool_look_ms / 1000
        self._tell = tell
        self._pool = Pool(
            minimum=options.minimum,
            maximum=options.maximum,
            step=policy.pool_step,
            window_s=policy.pool_window_s,
        )

    async def follow(self) -> None:
        """Follow for ever. Raises what the platform refuses for good."""
        while True:
            try:
                look = await self._look()
            except SdkError as error:
                if not error.is_transient:
                    raise
                words = f"{error.detail}: staying as it is until the platform answers"
                count = self._workers.count()
                look = Look(action=Action.WAIT, workers=count, signal=None, words=words)
            self._tell(look)
            await asyncio.sleep(self._every_s)

    async def _look(self) -> Look:
        signal = await self._owner.autoscale()
        needed = workers_for(
            signal.desired_slots, slots=self._options.slots, share=self._options.share
        )
        sizing = self._pool.decide(needed, time.monotonic())
        before = self._workers.count()
        await self._workers.resize(sizing.workers)
        after = self._workers.count()
        return Look(
            action=_action(before, after),
            workers=after,
            signal=signal,
            words=f"{sizing.words}; {signal.words}",
        )


def _action(before: int, after: int) -> Action:
    if after == before:
        return Action.KEEP
    return Action.GROW if after > before else Action.SHRINK


async def run_pool(
    options: PoolOptions, policy: Policy, *, url: str | None, api_key: str | None, as_json: bool
) -> None:
    """Follow the signal until SIGINT or SIGTERM; then every worker gives its tasks back and ends.

    Raises ``PoolLimitsError``, ``StateInUseError`` while another pool runs on the same home, and
    what the platform refuses.
    """
    if not 0 <= options.minimum <= options.maximum:
        raise PoolLimitsError(f"--min {options.minimum} and --max {options.maximum} do not fit")
    credentials = find_credentials(url, api_key)
    stop = stop_signal()
    async with AsyncExitStack() as stack:
        lock = StateLock(private_folder(private_folder(options.home) / "pool") / "lock")
        await lock.acquire()
        stack.callback(lock.release)
        owner = Client(credentials.url, credentials.api_key, pacing=ONCE)
        await stack.enter_async_context(owner)
        workers = await stack.enter_async_context(Workers(owner, credentials.url, options))
        tell: Tell = print_json if as_json else stack.enter_context(_Line()).tell
        follower = Follower(owner, workers, options, policy, tell)
        following = asyncio.create_task(follower.follow())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({following, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if following.done():
            await following
        following.cancel()
        await asyncio.wait({following})


class _Line:
    """A live line on a terminal, and a lasting one whenever something changed."""

    def __init__(self) -> None:
        self._status = Status("looking", console=err)
        self._last_words = ""

    def __enter__(self) -> Self:
        if err.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._status.stop()

    def tell(self, look: Look) -> None:
        self._status.update(f"{look.workers} workers: {look.words}")
        is_news = look.action is not Action.KEEP and look.words != self._last_words
        if is_news or not self._last_words:
            out.print(f"{look.workers} workers: {look.words}", soft_wrap=True)
        self._last_words = look.words
