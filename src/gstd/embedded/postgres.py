"""PostgreSQL on a private Unix socket, started, kept alive and stopped by us.

Layout: ``<state>/postgres/`` is ours with mode 0700 and holds ``password``, ``lock``,
``server.log`` and ``data/``; the socket lies in ``data/`` (in a short private folder when that
path is too long for a socket).

Root cannot run PostgreSQL, so root's server runs as ``nobody`` (or ``account``), which owns
``data/`` but may not enter the folders above it. It need not: the wrapper opens ``data/`` as root,
then drops to the account, and the server knows its folder only as ``/proc/self/fd/3``. So the state
folder may lie below a private home such as ``/root``, nothing above it is opened, and other
processes of ``nobody`` find no path to the data. (Not ``/proc/self/cwd``: PostgreSQL 15 leaves its
working directory for a moment and could not return.) Only binaries below a private folder are
copied, to ``/var/cache/gstd``, because their libraries are found by absolute path.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from gstd.embedded import binaries, pids, state
from gstd.embedded.errors import (
    PasswordLostError,
    RootNotSupportedError,
    StartFailedError,
    VersionMismatchError,
)
from gstd.embedded.process import Command, ManagedProcess, State, run_to_end, to_its_end, until

_PORT = 5432
_SOCKET = f".s.PGSQL.{_PORT}"
_SUPERUSER = "postgres"
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_SETTINGS = {
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "idle_in_transaction_session_timeout": "60s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresAddress:
    """How to connect: ``host`` is the folder of the socket."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)

    def dsn(self, database: str = "postgres", user: str = "", password: str = "") -> str:
        """A ``postgresql://`` URL for a database, as the superuser unless told otherwise."""
        who = f"{quote(user or self.user, safe='')}:{quote(password or self.password, safe='')}"
        place = f"host={quote(self.host, safe='')}&port={self.port}"
        return f"postgresql://{who}@/{quote(database, safe='')}?{place}"


class _PidFile(NamedTuple):
    pid: int
    status: str


class EmbeddedPostgres:
    """One cluster in ``<state_dir>/postgres`` and its server.

    ``durable=False`` gives up crash safety for speed (tests). ``bin_dir`` overrides the search for
    binaries, ``account`` is who runs the server when we are root, ``runtime`` is where root copies
    binaries that this account could not reach otherwise.
    """

    name = "postgres"

    def __init__(
        self,
        state_dir: Path,
        *,
        durable: bool = True,
        bin_dir: Path | None = None,
        account: str = "nobody",
        runtime: Path = binaries.DEFAULT_RUNTIME,
        on_state: Callable[[str, State], None] | None = None,
    ) -> None:
        self._state_dir = state_dir.absolute()
        self._home = self._state_dir / "postgres"
        self._data = self._home / "data"
        self._sockets = state.socket_folder(self._data, _SOCKET)
        self._durable = durable
        self._bin_dir = bin_dir
        self._account_name = account
        self._runtime = runtime
        self._on_state = on_state
        self._lock = state.StateLock(self._home / "lock")
        self._process: ManagedProcess | None = None
        self._tag = ""

    async def start(self, timeout: float = 60.0) -> PostgresAddress:
        """Make the cluster if there is none, start its server or adopt the one left running.

        Raises an ``EmbeddedError``; then nothing of it runs.
        """
        account = self._account()
        state.server_folder(self._state_dir, "postgres")
        await self._lock.acquire()
        try:
            bin_dir = await asyncio.to_thread(self._binaries, account)
            self._tag = f"gstd_{sha256(self._password().encode()).hexdigest()[:12]}"
            if not self._data.exists():
                await self._init(bin_dir, account)
            if self._sockets != self._data:
                state.make_socket_folder(self._sockets, account)
            self._process = ManagedProcess(
                self._server(bin_dir, account),
                ready=self._is_ready,
                before_restart=self._clear,
                on_state=self._on_state,
            )
            await self._process.start(timeout, adopt=await self._left_running())
        except BaseException:
            await self.stop()
            raise
        return self.address()

    async def stop(self, timeout: float = 10.0) -> None:
        """Fast shutdown: open transactions are rolled back, committed ones are on disk.

        Harmless when it is not running. A cancelled call still stops the server.
        """
        if self._lock.fd >= 0:
            await to_its_end(self._shut_down(timeout))

    async def _shut_down(self, timeout: float) -> None:
        try:
            if self._process is not None:
                await self._process.stop(timeout)
                await self._clear()
            if self._sockets != self._data:
                with suppress(OSError):
                    self._sockets.rmdir()
        finally:
            self._process = None
            self._lock.release()

    def address(self) -> PostgresAddress:
        """How to connect; other processes of the same user may ask without starting anything.

        Raises ``PasswordLostError`` if there is no cluster.
        """
        path = self._home / "password"
        if not path.exists():
            raise PasswordLostError(f"There is no {path}.")
        password = state.kept_secret(path)
        return PostgresAddress(
            host=str(self._sockets), port=_PORT, user=_SUPERUSER, password=password
        )

    @property
    def pid(self) -> int | None:
        """The postmaster's pid, or ``None`` while there is none."""
        found = self._pid_file()
        return found.pid if found and pids.is_running(found.pid) else None

    @property
    def process(self) -> ManagedProcess | None:
        """The supervised wrapper, once started."""
        return self._process

    def _account(self) -> state.Account | None:
        account = state.unprivileged(self._account_name)
        if account is not None and not sys.platform.startswith("linux"):
            raise RootNotSupportedError
        return account

    def _binaries(self, account: state.Account | None) -> Path:
        bin_dir = self._bin_dir or binaries.find_postgres()
        version_file = self._data / "PG_VERSION"
        if version_file.exists():
            made_by, found = int(version_file.read_text()), binaries.postgres_major(bin_dir)
            if made_by != found:
                raise VersionMismatchError(
                    f"The cluster was made by PostgreSQL {made_by}, the binaries are {found}."
                )
        return binaries.reachable_copy(bin_dir, self._runtime) if account else bin_dir

    def _password(self) -> str:
        path = self._home / "password"
        if self._data.exists() and not path.exists():
            raise PasswordLostError(f"There is no {path}.")
        return state.kept_secret(path)

    async def _init(self, bin_dir: Path, account: state.Account | None) -> None:
        """Make the cluster in ``data.new`` and rename it: a killed init leaves no half cluster."""
        fresh = self._home / "data.new"
        _empty_folder(fresh, account)
        options = ["--auth=scram-sha-256", "--pwfile=/dev/stdin", f"--username={_SUPERUSER}"]
        options += ["--no-locale", "--encoding=UTF8", "--data-checksums", "--no-instructions"]
        options += [] if self._durable else ["--no-sync"]
        command = Command(
            name="initdb",
            argv=(str(bin_dir / "initdb"), "-D", _own_folder(fresh, account), *options),
            log=self._home / "initdb.log",
            env=_ENVIRONMENT,
            cwd=fresh,
            account=account,
            grace_seconds=1.0,
            keep_fds=(self._lock.fd,),
        )
        with tempfile.TemporaryFile() as password:
            password.write(self._password().encode() + b"\n")
            password.seek(0)
            if account:
                os.fchown(password.fileno(), account.uid, account.gid)
            code = await run_to_end(command, stdin=password.fileno())
        if code != 0:
            raise StartFailedError(f"initdb failed ({code}).\n{state.log_tail(command.log)}")
        fresh.rename(self._data)

    def _server(self, bin_dir: Path, account: state.Account | None) -> Command:
        settings = _SETTINGS | {"cluster_name": self._tag} | ({} if self._durable else _NOT_DURABLE)
        sockets = "." if self._sockets == self._data else str(self._sockets)
        return Command(
            name=self.name,
            argv=(
                *(str(bin_dir / "postgres"), "-D", _own_folder(self._data, account)),
                *("-h", "", "-k", sockets, "-p", str(_PORT)),
                *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")),
            ),
            log=self._home / "server.log",
            env=_ENVIRONMENT,
            cwd=self._data,
            account=account,
            stop_signal=signal.SIGINT,
            keep_fds=(self._lock.fd,),
        )

    def _pid_file(self) -> _PidFile | None:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return None
        if not lines or not lines[0].isdigit():
            return None
        return _PidFile(int(lines[0]), lines[7].strip() if len(lines) > 7 else "")

    async def _is_ready(self) -> bool:
        found = self._pid_file()
        if found is None or found.status != "ready" or not pids.is_running(found.pid):
            return False
        return await _accepts(self._sockets / _SOCKET)

    async def _left_running(self) -> int | None:
        """The postmaster of this cluster that outlived its owner; anything less is cleared."""
        servers = self._servers()
        found = self._pid_file()
        if found is not None and found.pid in servers and await self._is_ready():
            return found.pid
        await self._clear()
        return None

    def _servers(self) -> list[int]:
        return pids.servers_tagged("postgres", self._tag)

    async def _clear(self) -> None:
        """End what is left of a dead server, and its pid file if PostgreSQL could not judge it.

        PostgreSQL refuses to start while the pid in its file exists, even as a zombie or as another
        program's. The file is dropped only then, and only when no process of the cluster is left;
        in every other case PostgreSQL's own checks are the better ones.
        """
        for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            for pid in self._servers():
                pids.send(pid, signum)
            if await until(lambda: not self._servers(), timeout=5.0):
                break
        found = self._pid_file()
        if found is not None and pids.exists(found.pid) and not self._servers():
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            (self._sockets / f"{_SOCKET}.lock").unlink(missing_ok=True)


def _empty_folder(folder: Path, account: state.Account | None) -> None:
    """A new private folder for the account (or us) in place of whatever was there."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700)
    if account:
        os.chown(folder, account.uid, account.gid)


def _own_folder(folder: Path, account: state.Account | None) -> str:
    """How a server started in ``folder`` names it: see the module's docstring."""
    return "/proc/self/fd/3" if account else str(folder)


async def _accepts(socket: Path) -> bool:
    """Whether somebody listens on this socket."""
    try:
        async with asyncio.timeout(1.0):
            _reader, writer = await asyncio.open_unix_connection(socket)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
