"""Settings: read from the environment, wrong values named, unsafe combinations refused."""

from __future__ import annotations

import pytest

from gstd.kernel.settings import Mode, Policy, Settings, SettingsError, settings_from


def test_an_empty_environment_gives_the_defaults() -> None:
    assert settings_from({}) == Settings()
    assert settings_from({"PATH": "/bin", "HOME": "/root"}) == Settings()


def test_values_reach_the_settings_and_their_policy() -> None:
    settings = settings_from(
        {"GSTD_PORT": "8430", "GSTD_LOG_JSON": "true", "GSTD_POLICY_LEASE_MS": "5000"}
    )
    assert (settings.port, settings.log_json, settings.policy.lease_ms) == (8430, True, 5000)
    assert settings.policy.max_retries == Policy().max_retries


def test_lists_are_written_as_json() -> None:
    policy = settings_from(
        {
            "GSTD_POLICY_RETRY_DELAYS_MS": "[100, 200]",
            "GSTD_POLICY_PRIORITY_BANDS_MS": "[[0, 1], [1, 2], [2, 3], [3, 4]]",
        }
    ).policy
    assert policy.retry_delays_ms == (100, 200)
    assert policy.priority_bands_ms == ((0, 1), (1, 2), (2, 3), (3, 4))


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("GSTD_PORT", "eighty", "port"),
        ("GSTD_PORT", "70000", "port"),
        ("GSTD_MODE", "staging", "mode"),
        ("GSTD_REFEREE_SLOTS", "-1", "referee_slots"),
        ("GSTD_POLICY_FEE_BPS", "10001", "fee_bps"),
        ("GSTD_POLICY_FEE_BPS", "-1", "fee_bps"),
        ("GSTD_POLICY_LEASE_MS", "0", "lease_ms"),
        ("GSTD_POLICY_MIN_REWARD_NANO", "1.5", "min_reward_nano"),
        ("GSTD_POLICY_LEASE_SECONDS", "5", "lease_seconds"),
        ("GSTD_POLICY_RETRY_DELAYS_MS", "1000", "retry_delays_ms"),
        ("GSTD_POLICY_RETRY_DELAYS_MS", "[1000", "retry_delays_ms"),
        ("GSTD_POLICY_PRIORITY_BANDS_MS", "[[0, 1]]", "priority_bands_ms"),
        ("GSTD_POLICY_LEASE_MS", "[1]", "lease_ms"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named) as caught:
        settings_from({name: value})
    assert caught.value.code == "invalid_settings"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104 - refused here
def test_development_refuses_to_listen_beyond_this_machine(host: str) -> None:
    with pytest.raises(SettingsError, match="development mode does not listen"):
        settings_from({"GSTD_HOST": host})
    assert settings_from({"GSTD_HOST": host, "GSTD_MODE": "production"}).mode is Mode.PRODUCTION


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_development_listens_on_loopback(host: str) -> None:
    assert settings_from({"GSTD_HOST": host}).host == host


def test_a_short_token_for_the_metrics_is_refused() -> None:
    with pytest.raises(SettingsError, match="GSTD_METRICS_TOKEN"):
        settings_from({"GSTD_METRICS_TOKEN": "x" * 15})
    assert settings_from({"GSTD_METRICS_TOKEN": "x" * 16}).metrics_token == "x" * 16


@pytest.mark.parametrize("secret", [None, "", "00" * 31, "zz" * 32, "0" * 63])
def test_a_missing_or_short_secret_is_refused(secret: str | None) -> None:
    with pytest.raises(SettingsError, match="GSTD_SECRET"):
        Settings(secret=secret).secret_bytes()


def test_a_secret_of_32_bytes_is_taken() -> None:
    assert Settings(secret="0f" * 32).secret_bytes() == b"\x0f" * 32
