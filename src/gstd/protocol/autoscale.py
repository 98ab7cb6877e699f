"""How much work there is for how many devices, for whoever starts and stops workers."""

from __future__ import annotations

import msgspec


class AutoscaleSignal(msgspec.Struct, frozen=True, kw_only=True):
    """How many slots the platform's work needs now, from how much waits and how fast more comes.

    ``backlog`` and ``running`` count attempts: those that devices could claim, and those they hold.
    ``arrival_per_s`` is how many were posted per second lately, ``service_s`` how many seconds one
    took a slot on average: its proof of work, and from claim to submit. ``expected_wait_s`` is how
    long a new attempt would wait with the devices that are there; ``null`` when there are none.
    ``words`` says the same as a sentence.
    """

    desired_slots: int
    backlog: int
    arrival_per_s: float
    service_s: float
    running: int
    online_devices: int
    expected_wait_s: float | None
    words: str
