"""A seccomp filter: the few system calls of a run, everything else is "not permitted".

A filter is a program for the kernel's classic BPF machine. It looks at the processor's architecture
and the number of the call, which lets the kernel remember its answers in a bitmap; only of ``mmap``
it reads an argument.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gstd.sandbox.linux import Linux

KILL: Final = 0x8000_0000
ALLOW: Final = 0x7FFF_0000
_ERRNO: Final = 0x0005_0000

_SET_MODE_FILTER: Final = 1

# BPF: load a word of the call's description, jump if equal, jump if any bit is set, return.
_LOAD: Final = 0x20
_IF_EQUAL: Final = 0x15
_IF_ANY: Final = 0x45
_RETURN: Final = 0x06
_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4
_FLAGS_OF_MMAP_AT: Final = 40
_UNCOUNTED: Final = 0x101
"""``MAP_SHARED`` and ``MAP_GROWSDOWN``: memory that ``RLIMIT_DATA`` does not count."""

_Step = tuple[int, int, int, int]
_INSTRUCTION: Final = struct.Struct("=HBBI")


class Processor(msgspec.Struct, frozen=True):
    """What the kernel calls an architecture, and the numbers of its calls."""

    architecture: int
    seccomp: int
    allowed: Mapping[str, int]


# Found by forbidding one call at a time while modules compile and run (decision 25). Those marked
# "seldom" were not needed then; they stay because a larger module or a busier moment needs them.
# What is not here and why: files, sockets, `clone`, `execve`, `kill`, `ptrace` reach beyond the
# process, `prlimit64` reaches the limits of the parent. What is used without need (`ioctl`, which
# asks whether standard error is a terminal) takes the refusal well.
PROCESSORS: Final = {
    "x86_64": Processor(
        architecture=0xC000_003E,
        seccomp=317,
        allowed={
            "write": 1,  # the answer into the pipe; the only other open file is /dev/null
            "mmap": 9,  # private memory only
            "mprotect": 10,  # makes compiled code executable
            "munmap": 11,
            "brk": 12,
            "mremap": 25,  # seldom: large buffers that grow
            "madvise": 28,  # seldom: gives memory back
            "rt_sigaction": 13,  # traps of the module arrive as signals ...
            "rt_sigreturn": 15,
            "sigaltstack": 131,  # ... on a stack of their own
            "rt_sigprocmask": 14,  # seldom: abort
            "futex": 202,  # seldom: locks
            "getrandom": 318,  # seldom: seeds of hash tables
            "clock_gettime": 228,  # seldom: where the vDSO cannot tell the time
            "exit_group": 231,
        },
    ),
    "aarch64": Processor(
        architecture=0xC000_00B7,
        seccomp=277,
        allowed={
            "write": 64,
            "mmap": 222,
            "mprotect": 226,
            "munmap": 215,
            "brk": 214,
            "mremap": 216,
            "madvise": 233,
            "rt_sigaction": 134,
            "rt_sigreturn": 139,
            "sigaltstack": 132,
            "rt_sigprocmask": 135,
            "futex": 98,
            "getrandom": 278,
            "clock_gettime": 113,
            "exit_group": 94,
            "membarrier": 283,  # fresh code must reach every core
        },
    ),
}


def refuse(error: int) -> int:
    """The answer that makes a call fail with this errno."""
    return _ERRNO | error


def program(
    architecture: int, answers: Mapping[int, int], otherwise: int, first: Sequence[_Step] = ()
) -> bytes:
    """A filter that answers calls by number. Calls of another architecture kill the process.

    The steps ``first`` find the number loaded and must leave it so.
    """
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        *first,
    ]
    for number, answer in answers.items():
        steps += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, answer)]
    steps.append((_RETURN, 0, 0, otherwise))
    return b"".join(_INSTRUCTION.pack(*step) for step in steps)


def allowlist(processor: Processor) -> bytes:
    """The filter for a run: the calls of the list, everything else is "not permitted"."""
    no = refuse(errno.EPERM)
    counted_memory_only = (
        (_IF_EQUAL, 0, 4, processor.allowed["mmap"]),
        (_LOAD, 0, 0, _FLAGS_OF_MMAP_AT),
        (_IF_ANY, 0, 1, _UNCOUNTED),
        (_RETURN, 0, 0, no),
        (_RETURN, 0, 0, ALLOW),
    )
    answers = dict.fromkeys(processor.allowed.values(), ALLOW)
    return program(processor.architecture, answers, no, counted_memory_only)


_MACHINE: Final = os.uname().machine
_ALLOWLISTS: Final = {name: allowlist(processor) for name, processor in PROCESSORS.items()}
"""Made before the forks, because every child needs one."""


def lock(linux: Linux) -> None:
    """Allow this process nothing but the calls of a run, for ever.

    Needs ``no_new_privs``. Raises ``OSError`` where the kernel or the processor has no filter.
    """
    if _MACHINE not in PROCESSORS:
        raise OSError(errno.ENOSYS, f"the system calls of {_MACHINE} are not listed")
    install(linux, PROCESSORS[_MACHINE], _ALLOWLISTS[_MACHINE])


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def install(linux: Linux, processor: Processor, steps: bytes) -> None:
    """Put a filter on this process and whatever it starts. Raises ``OSError``."""
    described = _Program(len(steps) // _INSTRUCTION.size, steps)
    linux.syscall(processor.seccomp, _SET_MODE_FILTER, 0, ctypes.addressof(described))
