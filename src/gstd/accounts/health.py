"""A device's health: how reliably it ends what it takes. Wrong results are trust's affair.

A circuit breaker takes a device out after so many failures in a row, each time for longer; then
one task is its probe. Beside it a quota of tasks at a time halves with each failure and doubles
with each success, so a device that breaks cannot eat a batch and one that recovers is soon back.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

import msgspec

from gstd.kernel.settings import Policy


class Circuit(StrEnum):
    """Whether a device may take tasks: as many as it likes, none, or one to try."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a device. ``ejections`` counts how often it was taken out lately."""

    failures: int = 0
    ejections: int = 0
    ejected_until: datetime | None = None
    quota: int = 1

    def circuit(self, now: datetime) -> Circuit:
        """Closed, open until ``ejected_until``, and half open after it until the probe's end."""
        if self.ejected_until is None:
            return Circuit.CLOSED
        return Circuit.OPEN if now < self.ejected_until else Circuit.HALF_OPEN

    def capacity(self, running: int, now: datetime, *, is_panic: bool = False) -> int:
        """How many more tasks the device may take. In a panic an open circuit counts as half open.

        A panic is when most devices are out: then it is rather the platform or the module that
        fails, and nobody is kept from trying.
        """
        circuit = self.circuit(now)
        if circuit is Circuit.OPEN and not is_panic:
            return 0
        return max(0, (self.quota if circuit is Circuit.CLOSED else 1) - running)

    def succeeded(self, times: int, policy: Policy) -> Self:
        """After results that verification accepted."""
        if times == 0:
            return self
        return msgspec.structs.replace(
            self,
            failures=0,
            ejections=max(0, self.ejections - times),
            ejected_until=None,
            quota=min(policy.max_quota, self.quota << min(times, 16)),
        )

    def failed(self, times: int, now: datetime, policy: Policy, jitter: float) -> Self:
        """After attempts that it did not end. ``jitter`` from 0 to 1 spreads the returns."""
        if times == 0:
            return self
        failures = self.failures + times
        quota = max(1, self.quota >> min(times, 16))
        is_probe = self.circuit(now) is Circuit.HALF_OPEN
        if failures < policy.breaker_failures and not is_probe:
            return msgspec.structs.replace(self, failures=failures, quota=quota)
        if self.circuit(now) is Circuit.OPEN:  # what it held when it was taken out
            return msgspec.structs.replace(self, failures=failures, quota=quota)
        ejections = self.ejections + 1
        return msgspec.structs.replace(
            self,
            failures=failures,
            ejections=ejections,
            ejected_until=now + cool_down(ejections, policy, jitter),
            quota=1,
        )


def cool_down(ejections: int, policy: Policy, jitter: float) -> timedelta:
    """``min(base * n, longest)``, of which the last fifth is spread by the jitter."""
    whole_ms = min(policy.breaker_base_ms * ejections, policy.breaker_longest_ms)
    return timedelta(milliseconds=round(whole_ms * (0.8 + 0.2 * jitter)))
