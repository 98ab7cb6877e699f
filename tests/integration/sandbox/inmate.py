"""A program that enters the cage and tells, line by line, what it could still do there.

``inmate.py {attempts|burn|tile|box} [--user UID] [--without WALLS]
[--answer ERRNO] [--fallen WALLS]``

Kernels that lack a wall are simulated by a filter that answers its call with an error or, for
``--answer 0``, with a lie: ``--without`` from the start, ``--fallen`` after the trial of the walls.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import mmap
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from gstd.cli.doctor import WeaknessError, _cage
from gstd.protocol.execution import Limits, TaskInput
from gstd.sandbox import seccomp, zygote
from gstd.sandbox.cage import Bounds, Cage
from gstd.sandbox.child import compile_module, run_module
from gstd.sandbox.errors import HostFault
from gstd.sandbox.linux import Linux
from gstd.sandbox.runner import Sandbox
from gstd.sandbox.walls import Wall
from gstd.sandbox.wire import ENCODER, Artefact, Done, Job

HERE = seccomp.PROCESSORS[os.uname().machine]
CREATE_RULESET = 444
PTRACE = {"x86_64": 101, "aarch64": 117}[os.uname().machine]
PTRACE_SEIZE = 0x4206  # attaches without stopping
BOUNDS = Bounds(cpu_seconds=1, data_bytes=1 << 30)
TOO_MUCH = 2 * BOUNDS.data_bytes
GROWSDOWN = 0x100
TILE = TaskInput(args=("3", "2", "8", "64", "500"))
MANDELBROT = Path(__file__).parents[3] / "examples/mandelbrot/mandelbrot.wasm"


def forget(linux: Linux, walls: Iterable[str], error: int = errno.ENOSYS) -> None:
    """From now on this process and its children have a kernel without these walls."""
    numbers = {Wall.LANDLOCK: CREATE_RULESET, Wall.SECCOMP: HERE.seccomp}
    answers = {numbers[Wall(wall)]: seccomp.refuse(error) for wall in walls}
    if answers:
        linux.prctl(38, 1)  # no_new_privs
        steps = seccomp.program(HERE.architecture, answers, seccomp.ALLOW)
        seccomp.install(linux, HERE, steps)


class Attempts:
    """What a module that broke out of the engine might try. The targets listen outside."""

    def __init__(self, linux: Linux, pipe: int) -> None:
        self._linux = linux
        self._pipe = pipe
        self._parent = os.getpid()
        self._name = f"gstd-test-{os.getpid()}"
        self._inet = socket.create_server(("127.0.0.1", 0))
        self._unix = socket.socket(socket.AF_UNIX)
        self._unix.bind(f"\0{self._name}")
        self._unix.listen()
        self._address = self._inet.getsockname()

    def all(self) -> dict[str, Callable[[], object]]:
        return {
            "read a file": lambda: os.open("/proc/self/status", os.O_RDONLY),
            "write a file": lambda: os.open("/tmp", os.O_RDWR | os.O_TMPFILE, 0o600),  # noqa: S108
            "list a folder": lambda: next(Path("/").iterdir()),
            "connect to inet": lambda: socket.create_connection(self._address, 1),
            "connect to unix": self._connect_unix,
            "make a socket pair": socket.socketpair,
            "make a file in memory": lambda: os.memfd_create("x"),
            "fork": self._fork,
            "kill the parent": lambda: os.kill(self._parent, 0),
            "limit the parent": self._limit_parent,
            "trace the parent": lambda: self._linux.syscall(
                PTRACE, PTRACE_SEIZE, self._parent, 0, 0
            ),
            "take more memory": lambda: mmap.mmap(-1, TOO_MUCH, flags=mmap.MAP_PRIVATE),
            "take shared memory": lambda: mmap.mmap(-1, TOO_MUCH),
            "take a stack": lambda: mmap.mmap(-1, TOO_MUCH, flags=mmap.MAP_PRIVATE | GROWSDOWN),
            "execve": self._execve,  # the last: when it works, the new program reports it
        }

    def _connect_unix(self) -> None:
        socket.socket(socket.AF_UNIX).connect(f"\0{self._name}")

    def _fork(self) -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)

    def _limit_parent(self) -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.prlimit(self._parent, resource.RLIMIT_NOFILE, limits)

    def _execve(self) -> None:
        os.set_inheritable(self._pipe, True)
        words = ["sh", "-c", f'printf "execve\\tdone\\n" >&{self._pipe}']
        os.execv("/bin/sh", words)  # noqa: S606 - without a shell is the point


def attempt_all(attempts: Attempts, pipe: int) -> None:
    for name, attempt in attempts.all().items():
        say(pipe, name, outcome_of(attempt))


def outcome_of(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def burn(pipe: int) -> None:
    say(pipe, "burn", "begun")
    while True:
        pass


def tile(pipe: int) -> None:
    """Compile and run the example, both in here."""
    made = compile_module(MANDELBROT.read_bytes() if MODULE is None else MODULE)
    assert isinstance(made, Artefact)
    limits = Limits()
    job = Job(TILE.args, TILE.stdin, TILE.seed, limits)
    done = run_module(made, ENCODER.encode(job))
    assert isinstance(done, Done)
    say(pipe, "tile", ENCODER.encode(done.outcome).hex())


MODULE: bytes | None = None


def say(pipe: int, name: str, text: str) -> None:
    line = memoryview(f"{name}\t{text}\n".encode())
    while line:
        line = line[os.write(pipe, line) :]


def in_the_cage(cage: Cage, linux: Linux, what: str, fallen: list[str]) -> int:
    """Fork a child, enter, do it there; the child's wait status."""
    read_end, pipe = os.pipe()
    attempts = Attempts(linux, pipe)
    pid = os.fork()
    if pid == 0:
        try:
            forget(linux, fallen)
            cage.enter(pipe, BOUNDS)
            work = {"burn": burn, "tile": tile}.get(what, lambda end: attempt_all(attempts, end))
            work(pipe)
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - it is the report
            say(pipe, "failed", repr(error))
        finally:
            os._exit(1)
    os.close(pipe)
    with os.fdopen(read_end) as report:
        sys.stdout.write(report.read())
    return os.waitpid(pid, 0)[1]


async def box() -> None:
    """A whole sandbox on this kernel, and what it, the log and the doctor say about it."""
    structlog.configure(
        processors=[structlog.processors.KeyValueRenderer()],
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )
    with tempfile.TemporaryDirectory() as folder:
        async with Sandbox(Path(folder)) as sandbox:
            outcome = await sandbox.run(MANDELBROT, TILE, Limits())
            os.kill(sandbox.zygote_pid or 0, signal.SIGKILL)
            with contextlib.suppress(HostFault):
                await sandbox.run(MANDELBROT, TILE, Limits())
            again = await sandbox.run(MANDELBROT, TILE, Limits())  # a new zygote says nothing
            print(f"words\t{sandbox.walls.words}")  # noqa: T201
    assert again == outcome
    print(f"tile\t{ENCODER.encode(outcome).hex()}")  # noqa: T201
    try:
        print(f"doctor\tok: {await _cage(None)}")  # type: ignore[arg-type]  # noqa: T201
    except WeaknessError as weakness:
        print(f"doctor\tweak: {weakness.detail}")  # noqa: T201


def main() -> None:
    global MODULE  # noqa: PLW0603 - read before the files are gone, as the zygote does
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("attempts", "burn", "tile", "box"))
    parser.add_argument("--user", type=int)
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--fallen", nargs="*", default=[])
    parser.add_argument("--answer", type=int, default=errno.ENOSYS)
    given = parser.parse_args()
    linux = Linux()
    MODULE = MANDELBROT.read_bytes()
    "x".encode("idna")  # what `connect` loads, before another user cannot read the library
    if given.user is not None:
        os.setgroups([])
        os.setresgid(given.user, given.user, given.user)
        os.setresuid(given.user, given.user, given.user)
    forget(linux, given.without, given.answer)
    if given.what == "box":
        asyncio.run(box())
        return
    cage = Cage(linux)
    sys.stdout.write(f"walls\t{' '.join(cage.walls.standing)}\n")
    sys.stdout.flush()
    status = in_the_cage(cage, linux, given.what, given.fallen)
    sys.stdout.write(f"status\t{os.waitstatus_to_exitcode(status)}\n")


if __name__ == "__main__":
    assert zygote  # loaded before the fork, as in the zygote itself
    main()
