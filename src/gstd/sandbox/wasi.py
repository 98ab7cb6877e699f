"""The deterministic WASI preview 1 host: one table of functions and what each one does.

A module sees its arguments, its standard input, two outputs, a clock that moves by fixed steps
and a random stream made from the task's seed. It sees no environment, no files and no network.
Nothing here depends on the engine: memory and fuel come in through two small protocols, so that
the TypeScript host can follow the same table.

Source of names, layouts and numbers: WASI snapshot preview 1 (witx), ``wasi_snapshot_preview1``.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Final, Protocol

from gstd.protocol.execution import STDERR_BYTES, Status, TaskInput

WASI_MODULE: Final = "wasi_snapshot_preview1"

FUNCTIONS: Final[dict[str, tuple[str, str]]] = {
    name: (params, "" if name == "proc_exit" else "i")
    for name, params in (
        ("args_get", "ii"),
        ("args_sizes_get", "ii"),
        ("clock_res_get", "ii"),
        ("clock_time_get", "iIi"),
        ("environ_get", "ii"),
        ("environ_sizes_get", "ii"),
        ("fd_advise", "iIIi"),
        ("fd_allocate", "iII"),
        ("fd_close", "i"),
        ("fd_datasync", "i"),
        ("fd_fdstat_get", "ii"),
        ("fd_fdstat_set_flags", "ii"),
        ("fd_fdstat_set_rights", "iII"),
        ("fd_filestat_get", "ii"),
        ("fd_filestat_set_size", "iI"),
        ("fd_filestat_set_times", "iIIi"),
        ("fd_pread", "iiiIi"),
        ("fd_prestat_dir_name", "iii"),
        ("fd_prestat_get", "ii"),
        ("fd_pwrite", "iiiIi"),
        ("fd_read", "iiii"),
        ("fd_readdir", "iiiIi"),
        ("fd_renumber", "ii"),
        ("fd_seek", "iIii"),
        ("fd_sync", "i"),
        ("fd_tell", "ii"),
        ("fd_write", "iiii"),
        ("path_create_directory", "iii"),
        ("path_filestat_get", "iiiii"),
        ("path_filestat_set_times", "iiiiIIi"),
        ("path_link", "iiiiiii"),
        ("path_open", "iiiiiIIii"),
        ("path_readlink", "iiiiii"),
        ("path_remove_directory", "iii"),
        ("path_rename", "iiiiii"),
        ("path_symlink", "iiiii"),
        ("path_unlink_file", "iii"),
        ("poll_oneoff", "iiii"),
        ("proc_exit", "i"),
        ("proc_raise", "i"),
        ("random_get", "ii"),
        ("sched_yield", ""),
        ("sock_accept", "iii"),
        ("sock_recv", "iiiiii"),
        ("sock_send", "iiiii"),
        ("sock_shutdown", "ii"),
    )
}
"""Parameters and results by name: ``i`` is an i32, ``I`` an i64."""

SUCCESS, EBADF, EFAULT, EINVAL, ENOSYS, ENOTSUP, ENOTSOCK, ESPIPE = 0, 8, 21, 28, 52, 58, 57, 70

FIXED: Final[dict[str, int]] = {
    "sched_yield": SUCCESS,
    "proc_raise": ENOSYS,
    "fd_prestat_get": EBADF,
    "fd_prestat_dir_name": EBADF,
    "fd_readdir": EBADF,
    "fd_seek": ESPIPE,
    "fd_tell": ESPIPE,
    "fd_pread": ESPIPE,
    "fd_pwrite": ESPIPE,
    **dict.fromkeys((n for n in FUNCTIONS if n.startswith("path_")), EBADF),
    **dict.fromkeys((n for n in FUNCTIONS if n.startswith("sock_")), ENOTSOCK),
    **dict.fromkeys(
        (
            "fd_advise",
            "fd_allocate",
            "fd_datasync",
            "fd_fdstat_set_flags",
            "fd_fdstat_set_rights",
            "fd_filestat_set_size",
            "fd_filestat_set_times",
            "fd_renumber",
            "fd_sync",
        ),
        ENOTSUP,
    ),
}
"""Functions that always answer with one number: there are only three streams to use them on."""

PROGRAM_NAME: Final = b"module"
"""``argv[0]``; the task's arguments follow it."""

CLOCK_START_NS: Final = 1_767_225_600_000_000_000
"""2026-01-01T00:00:00Z, what every clock shows when a run begins."""

CLOCK_STEP_NS: Final = 1_000_000
"""How far every clock moves each time one is read."""

HOST_CALL_FUEL: Final = 20_000
"""Price of any call: leaving the module costs the device some 15 µs (evidence/wasm.md 1.1)."""

BYTE_FUEL: Final = 1
RANDOM_BYTE_FUEL: Final = 64
"""Random bytes are hashed one block of 32 at a time, far slower than copying."""

MAX_VECTORS: Final = 1_024
MAX_SUBSCRIPTIONS: Final = 1_024
_U64: Final = (1 << 64) - 1


class OutsideMemoryError(Exception):
    """A pointer of the module leads outside its memory; the call answers EFAULT."""


class Stop(Exception):  # noqa: N818 - ends a run, which is often no error at all
    """The run ends here with this status."""

    def __init__(self, status: Status, exit_code: int = 0) -> None:
        super().__init__(status, exit_code)
        self.status = status
        self.exit_code = exit_code


class Memory(Protocol):
    """A module's memory. Both raise ``OutsideMemoryError`` unless every byte lies inside."""

    def read(self, address: int, size: int) -> bytes: ...

    def write(self, address: int, data: bytes) -> None: ...


class Host:
    """The answers to one run's calls, and what the run wrote.

    ``charge(fuel)`` takes fuel or raises ``Stop(out_of_fuel)``. All integers given to the calls
    are unsigned.
    """

    def __init__(
        self, task: TaskInput, output_bytes: int, memory: Memory, charge: Callable[[int], None]
    ) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._args = [PROGRAM_NAME + b"\0", *(arg.encode() + b"\0" for arg in task.args)]
        self._stdin = memoryview(task.stdin)
        self._seed = task.seed.to_bytes(8, "big")
        self._output_bytes = output_bytes
        self._memory = memory
        self._charge = charge
        self._open = {0, 1, 2}
        self._now_ns = CLOCK_START_NS
        self._random = b""
        self._random_blocks = 0

    def call(self, name: str, *args: int) -> int:
        """Answer one call with its errno. Raises ``Stop`` when the run is over."""
        self._charge(HOST_CALL_FUEL)
        fixed = FIXED.get(name)
        if fixed is not None:
            return fixed
        answer: Callable[..., int] = getattr(self, f"_{name}")
        try:
            return answer(*args)
        except OutsideMemoryError:
            return EFAULT

    def _put(self, address: int, layout: str, *values: int) -> None:
        self._memory.write(address, struct.pack("<" + layout, *values))

    def _args_sizes_get(self, count: int, size: int) -> int:
        self._put(count, "I", len(self._args))
        self._put(size, "I", sum(map(len, self._args)))
        return SUCCESS

    def _args_get(self, pointers: int, buffer: int) -> int:
        self._charge(BYTE_FUEL * sum(map(len, self._args)))
        for arg in self._args:
            self._put(pointers, "I", buffer & 0xFFFFFFFF)
            self._memory.write(buffer, arg)
            pointers, buffer = pointers + 4, buffer + len(arg)
        return SUCCESS

    def _environ_sizes_get(self, count: int, size: int) -> int:
        self._put(count, "I", 0)
        self._put(size, "I", 0)
        return SUCCESS

    def _environ_get(self, _pointers: int, _buffer: int) -> int:
        return SUCCESS

    def _clock_res_get(self, clock: int, result: int) -> int:
        if clock > 3:
            return EINVAL
        self._put(result, "Q", CLOCK_STEP_NS)
        return SUCCESS

    def _clock_time_get(self, clock: int, _precision: int, result: int) -> int:
        if clock > 3:
            return EINVAL
        self._put(result, "Q", self._now_ns)
        self._now_ns = min(self._now_ns + CLOCK_STEP_NS, _U64)
        return SUCCESS

    def _fd_close(self, fd: int) -> int:
        if fd not in self._open:
            return EBADF
        self._open.remove(fd)
        return SUCCESS

    def _fd_fdstat_get(self, fd: int, result: int) -> int:
        if fd not in self._open:
            return EBADF
        # File type 0 (unknown): with "character device" libc would flush after every line.
        rights = 1 << 1 if fd == 0 else 1 << 6
        self._put(result, "BxHxxxxQQ", 0, 0, rights, 0)
        return SUCCESS

    def _fd_filestat_get(self, fd: int, result: int) -> int:
        if fd not in self._open:
            return EBADF
        self._memory.write(result, bytes(64))
        return SUCCESS

    def _vectors(self, vectors: int, count: int) -> list[tuple[int, int]] | None:
        """Address and size of each buffer; None when there are too many of them."""
        if count > MAX_VECTORS:
            return None
        pairs = list(struct.iter_unpack("<II", self._memory.read(vectors, count * 8)))
        return None if sum(size for _, size in pairs) >= 1 << 32 else pairs

    def _fd_read(self, fd: int, vectors: int, count: int, result: int) -> int:
        if fd != 0 or fd not in self._open:
            return EBADF
        pairs = self._vectors(vectors, count)
        if pairs is None:
            return EINVAL
        self._memory.read(result, 4)  # a bad pointer must not swallow input
        taken = min(sum(size for _, size in pairs), len(self._stdin))
        self._charge(BYTE_FUEL * taken)
        offset = 0
        for address, size in pairs:
            part = self._stdin[offset : min(offset + size, taken)]
            self._memory.write(address, bytes(part))
            offset += len(part)
        self._stdin = self._stdin[taken:]
        self._put(result, "I", taken)
        return SUCCESS

    def _fd_write(self, fd: int, vectors: int, count: int, result: int) -> int:
        if fd not in {1, 2} or fd not in self._open:
            return EBADF
        pairs = self._vectors(vectors, count)
        if pairs is None:
            return EINVAL
        total = sum(size for _, size in pairs)
        self._charge(BYTE_FUEL * total)
        room = self._output_bytes - len(self.stdout) if fd == 1 else STDERR_BYTES - len(self.stderr)
        kept = bytearray()
        for address, size in pairs:
            self._memory.read(address + size, 0)  # both ends, also of what is not kept
            kept += self._memory.read(address, min(size, room - len(kept)))
        self._put(result, "I", total)
        (self.stdout if fd == 1 else self.stderr).extend(kept)
        if fd == 1 and total > room:
            raise Stop(Status.OUTPUT_LIMIT)
        return SUCCESS

    def _random_get(self, buffer: int, size: int) -> int:
        """Block ``i`` of the stream is SHA-256(``gstd-random-v1\\n``, seed, i), both 8 bytes."""
        self._memory.read(buffer + size, 0)
        self._charge(RANDOM_BYTE_FUEL * size)
        while size:  # block by block: a list of all of them could outgrow the child's memory
            if not self._random:
                block = b"gstd-random-v1\n" + self._seed + self._random_blocks.to_bytes(8, "big")
                self._random = hashlib.sha256(block).digest()
                self._random_blocks += 1
            part, self._random = self._random[:size], self._random[size:]
            self._memory.write(buffer, part)
            buffer, size = buffer + len(part), size - len(part)
        return SUCCESS

    def _poll_oneoff(self, subscriptions: int, events: int, count: int, result: int) -> int:
        """Streams are always ready; without one, time jumps to the earliest clock."""
        if not 0 < count <= MAX_SUBSCRIPTIONS:
            return EINVAL
        self._charge(BYTE_FUEL * 48 * count)
        wanted = self._memory.read(subscriptions, 48 * count)
        due: list[tuple[int, int, int]] = []  # moment, kind, user data
        for at in range(0, len(wanted), 48):
            user, kind = struct.unpack_from("<QB", wanted, at)
            if kind > 2:
                return EINVAL
            timeout, absolute = struct.unpack_from("<Q8xH", wanted, at + 24)
            moment = timeout if absolute & 1 else min(self._now_ns + timeout, _U64)
            due.append((moment if kind == 0 else 0, kind, user))
        self._now_ns = max(self._now_ns, min(moment for moment, _, _ in due))
        fired = [(user, kind) for moment, kind, user in due if moment <= self._now_ns]
        for user, kind in fired:
            self._put(events, "QHBxxxxxQHxxxxxx", user, SUCCESS, kind, 0, 0)
            events += 32
        self._put(result, "I", len(fired))
        return SUCCESS

    def _proc_exit(self, code: int) -> int:
        raise Stop(Status.EXIT if code else Status.OK, code)
