"""What the two locks ask of the kernel, for processors and kernels that are not here."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final

import pytest

from gstd.sandbox import landlock, seccomp
from gstd.sandbox.linux import Linux

DENY: Final = seccomp.refuse(errno.EPERM)
KILL: Final = seccomp.KILL


def answer(steps: bytes, architecture: int, number: int, flags: int = 0) -> int:
    """What the kernel's BPF machine would say to a call whose fourth argument is ``flags``."""
    call = struct.pack("=IIQ6Q", number, architecture, 0, 0, 0, 0, flags, 0, 0)
    word, at = 0, 0
    while True:
        code, yes, no, value = struct.unpack_from("=HBBI", steps, 8 * at)
        at += 1
        if code == 0x20:
            (word,) = struct.unpack_from("=I", call, value)
        elif code == 0x15:
            at += yes if word == value else no
        elif code == 0x45:
            at += yes if word & value else no
        else:
            assert code == 0x06
            return int(value)


@pytest.mark.parametrize("name", seccomp.PROCESSORS)
def test_only_the_listed_calls_pass(name: str) -> None:
    processor = seccomp.PROCESSORS[name]
    steps = seccomp.allowlist(processor)
    here = processor.architecture
    listed = set(processor.allowed.values())
    for number in range(600):
        expected = seccomp.ALLOW if number in listed else DENY
        assert answer(steps, here, number) == expected
        assert answer(steps, here, number | 0x4000_0000) == DENY  # x32
        assert answer(steps, 0x4000_0003, number) == KILL  # i386


@pytest.mark.parametrize("name", seccomp.PROCESSORS)
def test_only_memory_that_counts_is_given(name: str) -> None:
    processor = seccomp.PROCESSORS[name]
    steps = seccomp.allowlist(processor)
    private, anonymous = 2, 0x20
    for flags, expected in {
        private | anonymous: seccomp.ALLOW,
        private | anonymous | 0x4000: seccomp.ALLOW,
        1 | anonymous: DENY,
        3: DENY,
        private | anonymous | 0x100: DENY,
    }.items():
        found = answer(steps, processor.architecture, processor.allowed["mmap"], flags)
        assert found == expected


def test_dangerous_calls_are_not_listed() -> None:
    for processor in seccomp.PROCESSORS.values():
        assert len(processor.allowed) <= 16
        assert not set(processor.allowed) & {"openat", "socket", "clone", "execve", "kill"}


def test_an_unknown_processor_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "_MACHINE", "riscv64")
    with pytest.raises(OSError, match="riscv64"):
        seccomp.lock(Linux())


class OldLinux(Linux):
    """A kernel with some version of Landlock; remembers the ruleset it was asked for."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.asked = (0, 0, 0)
        self.restricted = False

    def syscall(self, number: int, *words: int) -> int:
        if number == 446:
            self.restricted = True
            return 0
        address, size, flags = words
        if flags:
            return self.version
        files, net, scopes = struct.unpack("=QQQ", ctypes.string_at(address, size))
        self.asked = (files, net, scopes)
        return os.open(os.devnull, os.O_RDONLY)


@pytest.mark.parametrize(
    ("version", "rights", "net", "scopes"),
    [
        (1, 13, 0, 0),
        (2, 14, 0, 0),
        (3, 15, 0, 0),
        (4, 15, 3, 0),
        (5, 16, 3, 0),
        (6, 16, 3, 3),
        (7, 16, 3, 3),
        (99, 16, 3, 3),
    ],
)
def test_each_landlock_is_asked_for_all_it_knows(
    version: int, rights: int, net: int, scopes: int
) -> None:
    linux = OldLinux(version)
    landlock.lock(linux)
    assert linux.asked == (2**rights - 1, net, scopes)
    assert linux.restricted
