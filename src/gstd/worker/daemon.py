"""The worker: finds work, carries it out, keeps it alive, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from gstd.kernel.errors import GstdError
from gstd.protocol.matching import NO_LIMITS, DeviceLimits
from gstd.protocol.work import OffersRequest, Released, ReleaseItem, ReleaseReason
from gstd.sandbox.profile import PROFILE
from gstd.sdk.device import DeviceClient
from gstd.sdk.errors import SdkError
from gstd.sdk.pacing import DEFAULT_PACING, Pacing
from gstd.worker.attempts import Attempt, Board, Phase
from gstd.worker.errors import is_fatal
from gstd.worker.execution import Execution, Runner
from gstd.worker.finder import Finder
from gstd.worker.heart import Heart
from gstd.worker.misbehave import Alter, honest
from gstd.worker.modules import ModuleCache
from gstd.worker.status import Counters, Ending, ExitCode, OnEvent, Reporter
from gstd.worker.submitter import Submitter


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker works. ``memory_bytes`` is what each of its slots may use,
    ``limits`` what else it takes.

    ``alter`` is the testing aid of ``misbehave``. ``goodbye_s`` is how long a stopping worker
    tries to hand in what is ready and to give back the rest.
    """

    slots: int = 1
    memory_bytes: int = 256 << 20
    limits: DeviceLimits = NO_LIMITS
    wait_ms: int = 20_000
    goodbye_s: float = 0.9
    profile: str = PROFILE
    alter: Alter = honest
    on_event: OnEvent | None = None
    pacing: Pacing = DEFAULT_PACING


class Worker:
    """One device at work. Runs once: make another for another run."""

    def __init__(
        self,
        client: DeviceClient,
        sandbox: Runner,
        modules: ModuleCache,
        options: WorkerOptions | None = None,
    ) -> None:
        self._options = options = options or WorkerOptions()
        pacing = options.pacing
        self._client = client
        self._reporter = Reporter(options.on_event)
        self._board = Board(options.slots)
        self._submitter = Submitter(client, self._reporter, pacing)
        self._heart = Heart(client, self._board, self._reporter, pacing)
        self._execution = Execution(
            client, sandbox, modules, self._submitter, self._reporter, options.alter, pacing
        )
        request = OffersRequest(
            **msgspec.structs.asdict(options.limits) | {"memory_bytes": options.memory_bytes},
            profile=options.profile,
            wait_ms=options.wait_ms,
        )
        self._finder = Finder(client, self._board, self._reporter, request, self._begin, pacing)
        self._stopping = asyncio.Event()
        self._fatal: GstdError | None = None
        self._returned: list[Attempt] = []

    @property
    def counters(self) -> Counters:
        """Totals since the start."""
        return self._reporter.counters

    def stop(self) -> None:
        """Take nothing new, give running attempts back, end within a second. Does not wait."""
        self._stopping.set()

    async def run(self) -> Ending:
        """Work until ``stop`` is called or the platform bars the device.

        Everything that passes (a restarting platform, a lost network) is waited out.
        """
        finding = asyncio.create_task(self._finder.run(), name="find")
        beating = asyncio.create_task(self._heart.run(), name="beat")
        sending = asyncio.create_task(self._submitter.run(), name="send")
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        loops: list[asyncio.Task[object]] = [finding, beating, sending, stopping]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                self._note_end(task)
            self.stop()
            self._reporter.stopping()
            await _cancel([finding, beating])
            await self._say_goodbye()
        finally:
            self.stop()
            running = [attempt.task for attempt in self._board if attempt.task is not None]
            await _cancel([*loops, *running])
            await self._finder.stop(0)
        ending = self._ending()
        self._reporter.stopped(ending)
        return ending

    def _begin(self, attempt: Attempt) -> None:
        """Start a claimed attempt, or remember to give it back."""
        if self._stopping.is_set():
            self._returned.append(attempt)
        elif self._board.add(attempt):
            self._reporter.claimed(attempt)
            attempt.task = asyncio.create_task(self._carry(attempt))

    async def _carry(self, attempt: Attempt) -> None:
        try:
            self._finder.ran(well=await self._execution.carry_out(attempt))
        except asyncio.CancelledError:
            if attempt.lost is None:
                raise
            self._reporter.lost(attempt, attempt.lost)
        except GstdError as error:
            self._fail(error)
        finally:
            self._reporter.ended()
            self._board.remove(attempt)

    def _note_end(self, loop: asyncio.Task[object]) -> None:
        """A loop ends only by an error: a refusal for good, or a bug, which is raised."""
        error = loop.exception()
        if not isinstance(error, SdkError) or not is_fatal(error):
            assert error is not None
            raise error
        self._fail(error)

    def _fail(self, error: GstdError) -> None:
        self._fatal = error
        self.stop()

    async def _say_goodbye(self) -> None:
        """Kill what runs and give it back; results that are ready may still be handed in."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.goodbye_s):
                held = list(self._board)
                running = [attempt for attempt in held if attempt.phase is Phase.RUNNING]
                await _cancel([one.task for one in running if one.task is not None])
                await self._finder.stop(self._options.goodbye_s / 3)
                if self._fatal is None:
                    ready = [one.task for one in self._board if one.task is not None]
                    await asyncio.gather(
                        self._give_back([*running, *self._returned]),
                        *ready,
                        return_exceptions=True,
                    )

    async def _give_back(self, attempts: list[Attempt]) -> None:
        reason = ReleaseReason.SHUTTING_DOWN
        items = [ReleaseItem(attempt_id=attempt.id, reason=reason) for attempt in attempts]
        outcomes = await self._client.releases(items)
        for attempt, outcome in zip(attempts, outcomes, strict=True):
            if isinstance(outcome, Released):
                self._reporter.released(attempt, reason, "the worker is stopping")

    def _ending(self) -> Ending:
        error = self._fatal
        if error is None:
            return Ending(exit_code=ExitCode.STOPPED, detail="stopped")
        if error.code == "device_barred":
            return Ending(exit_code=ExitCode.BARRED, detail=error.detail, hint=error.advice)
        hint = "Enrol this device with a code from `gstd worker code`."
        return Ending(exit_code=ExitCode.NOT_ENROLLED, detail=error.detail, hint=hint)


async def _cancel(tasks: list[asyncio.Task[object]] | list[asyncio.Task[None]]) -> None:
    """End tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
