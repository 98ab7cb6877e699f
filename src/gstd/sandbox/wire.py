"""Messages between the parent, the zygote and its children.

Parent and zygote exchange frames: four bytes of length (big-endian), then msgpack. A child
writes one msgpack message to its pipe and ends.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from gstd.protocol.execution import Limits, Outcome
from gstd.sandbox.walls import Walls

_LENGTH: Final = struct.Struct(">I")
LENGTH_BYTES: Final = _LENGTH.size


class Compile(msgspec.Struct, frozen=True, tag="compile"):
    """Inspect and compile ``module``, and keep the artefact."""

    id: int
    sha256: str
    module: bytes


class Run(msgspec.Struct, frozen=True, tag="run"):
    """Run a compiled module; ``job`` is an encoded ``Job`` that only the child decodes."""

    id: int
    sha256: str
    job: bytes
    wall_ms: int
    memory_bytes: int
    output_bytes: int


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Kill the child of request ``id``; nothing is answered."""

    id: int


class Job(msgspec.Struct, frozen=True):
    """What the child needs besides the artefact: a ``TaskInput``, field by field, and limits."""

    args: tuple[str, ...]
    stdin: bytes
    seed: int
    limits: Limits


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The zygote has loaded the engine. The first frame it sends."""

    profile: str
    walls: Walls


class Done(msgspec.Struct, frozen=True, tag="done"):
    """A run finished with an outcome."""

    outcome: Outcome
    id: int = 0


class Compiled(msgspec.Struct, frozen=True, tag="compiled"):
    """The artefact of a module is ready to run."""

    id: int = 0


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The module is refused; ``code`` names the class."""

    code: str
    detail: str
    id: int = 0


class NotCompiled(msgspec.Struct, frozen=True, tag="not_compiled"):
    """There is no usable artefact: send ``Compile`` first."""

    id: int = 0


class Fault(msgspec.Struct, frozen=True, tag="fault"):
    """The host failed."""

    detail: str
    id: int = 0


class WallClock(msgspec.Struct, frozen=True, tag="wall_clock"):
    """The child was killed because its time was up."""

    id: int = 0


class Artefact(msgspec.Struct, frozen=True, tag="artefact"):
    """Compiled code, and the pages of memory it starts with and may grow to."""

    memory_min_pages: int
    memory_max_pages: int
    code: bytes


Request = Compile | Run | Cancel
Answer = Done | Compiled | Refused | NotCompiled | Fault | WallClock
FromZygote = Ready | Answer
FromChild = Done | Refused | NotCompiled | Fault | Artefact

ENCODER: Final = msgspec.msgpack.Encoder()
REQUESTS: Final = msgspec.msgpack.Decoder(Request)
FROM_ZYGOTE: Final = msgspec.msgpack.Decoder(FromZygote)
FROM_CHILD: Final = msgspec.msgpack.Decoder(FromChild)
JOBS: Final = msgspec.msgpack.Decoder(Job)
ARTEFACTS: Final = msgspec.msgpack.Decoder(Artefact)


def frame(message: Request | FromZygote) -> bytes:
    """The bytes of one message on the way between parent and zygote."""
    body = ENCODER.encode(message)
    return _LENGTH.pack(len(body)) + body


def frame_length(head: bytes | bytearray | memoryview) -> int:
    """How many bytes follow the ``LENGTH_BYTES`` at the beginning of ``head``."""
    length: int = _LENGTH.unpack_from(head)[0]
    return length
