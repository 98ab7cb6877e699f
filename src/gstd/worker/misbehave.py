"""A testing aid: a worker that lies on purpose, so that one can watch verification catch it.

The lie happens before hashing and signing. The signature is valid, the result is wrong, and the
device loses trust and earnings for it. Never use it with a device that should go on working.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from gstd.protocol.execution import Outcome

Alter = Callable[[Outcome], Outcome]


class Misbehaviour(StrEnum):
    """How a worker may be told to lie."""

    FLIP = "flip"


def honest(outcome: Outcome) -> Outcome:
    """The outcome as it is."""
    return outcome


def flip(outcome: Outcome) -> Outcome:
    """The outcome with one bit of the first output byte wrong; an empty output gets a byte."""
    wrong = bytes([outcome.stdout[0] ^ 1]) + outcome.stdout[1:] if outcome.stdout else b"\x01"
    return msgspec.structs.replace(outcome, stdout=wrong)


def alteration(misbehaviour: Misbehaviour | None) -> Alter:
    """What a worker does to its outcomes; nothing unless it was told to lie."""
    return {None: honest, Misbehaviour.FLIP: flip}[misbehaviour]
