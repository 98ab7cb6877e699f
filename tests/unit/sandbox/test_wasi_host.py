"""The host's answers, without any engine: memory is a bytearray, fuel a counter."""

from __future__ import annotations

import hashlib
import struct

import pytest

from gstd.protocol.execution import STDERR_BYTES, Status, TaskInput
from gstd.sandbox import wasi
from gstd.sandbox.wasi import FIXED, FUNCTIONS, Host, OutsideMemoryError, Stop

SIZE = 65_536


class Guest:
    """Memory and fuel of a pretended module."""

    def __init__(self) -> None:
        self.bytes = bytearray(SIZE)
        self.spent = 0
        self.fuel = 10**9

    def read(self, address: int, size: int) -> bytes:
        if address + size > SIZE:
            raise OutsideMemoryError
        return bytes(self.bytes[address : address + size])

    def write(self, address: int, data: bytes) -> None:
        self.read(address, len(data))
        self.bytes[address : address + len(data)] = data

    def charge(self, fuel: int) -> None:
        if fuel > self.fuel - self.spent:
            raise Stop(Status.OUT_OF_FUEL)
        self.spent += fuel

    def u32(self, address: int) -> int:
        return int.from_bytes(self.bytes[address : address + 4], "little")

    def u64(self, address: int) -> int:
        return int.from_bytes(self.bytes[address : address + 8], "little")


def make(task: TaskInput | None = None, output_bytes: int = 100) -> tuple[Host, Guest]:
    guest = Guest()
    return Host(task or TaskInput(), output_bytes, guest, guest.charge), guest


def test_every_function_of_the_table_answers() -> None:
    for name, (params, results) in FUNCTIONS.items():
        host, guest = make()
        if name == "proc_exit":
            with pytest.raises(Stop):
                host.call(name, 0)
        else:
            assert 0 <= host.call(name, *(0 for _ in params)) < 77
            assert results == "i"
        assert guest.spent >= wasi.HOST_CALL_FUEL
    assert len(FUNCTIONS) == 46


def test_hostile_pointers_never_escape() -> None:
    for name, (params, _) in FUNCTIONS.items():
        if name in {"proc_exit", "environ_get"}:  # neither uses its pointers
            continue
        for value in (SIZE - 1, SIZE, 2**31, 2**32 - 1):
            host, guest = make(TaskInput(args=("x",), stdin=b"y"))
            assert host.call(name, *(value for _ in params)) != 0 or name in FIXED
            assert len(guest.bytes) == SIZE


def test_arguments_follow_the_program_name() -> None:
    host, guest = make(TaskInput(args=("ä", "")))
    assert host.call("args_sizes_get", 0, 4) == 0
    assert (guest.u32(0), guest.u32(4)) == (3, 7 + 3 + 1)
    assert host.call("args_get", 16, 100) == 0
    assert [guest.u32(16 + 4 * i) for i in range(3)] == [100, 107, 110]
    assert guest.read(100, 11) == b"module\0\xc3\xa4\0\0"


def test_the_environment_is_empty_and_there_are_no_files() -> None:
    host, guest = make()
    assert host.call("environ_sizes_get", 0, 4) == 0
    assert (guest.u32(0), guest.u32(4)) == (0, 0)
    assert host.call("fd_prestat_get", 3, 0) == wasi.EBADF
    assert host.call("path_open", 3, 0, 0, 1, 0, 0, 0, 0, 0) == wasi.EBADF


def test_standard_input_is_read_once_through_several_buffers() -> None:
    host, guest = make(TaskInput(stdin=b"abcdef"))
    guest.write(0, struct.pack("<IIII", 1000, 2, 2000, 3))
    assert host.call("fd_read", 0, 0, 2, 64) == 0
    assert (guest.u32(64), guest.read(1000, 2), guest.read(2000, 3)) == (5, b"ab", b"cde")
    assert host.call("fd_read", 0, 0, 2, 64) == 0
    assert (guest.u32(64), guest.read(1000, 1)) == (1, b"f")
    assert host.call("fd_read", 0, 0, 2, 64) == 0
    assert guest.u32(64) == 0
    assert host.call("fd_read", 1, 0, 2, 64) == wasi.EBADF


def test_a_read_with_a_bad_pointer_takes_no_input() -> None:
    host, guest = make(TaskInput(stdin=b"abcdef"))
    guest.write(0, struct.pack("<II", 1000, 4))
    assert host.call("fd_read", 0, 0, 1, SIZE - 3) == wasi.EFAULT
    assert host.call("fd_read", 0, 0, 1, 64) == 0
    assert guest.read(1000, 4) == b"abcd"


def test_output_beyond_the_cap_stops_the_run_and_keeps_the_cap() -> None:
    host, guest = make(output_bytes=10)
    guest.write(0, struct.pack("<II", 1000, 8))
    guest.write(1000, b"01234567")
    assert host.call("fd_write", 1, 0, 1, 64) == 0
    with pytest.raises(Stop) as stop:
        host.call("fd_write", 1, 0, 1, 64)
    assert stop.value.status is Status.OUTPUT_LIMIT
    assert host.stdout == b"0123456701"


def test_standard_error_is_cut_silently() -> None:
    host, guest = make()
    guest.write(0, struct.pack("<II", 1000, 60_000))
    assert host.call("fd_write", 2, 0, 1, 64) == 0
    assert guest.u32(64) == 60_000
    assert host.call("fd_write", 2, 0, 1, 64) == 0
    assert len(host.stderr) == STDERR_BYTES


def test_a_write_with_one_bad_buffer_writes_nothing() -> None:
    host, guest = make()
    guest.write(0, struct.pack("<IIII", 1000, 4, SIZE - 1, 2))
    assert host.call("fd_write", 1, 0, 2, 64) == wasi.EFAULT
    assert host.stdout == b""
    guest.write(0, struct.pack("<II", 1000, 4))
    assert host.call("fd_write", 1, 0, 1, SIZE - 3) == wasi.EFAULT
    assert host.stdout == b""
    assert host.call("fd_write", 1, 0, 5000, 64) == wasi.EINVAL


def test_a_full_stream_still_checks_its_buffers() -> None:
    host, guest = make()
    guest.write(0, struct.pack("<II", 1000, STDERR_BYTES))
    assert host.call("fd_write", 2, 0, 1, 64) == 0
    guest.write(0, struct.pack("<II", SIZE - 1, 2))
    assert host.call("fd_write", 2, 0, 1, 64) == wasi.EFAULT


def test_closed_streams_stay_closed() -> None:
    host, _ = make()
    assert host.call("fd_fdstat_get", 1, 0) == 0
    assert host.call("fd_close", 1) == 0
    assert host.call("fd_close", 1) == wasi.EBADF
    assert host.call("fd_write", 1, 0, 0, 64) == wasi.EBADF
    assert host.call("fd_fdstat_get", 1, 0) == wasi.EBADF


def test_clocks_move_by_fixed_steps_and_sleeping_jumps() -> None:
    host, guest = make()
    for step in range(3):
        assert host.call("clock_time_get", step, 0, 8) == 0
        assert guest.u64(8) == wasi.CLOCK_START_NS + step * wasi.CLOCK_STEP_NS
    assert host.call("clock_time_get", 4, 0, 8) == wasi.EINVAL
    second = 10**9
    guest.write(0, struct.pack("<QB7xIxxxxQQHxxxxxx", 7, 0, 1, 5 * second, 0, 0))
    guest.write(48, struct.pack("<QB7xIxxxxQQHxxxxxx", 8, 0, 1, 9 * second, 0, 0))
    assert host.call("poll_oneoff", 0, 512, 2, 1024) == 0
    assert guest.u32(1024) == 1
    assert guest.u64(512) == 7
    host.call("clock_time_get", 1, 0, 2000)
    assert guest.u64(2000) == wasi.CLOCK_START_NS + 3 * wasi.CLOCK_STEP_NS + 5 * second
    guest.write(48, struct.pack("<QB7xI28x", 9, 1, 0))
    assert host.call("poll_oneoff", 0, 512, 2, 1024) == 0
    assert (guest.u32(1024), guest.u64(512), guest.bytes[512 + 10]) == (1, 9, 1)
    assert host.call("poll_oneoff", 0, 512, 0, 1024) == wasi.EINVAL


def test_random_is_the_documented_stream_however_it_is_cut() -> None:
    def block(number: int) -> bytes:
        return hashlib.sha256(b"gstd-random-v1\n" + struct.pack(">QQ", 9, number)).digest()

    expected = block(0) + block(1) + block(2)
    host, guest = make(TaskInput(seed=9))
    at = 0
    for size in (1, 0, 40, 32, 7):
        assert host.call("random_get", at, size) == 0
        at += size
    assert guest.read(0, 80) == expected[:80]
    assert host.call("random_get", SIZE - 1, 2) == wasi.EFAULT


def test_exit_codes_are_unsigned_and_zero_is_ok() -> None:
    host, _ = make()
    for code, status in ((0, Status.OK), (3, Status.EXIT), (2**32 - 1, Status.EXIT)):
        with pytest.raises(Stop) as stop:
            host.call("proc_exit", code)
        assert (stop.value.status, stop.value.exit_code) == (status, code)


def test_calls_and_bytes_cost_fuel_before_they_act() -> None:
    host, guest = make()
    guest.write(0, struct.pack("<II", 1000, 50))
    guest.fuel = wasi.HOST_CALL_FUEL + 49
    with pytest.raises(Stop) as stop:
        host.call("fd_write", 1, 0, 1, 64)
    assert stop.value.status is Status.OUT_OF_FUEL
    assert host.stdout == b""
