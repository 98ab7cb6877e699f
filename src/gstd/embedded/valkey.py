"""Valkey on a private Unix socket: an index that can be rebuilt, so nothing is ever saved.

``<state>/valkey/`` is ours with mode 0700 and holds ``password``, ``lock``, ``valkey.conf``,
``valkey.pid``, ``server.log`` and the socket (which moves to a short private folder when its path
is too long).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from gstd.embedded import binaries, pids, state
from gstd.embedded.process import Command, ManagedProcess, State, to_its_end

_SOCKET = "valkey.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValkeyAddress:
    """How to connect: ``path`` is the socket."""

    path: str
    password: str = field(repr=False)

    def url(self, database: int = 0) -> str:
        """A ``unix://`` URL as redis-py reads it."""
        return f"unix://{quote(self.path)}?password={quote(self.password)}&db={database}"


class EmbeddedValkey:
    """One Valkey server in ``<state_dir>/valkey``. ``binary`` overrides the search for it."""

    name = "valkey"

    def __init__(
        self,
        state_dir: Path,
        *,
        binary: Path | None = None,
        max_memory: str = "256mb",
        on_state: Callable[[str, State], None] | None = None,
    ) -> None:
        self._state_dir = state_dir.absolute()
        self._home = self._state_dir / "valkey"
        self._socket = state.socket_folder(self._home, _SOCKET) / _SOCKET
        self._binary = binary
        self._max_memory = max_memory
        self._on_state = on_state
        self._lock = state.StateLock(self._home / "lock")
        self._process: ManagedProcess | None = None

    async def start(self, timeout: float = 30.0) -> ValkeyAddress:
        """Start the server; one that outlived its owner is shut down first.

        Raises ``BinariesMissingError``, which the caller may answer by running without Valkey, or
        another ``EmbeddedError``; then nothing of it runs.
        """
        binary = self._binary or binaries.find_valkey()
        state.server_folder(self._state_dir, "valkey")
        await self._lock.acquire()
        try:
            if self._socket.parent != self._home:
                state.make_socket_folder(self._socket.parent, None)
            state.write_private(self._home / "valkey.conf", self._settings())
            await self._clear()
            self._process = ManagedProcess(
                self._server(binary),
                ready=self._is_ready,
                before_restart=self._clear,
                on_state=self._on_state,
            )
            await self._process.start(timeout)
        except BaseException:
            await self.stop()
            raise
        return self.address()

    async def stop(self, timeout: float = 5.0) -> None:
        """Stop the server; what it held is gone.

        Harmless when it is not running. A cancelled call still stops the server.
        """
        if self._lock.fd >= 0:
            await to_its_end(self._shut_down(timeout))

    async def _shut_down(self, timeout: float) -> None:
        try:
            if self._process is not None:
                await self._process.stop(timeout)
            self._socket.unlink(missing_ok=True)
            if self._socket.parent != self._home:
                with suppress(OSError):
                    self._socket.parent.rmdir()
        finally:
            self._process = None
            self._lock.release()

    def address(self) -> ValkeyAddress:
        """How to connect; other processes of the same user may ask without starting anything."""
        password = state.kept_secret(self._home / "password")
        return ValkeyAddress(path=str(self._socket), password=password)

    @property
    def pid(self) -> int | None:
        """The server's pid, or ``None`` while there is none."""
        try:
            pid = int((self._home / "valkey.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if pids.is_running(pid) else None

    @property
    def process(self) -> ManagedProcess | None:
        """The supervised wrapper, once started."""
        return self._process

    def _settings(self) -> str:
        settings = {
            "port": "0",
            "unixsocket": _quoted(self._socket),
            "unixsocketperm": "700",
            "requirepass": self.address().password,
            "dir": _quoted(self._home),
            "pidfile": _quoted(self._home / "valkey.pid"),
            "save": '""',
            "appendonly": "no",
            "maxmemory": self._max_memory,
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        return "".join(f"{name} {value}\n" for name, value in settings.items())

    def _server(self, binary: Path) -> Command:
        return Command(
            name=self.name,
            argv=(str(binary), str(self._home / "valkey.conf")),
            log=self._home / "server.log",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            cwd=self._home,
            grace_seconds=1.0,
            keep_fds=(self._lock.fd,),
        )

    async def _is_ready(self) -> bool:
        return await self._ask("PING") == b"+PONG"

    async def _clear(self) -> None:
        """Shut down a server that is still there, and remove the socket it would leave."""
        await self._ask("SHUTDOWN NOSAVE")
        self._socket.unlink(missing_ok=True)

    async def _ask(self, command: str) -> bytes:
        """The first line of the answer to a command, empty if there is none."""
        password = self.address().password
        try:
            async with asyncio.timeout(2.0):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    writer.write(f"AUTH {password}\r\n{command}\r\n".encode())
                    await reader.readline()
                    return (await reader.readline()).strip()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return b""


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
