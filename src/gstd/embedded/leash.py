"""The leash: a process whose owner is gone, even by ``kill -9``, ends within its grace.

The owner keeps the write end of a pipe and never writes; end of file means that it died.

* Foreign commands run under a wrapper::

    python leash.py [--signal INT] [--grace SECONDS] [--user UID:GID] -- command …
    python leash.py [--signal INT] [--grace SECONDS] --pid PID

  The pipe is standard input, or the descriptor in ``GSTD_LEASH_FD`` (standard input is then
  the command's). SIGTERM and SIGINT are passed on; the exit code is the command's, or 128 plus
  its signal. The second form holds a process that already runs.

  With ``--user`` the command runs as that user, starts in ``/``, and has the folder the wrapper
  was started in as descriptor 3: a folder it could not reach by its path is ``/proc/self/fd/3``.
* Our own Python children call ``hold_leash()``.

Imports next to nothing, on purpose: every start of a server waits for this file.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from typing import NamedTuple, NoReturn

LEASH_FD = "GSTD_LEASH_FD"
_POLL_SECONDS = 0.1
_FORWARDED = (signal.SIGTERM, signal.SIGINT)


def hold_leash(grace: float = 1.0) -> bool:
    """End this process when its owner dies: SIGTERM, and after ``grace`` seconds the hard way.

    Returns whether there is a leash (``GSTD_LEASH_FD`` is set). Call it once, early; children
    of this process do not inherit it.
    """
    raw = os.environ.pop(LEASH_FD, None)
    if raw is None:
        return False
    fd = int(raw)
    os.set_inheritable(fd, False)
    threading.Thread(target=_outlive, args=(fd, grace), name="leash", daemon=True).start()
    return True


def _outlive(fd: int, grace: float) -> None:
    while os.read(fd, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    _kill_own_group()
    os._exit(1)


def _kill_own_group() -> None:
    """SIGKILL to everything in this group, this process too, if the group is its own."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)


class _Options(NamedTuple):
    signum: signal.Signals
    grace: float
    account: tuple[int, int] | None
    pid: int | None
    command: list[str]


def _parse(argv: list[str]) -> _Options:
    given: dict[str, str] = {}
    rest = argv
    while rest and rest[0] != "--":
        name, value, *rest = rest
        given[name] = value
    if not given.keys() <= {"--signal", "--grace", "--user", "--pid"}:
        raise ValueError(f"unknown options: {sorted(given)}")
    pid = int(given["--pid"]) if "--pid" in given else None
    if (pid is None) == (not rest[1:]):
        raise ValueError("either --pid or a command after -- is needed")
    uid, _, gid = given.get("--user", "").partition(":")
    return _Options(
        signum=signal.Signals["SIG" + given.get("--signal", "TERM")],
        grace=float(given.get("--grace", "5")),
        account=(int(uid), int(gid)) if uid else None,
        pid=pid,
        command=rest[1:],
    )


def _become(options: _Options, *, own_stdin: bool) -> NoReturn:
    """Turn this freshly forked process into the command."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if not own_stdin:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    first_unused = 3
    if options.account is not None:
        uid, gid = options.account
        _folder_as_descriptor_3()
        first_unused = 4
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    os.closerange(first_unused, os.sysconf("SC_OPEN_MAX"))
    os.execvp(options.command[0], options.command)  # noqa: S606 - no shell is the point


def _folder_as_descriptor_3() -> None:
    """Keep the working directory as descriptor 3 and leave it."""
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    if folder == 3:
        os.set_inheritable(folder, True)
    else:
        os.dup2(folder, 3)
    os.chdir("/")


def _launch(options: _Options, *, own_stdin: bool) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            _become(options, own_stdin=own_stdin)
        except OSError as error:
            os.write(2, f"leash: {options.command[0]}: {error}\n".encode())
        finally:
            os._exit(127)
    return pid


class _Held:
    """The process at the end of the leash: our child, or a stranger known by its pid."""

    def __init__(self, options: _Options, *, own_stdin: bool) -> None:
        self._child = options.pid is None
        self.pid = options.pid if options.pid is not None else _launch(options, own_stdin=own_stdin)
        self.fds: list[int] = []
        if not self._child and sys.platform == "linux":
            try:
                self.fds.append(os.pidfd_open(self.pid))
            except ProcessLookupError:
                pass  # already gone: the first exit_code() says so
            except OSError:
                pass  # an old kernel: polled instead

    def exit_code(self) -> int | None:
        """The exit code once it ended (0 for a stranger), else ``None``."""
        if self._child:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid == 0:
                return None
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if self.fds:
            return 0 if select.select(self.fds, [], [], 0)[0] else None
        return None if self.send(0) else 0

    def send(self, signum: int) -> bool:
        """Send a signal; whether there was somebody to get it."""
        try:
            os.kill(self.pid, signum)
        except ProcessLookupError:
            return False
        return True


def _watch(held: _Held, leash: int, wake: int, options: _Options) -> int:
    """Wait for the command's end, or for the owner's and then bring about the command's."""
    listening = [leash, wake, *held.fds]
    kill_at: float | None = None
    while (code := held.exit_code()) is None:
        patience = None if held.fds or options.pid is None else _POLL_SECONDS
        if kill_at is not None:
            patience = max(0.0, kill_at - time.monotonic())
        ready = select.select(listening, [], [], patience)[0]
        if wake in ready:
            os.read(wake, 64)
        if leash in ready and not os.read(leash, 1):
            listening.remove(leash)
            held.send(options.signum)
            kill_at = time.monotonic() + options.grace
        if kill_at is not None and time.monotonic() >= kill_at:
            held.send(signal.SIGKILL)
            kill_at += _POLL_SECONDS
    if leash not in listening:
        _kill_own_group()
    return code


def main(argv: list[str]) -> int:
    """Run one command on a leash; see the module's docstring."""
    options = _parse(argv)
    raw = os.environ.pop(LEASH_FD, None)
    leash = int(raw) if raw is not None else 0
    awaited = {*_FORWARDED, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    held = _Held(options, own_stdin=leash != 0)
    os.chdir("/")
    wake, alarm = os.pipe()
    os.set_blocking(alarm, False)
    signal.set_wakeup_fd(alarm)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for signum in _FORWARDED:
        signal.signal(signum, lambda number, _: held.send(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, awaited)
    return _watch(held, leash, wake, options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
