"""Settings: one frozen Struct read from the environment, and the policy numbers in it.

``GSTD_PORT=8430`` sets ``port``; ``GSTD_POLICY_LEASE_MS=5000`` sets ``policy.lease_ms``. Lists are
written as JSON: ``GSTD_POLICY_RETRY_DELAYS_MS=[1000,5000]``.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from gstd.kernel.errors import GstdError

PREFIX = "GSTD_"
POLICY_PREFIX = "GSTD_POLICY_"

Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[int, Meta(ge=0, le=10_000)]
Percent = Annotated[int, Meta(ge=1, le=100)]

MIN_TOKEN_CHARACTERS = 16


class Mode(StrEnum):
    """Development has local accounts and test credits and is never reachable from outside."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class SettingsError(GstdError):
    """The settings contradict each other or are missing something."""

    code = "invalid_settings"
    status = 500
    hint = "Correct the environment variable that the message names."


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Numbers that the marketplace decides by. Amounts in nano, times as their names say."""

    fee_bps: Share = 500
    min_reward_nano: Positive = 1_000_000
    referee_nano_per_gfuel: Annotated[int, Meta(ge=0)] = 500_000
    """What the platform charges for re-executing 10^9 fuel."""

    challenge_window_s: Annotated[int, Meta(ge=0)] = 24 * 3600
    """How long an earning that no referee has proved stays held."""

    holdback_rewards: Annotated[int, Meta(ge=0)] = 19
    """How many of its newest unproved earnings a device leaves behind: ``ceil((1 - p) / p)`` for a
    share p = 5 % of audited results, so that what a cheat risks outweighs what it gains."""

    holdback_s: Annotated[int, Meta(ge=0)] = 7 * 24 * 3600
    """After so long they vest all the same, for a device that has stopped working."""

    restitution_bps: Share = 1_000
    """The share of the fees that pays for repairing wrong results."""

    idle_refund_s: Positive = 7 * 24 * 3600
    """A job on which nothing has happened for so long ends, and its escrow goes back."""

    fold_limit: Positive = 100_000
    """How many transfers one sweep folds into balances and days."""

    background_percent: Annotated[int, Meta(ge=1, le=100)] = 20
    """The share of its time that each of the scheduler's loops works, unless it has a backlog."""

    max_job_life_s: Positive = 30 * 24 * 3600
    max_module_bytes: Positive = 32 << 20
    max_memory_bytes: Positive = 1 << 30
    max_input_bytes: Positive = 64 << 10
    max_request_bytes: Positive = 64 << 20
    chunk_tasks: Positive = 256
    """How many task rows are made at once, and how many a job keeps ahead of its claims."""

    max_graph_nodes: Positive = 10_000
    """How many jobs and tasks with edges of their own one request may have."""

    max_graph_edges: Positive = 100_000

    lease_ms: Positive = 15_000
    """How long an attempt lives without a heartbeat; devices send one every third of it."""

    attempt_grace_ms: Positive = 60_000
    """How much longer than the task's wall clock an attempt may live: download, queue, upload."""

    max_retries: Annotated[int, Meta(ge=0)] = 3
    retry_delays_ms: tuple[int, ...] = (1_000, 5_000, 30_000)
    max_wrong_results: Positive = 5
    """After so many proved lies the referee's output is delivered and the reward refunded."""

    priority_bands_ms: tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]] = (
        (0, 10_000),
        (10_000, 60_000),
        (60_000, 600_000),
        (600_000, 3_600_000),
    )
    """How long a task of each level, critical first, may wait by its deadline alone."""

    overdue_every: Positive = 4
    """Every so many tasks handed out one is the most overdue of any level, so that none starves."""

    fair_share_slots: Positive = 16
    """How many slots a requester may keep busy before its next tasks are dated later."""

    fair_half_life_ms: Positive = 600_000
    """How long it takes until half of a requester's lead over its share is forgiven."""

    slow_fuel_per_ms: Positive = 100_000
    """What a slow device runs in a millisecond; the longest time of a task is reckoned by it."""

    measured_fuel: Positive = 100_000_000
    """Accepted runs of at least so much fuel measure a device's speed."""

    same_device_after_ms: Positive = 60_000
    """How long a task waits for another device before the one that failed may try again."""

    breaker_failures: Positive = 5
    """After so many failures in a row a device gets no tasks for a while."""

    breaker_base_ms: Positive = 30_000
    """How long the first time; the n-th time it is n times as long."""

    breaker_longest_ms: Positive = 3_600_000

    first_quota: Positive = 4
    """How many tasks at a time a new device may hold."""

    max_quota: Positive = 256

    min_trust: Annotated[int, Meta(ge=0, le=1000)] = 100
    """A device below this trust gets no offers."""

    referee_tries: Positive = 3
    referee_lease_ms: Positive = 10_000
    leader_lease_ms: Positive = 10_000
    """How long a scheduler that died while it led keeps the others waiting."""

    request_skew_ms: Positive = 60_000
    enrolment_code_s: Positive = 15 * 60
    trial_fuel: Positive = 10_000_000_000

    autoscale_target_wait_s: Positive = 30
    """How long the newest waiting attempt should wait: the backlog is spread over as many slots."""

    autoscale_utilisation_percent: Percent = 70
    """How busy slots should be. Above it, waiting times grow faster than the work does."""

    autoscale_arrivals_s: Positive = 120
    """How far back arrivals are counted for their rate."""

    autoscale_service_ms: Positive = 5_000
    """What one attempt is taken to need before any has finished."""

    autoscale_max_slots: Positive = 10_000
    """No signal asks for more slots than this."""

    pool_window_s: Positive = 120
    """How long a pool must have needed fewer workers before it stops any. Longer than a task may
    run, so what shrinks the pool is rarely what interrupts work."""

    pool_step: Positive = 4
    """How many workers a pool starts or stops at one look."""

    pool_look_ms: Positive = 2_000
    """How often a pool looks at the signal."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one process is connected. Secrets have no defaults."""

    mode: Mode = Mode.DEVELOPMENT
    database_url: str | None = None
    database_owner_url: str | None = None
    """The login that migrates. Without it ``database_url`` migrates and runs as the app role."""

    valkey_url: str | None = None
    blobs_url: str | None = None
    secret: str | None = None
    """At least 32 random bytes in hex, the same for every process: keys derive from it."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8420
    state: str = "~/.local/state/gstd"
    log_json: bool = False
    referee_slots: Annotated[int, Meta(ge=0)] = 0
    """How many runs one referee process has under way; 0 for one per core."""

    batch_items: Positive = 128
    """How many claims, heartbeats, submits or releases one transaction takes at most."""

    metrics_token: str | None = None
    """Whoever sends it as a bearer token may read ``/metrics``; admins may without it."""

    policy: Policy = Policy()

    @property
    def state_dir(self) -> Path:
        """The folder of everything this machine keeps: databases, keys, blobs, logs."""
        return Path(self.state).expanduser().resolve()

    def secret_bytes(self) -> bytes:
        """The secret. Raises ``SettingsError`` when it is missing or too short."""
        try:
            secret = bytes.fromhex(self.secret or "")
        except ValueError:
            secret = b""
        if len(secret) < 32:
            raise SettingsError("GSTD_SECRET must be at least 64 hexadecimal digits")
        return secret

    def check(self) -> None:
        """Raise ``SettingsError`` for combinations that would be unsafe."""
        if self.mode is Mode.DEVELOPMENT and not _is_loopback(self.host):
            raise SettingsError(
                f"development mode does not listen on {self.host}",
                hint="Listen on 127.0.0.1, or set GSTD_MODE=production with real secrets.",
            )
        if self.metrics_token is not None and len(self.metrics_token) < MIN_TOKEN_CHARACTERS:
            raise SettingsError(
                f"GSTD_METRICS_TOKEN must have at least {MIN_TOKEN_CHARACTERS} characters",
                hint="Make one with `openssl rand -hex 24`, or unset it: admins need none.",
            )


def settings_from(env: Mapping[str, str]) -> Settings:
    """Settings of an environment. Raises ``SettingsError`` naming the wrong variable."""
    policy = {
        name.removeprefix(POLICY_PREFIX).lower(): _listed(value)
        for name, value in env.items()
        if name.startswith(POLICY_PREFIX)
    }
    known = set(Settings.__struct_fields__) - {"policy"}
    plain = {
        field: value
        for name, value in env.items()
        if name.startswith(PREFIX) and (field := name.removeprefix(PREFIX).lower()) in known
    }
    try:
        settings = msgspec.convert({**plain, "policy": policy}, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"GSTD_ settings: {error}") from error
    settings.check()
    return settings


def _listed(value: str) -> object:
    """A value that is written as a JSON list as that list, every other one as it is."""
    try:
        return msgspec.json.decode(value, type=list[object])
    except msgspec.DecodeError:
        return value


def _is_loopback(host: str) -> bool:
    try:
        return all(
            ipaddress.ip_address(str(info[4][0])).is_loopback
            for info in socket.getaddrinfo(host, None)
        )
    except OSError:
        return False
