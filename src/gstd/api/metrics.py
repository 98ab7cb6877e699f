"""``GET /metrics``: the platform's numbers in the Prometheus text format, for operators."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response, get
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import gstd
from gstd.api import edge
from gstd.api.authentication import PlatformDep, bearer_of, provide_actor
from gstd.api.platform import Platform
from gstd.database.connection import Connection
from gstd.dispatch.signal import COUNTED
from gstd.events import service as events
from gstd.protocol.autoscale import AutoscaleSignal
from gstd.protocol.types import Role
from gstd.tasks import views
from gstd.tasks.model import RunState, TaskState
from gstd.verification import runs

State = TypeVar("State", TaskState, RunState)

NOBODY_S = float("inf")
"""How long work waits while there is no device."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one scrape tells, of one moment."""

    signal: AutoscaleSignal
    tasks: Mapping[TaskState, int]
    jobs: int
    referee_runs: Mapping[RunState, int]
    log: events.Standing
    has_valkey: bool


@get("/metrics", include_in_schema=False)
async def show_metrics(request: Request[Any, Any, Any], platform: PlatformDep) -> Response[bytes]:
    """For Prometheus: no amounts, no names, nothing of any account."""
    await _must_be_operator(request, platform)
    snapshot = await _look(platform)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(snapshot))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


async def _must_be_operator(request: Request[Any, Any, Any], platform: Platform) -> None:
    """The metrics' own token, which opens nothing else, or an admin's API key."""
    token = platform.settings.metrics_token
    if token is not None and secrets.compare_digest(bearer_of(request).encode(), token.encode()):
        return
    (await provide_actor(request, platform)).must_be(Role.ADMIN)


async def _look(platform: Platform) -> Snapshot:
    signal = await platform.signal.read()
    has_valkey = await platform.bus.is_up()

    async def count(connection: Connection) -> Snapshot:
        return Snapshot(
            signal=signal,
            tasks=await views.unfinished_tasks(connection, at_most=COUNTED),
            jobs=await views.open_jobs(connection),
            referee_runs=await runs.open_runs(connection),
            log=await events.standing(connection),
            has_valkey=has_valkey,
        )

    return await edge.read(platform, count)


class _Numbers(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._seen = snapshot

    def collect(self) -> Iterator[Metric]:
        yield from _of_signal(self._seen.signal)
        yield from _of_work(self._seen)
        yield from _of_platform(self._seen)


def _of_signal(signal: AutoscaleSignal) -> Iterator[Metric]:
    wait_s = NOBODY_S if signal.expected_wait_s is None else signal.expected_wait_s
    numbers: Sequence[tuple[str, str, float]] = (
        ("desired_slots", "Slots that the work needs now.", signal.desired_slots),
        ("backlog_attempts", "Attempts that wait for a device.", signal.backlog),
        ("arrivals_per_second", "Attempts posted per second lately.", signal.arrival_per_s),
        ("service_seconds", "How long one attempt takes a slot, on average.", signal.service_s),
        ("running_attempts", "Attempts that devices hold.", signal.running),
        ("online_devices", "Devices that were heard of lately.", signal.online_devices),
        ("expected_wait_seconds", "How long a new attempt would wait; +Inf: no device.", wait_s),
    )
    for name, words, value in numbers:
        yield GaugeMetricFamily(f"gstd_{name}", words, value=value)


def _of_work(seen: Snapshot) -> Iterator[Metric]:
    yield _by_state("gstd_tasks", f"Tasks that are not final, counted up to {COUNTED}.", seen.tasks)
    yield GaugeMetricFamily("gstd_open_jobs", "Jobs that still have tasks to do.", value=seen.jobs)
    yield _by_state("gstd_referee_runs", "The referee's queue.", seen.referee_runs)


def _of_platform(seen: Snapshot) -> Iterator[Metric]:
    yield CounterMetricFamily("gstd_events", "Position of the event log.", value=seen.log.head)
    yield GaugeMetricFamily(
        "gstd_unnumbered_events", "Events that are not in the log yet.", value=seen.log.unnumbered
    )
    yield GaugeMetricFamily(
        "gstd_recorded_errors", "Errors nobody expected: gstd admin errors.", value=seen.log.errors
    )
    yield GaugeMetricFamily("gstd_valkey_up", "Whether Valkey answers.", value=seen.has_valkey)
    build = GaugeMetricFamily("gstd_build_info", "Which version runs.", labels=["version"])
    build.add_metric([gstd.__version__], 1)
    yield build


def _by_state(name: str, words: str, counts: Mapping[State, int]) -> Metric:
    family = GaugeMetricFamily(name, words, labels=["state"])
    for state, count in counts.items():
        family.add_metric([state], count)
    return family
