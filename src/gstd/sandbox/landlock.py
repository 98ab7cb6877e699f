"""Landlock without a single rule: no file, no TCP port, and nobody outside to signal.

What is open already stays usable, and memory that no file backs is not its business.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

from gstd.sandbox.linux import Linux

# The same numbers on every processor.
_CREATE_RULESET: Final = 444
_RESTRICT_SELF: Final = 446
_ASK_VERSION: Final = 1

_FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many rights on files there are from which version of Landlock on."""

_NET_SINCE: Final = 4
_NET: Final = 0b11  # bind and connect TCP
_SCOPES_SINCE: Final = 6
_SCOPES: Final = 0b11  # abstract Unix sockets, signals


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("net", ctypes.c_uint64),
        ("scopes", ctypes.c_uint64),
    )


def version(linux: Linux) -> int:
    """Which Landlock this kernel has. Raises ``OSError`` if none."""
    return linux.syscall(_CREATE_RULESET, 0, 0, _ASK_VERSION)


def lock(linux: Linux) -> None:
    """Take every right that this kernel's Landlock knows from this process, for ever.

    Needs ``no_new_privs``. Raises ``OSError``.
    """
    have = version(linux)
    rights = max(count for since, count in _FILE_RIGHTS.items() if since <= have)
    # An old kernel takes the longer structure as long as what it does not know is zero.
    ruleset = _Ruleset(
        files=(1 << rights) - 1,
        net=_NET if have >= _NET_SINCE else 0,
        scopes=_SCOPES if have >= _SCOPES_SINCE else 0,
    )
    size = ctypes.sizeof(ruleset)
    descriptor = linux.syscall(_CREATE_RULESET, ctypes.addressof(ruleset), size, 0)
    try:
        linux.syscall(_RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)
