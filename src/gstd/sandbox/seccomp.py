"""A seccomp filter: the few system calls of a run, everything else is "not permitted".

A filter is a program for the kernel's classic BPF machine. It looks only at the processor's
architecture and the number of the call, which lets the kernel remember its answers in a bitmap.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Mapping
from typing import Final

import msgspec

from gstd.sandbox.linux import Linux

KILL: Final = 0x8000_0000
ALLOW: Final = 0x7FFF_0000
_ERRNO: Final = 0x0005_0000

_SET_MODE_FILTER: Final = 1

# BPF: load a word of the call's description, jump if equal, return.
_LOAD: Final = 0x20
_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4
_INSTRUCTION: Final = struct.Struct("=HBBI")


class Processor(msgspec.Struct, frozen=True):
    """What the kernel calls an architecture, and the numbers of its calls."""

    architecture: int
    seccomp: int
    allowed: Mapping[str, int]


# Found by running and compiling modules with one call at a time forbidden (decision 26).
# What is not here and why: `open*`, `socket`, `clone*`, `execve`, `kill`, `ptrace` reach beyond the
# process; `prlimit64` reaches the parent's limits; `ioctl`, `fcntl`, `dup` nobody needs.
PROCESSORS: Final = {
    "x86_64": Processor(
        architecture=0xC000_003E,
        seccomp=317,
        allowed={
            # the answer into the pipe; the only other open file is /dev/null
            "write": 1,
            "close": 3,
            # memory: Python's, the engine's, the module's; code is made executable by mprotect
            "mmap": 9,
            "mprotect": 10,
            "munmap": 11,
            "brk": 12,
            "mremap": 25,
            "madvise": 28,
            # traps of the module arrive as signals on a stack of their own
            "rt_sigaction": 13,
            "rt_sigprocmask": 14,
            "rt_sigreturn": 15,
            "sigaltstack": 131,
            # locks, and the seeds of hash tables
            "futex": 202,
            "getrandom": 318,
            # the engine asks where its stack ends and on which thread it is
            "gettid": 186,
            "sched_getaffinity": 204,
            # fresh code must reach every core (aarch64)
            "membarrier": 324,
            # where the vDSO cannot tell the time
            "clock_gettime": 228,
            "exit": 60,
            "exit_group": 231,
        },
    ),
    "aarch64": Processor(
        architecture=0xC000_00B7,
        seccomp=277,
        allowed={
            "write": 64,
            "close": 57,
            "mmap": 222,
            "mprotect": 226,
            "munmap": 215,
            "brk": 214,
            "mremap": 216,
            "madvise": 233,
            "rt_sigaction": 134,
            "rt_sigprocmask": 135,
            "rt_sigreturn": 139,
            "sigaltstack": 132,
            "futex": 98,
            "getrandom": 278,
            "gettid": 178,
            "sched_getaffinity": 123,
            "membarrier": 283,
            "clock_gettime": 113,
            "exit": 93,
            "exit_group": 94,
        },
    ),
}


def refuse(error: int) -> int:
    """The answer that makes a call fail with this errno."""
    return _ERRNO | error


def program(architecture: int, answers: Mapping[int, int], otherwise: int) -> bytes:
    """A filter that answers calls by number. Calls of another architecture kill the process."""
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for number, answer in answers.items():
        steps += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, answer)]
    steps.append((_RETURN, 0, 0, otherwise))
    return b"".join(_INSTRUCTION.pack(*step) for step in steps)


def lock(linux: Linux) -> None:
    """Allow this process nothing but the calls of a run, for ever.

    Needs ``no_new_privs``. Raises ``OSError`` where the kernel or the processor has no filter.
    """
    processor = PROCESSORS.get(platform.machine())
    if processor is None:
        raise OSError(errno.ENOSYS, f"no numbers of system calls for {platform.machine()}")
    answers = dict.fromkeys(processor.allowed.values(), ALLOW)
    install(linux, processor, program(processor.architecture, answers, refuse(errno.EPERM)))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def install(linux: Linux, processor: Processor, steps: bytes) -> None:
    """Put a filter on this process and whatever it starts. Raises ``OSError``."""
    described = _Program(len(steps) // _INSTRUCTION.size, steps)
    linux.syscall(processor.seccomp, _SET_MODE_FILTER, 0, ctypes.addressof(described))
