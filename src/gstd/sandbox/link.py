"""The parent's end of one zygote process: start it, ask it, notice its death."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

import gstd
from gstd.sandbox.errors import HostFault
from gstd.sandbox.profile import PROFILE
from gstd.sandbox.walls import Walls
from gstd.sandbox.wire import (
    FROM_ZYGOTE,
    LENGTH_BYTES,
    Answer,
    Cancel,
    Compile,
    Fault,
    FromZygote,
    Ready,
    Run,
    frame,
    frame_length,
)

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 5.0


def _environment() -> dict[str, str]:
    """Only what Python needs to find this package: secrets stay with the parent."""
    root = str(Path(gstd.__file__).parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    found = {"PYTHONPATH": os.pathsep.join((root, inherited)) if inherited else root}
    return found | {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}


class ZygoteLink:
    """One zygote. Once it is dead, every question is answered with ``Fault``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise HostFault("The zygote has no pipes.")
        self._process = process
        self._requests = process.stdin
        self._answers = process.stdout
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._listener: asyncio.Task[None] | None = None
        self.walls = Walls(())

    @classmethod
    async def start(cls, folder: Path, compile_cpu_seconds: int) -> ZygoteLink:
        """Start a zygote that keeps compiled code in ``folder``, an absolute path.

        Raises ``HostFault``.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # nothing is imported from the working folder
                "-m",
                "gstd.sandbox.zygote",
                str(folder),
                str(compile_cpu_seconds),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=_environment(),
                cwd="/",
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        except OSError as error:
            raise HostFault(f"The sandbox process does not start: {error.strerror}.") from error
        link = cls(process)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await link._greet()
        except TimeoutError:
            link.kill()
            await link.close()
            raise HostFault("The sandbox process does not start in time.") from None
        except BaseException:
            await link.close()
            raise
        link._listener = asyncio.create_task(link._listen())
        return link

    @property
    def pid(self) -> int:
        """Process id of the zygote."""
        return self._process.pid

    @property
    def dead(self) -> bool:
        """Whether the zygote has ended."""
        return self._listener is None or self._listener.done()

    def next_id(self) -> int:
        """An id for a request on this link."""
        return next(self._ids)

    async def ask(self, request: Compile | Run, timeout_seconds: float) -> Answer:
        """Send a request and wait for its answer. Cancelling this kills the child.

        A zygote that does not answer in time is killed, and everyone waiting gets a ``Fault``.
        """
        if self.dead:
            return Fault("The zygote died.")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = future
        try:
            async with asyncio.timeout(timeout_seconds):
                self._requests.write(frame(request))
                await self._requests.drain()
                return await future
        except TimeoutError:
            self.kill()
            return Fault("The zygote does not answer.")
        except ConnectionError:
            return Fault("The zygote died.")
        finally:
            del self._waiting[request.id]
            if not future.done() or future.cancelled():
                self._cancel(request.id)

    def kill(self) -> None:
        """End the zygote and with it every child, at once."""
        # Not Process.kill(): it polls first and may steal the exit status from asyncio's watcher.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def close(self) -> None:
        """End the zygote and wait for it."""
        self._requests.close()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        if self._listener is not None:
            await self._listener

    def _cancel(self, request_id: int) -> None:
        if not self._requests.is_closing():
            self._requests.write(frame(Cancel(request_id)))

    async def _greet(self) -> None:
        try:
            first = await self._receive()
        except (asyncio.IncompleteReadError, msgspec.MsgspecError):
            raise HostFault("The sandbox process does not start.") from None
        if not isinstance(first, Ready) or first.profile != PROFILE:
            raise HostFault(f"The sandbox process has another engine than {PROFILE}.")
        self.walls = first.walls

    async def _receive(self) -> FromZygote:
        head = await self._answers.readexactly(LENGTH_BYTES)
        message: FromZygote = FROM_ZYGOTE.decode(
            await self._answers.readexactly(frame_length(head))
        )
        return message

    async def _listen(self) -> None:
        try:
            while True:
                message = await self._receive()
                if not isinstance(message, Ready):
                    self._settle(message.id, message)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it has ended, or is about to be closed
        except msgspec.MsgspecError:
            self.kill()
        finally:
            for request_id in list(self._waiting):
                self._settle(request_id, Fault("The zygote died."))

    def _settle(self, request_id: int, answer: Answer) -> None:
        future = self._waiting.get(request_id)
        if future is not None and not future.done():
            future.set_result(answer)
