"""A process reads from its environment the settings it was meant to get."""

from __future__ import annotations

from gstd.cli.stack import environment
from gstd.kernel.settings import Policy, Settings, settings_from


def test_every_setting_goes_through_the_environment() -> None:
    policy = Policy(
        lease_ms=3_000,
        retry_delays_ms=(100, 200),
        priority_bands_ms=((0, 1), (1, 2), (2, 3), (3, 4)),
    )
    settings = Settings(port=8430, state="/tmp/x", policy=policy)  # noqa: S108 - never touched
    assert settings_from(environment(settings)) == settings
