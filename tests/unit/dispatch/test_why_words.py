"""The sentences of ``why`` for what integration tests cannot bring about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from gstd.accounts.model import DeviceActor
from gstd.dispatch import why_words
from gstd.dispatch.asking import Asking
from gstd.dispatch.why_words import Standing, TaskFacts
from gstd.protocol.work import OffersRequest

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
TASK = TaskFacts(
    id=UUID(int=1),
    class_id=1,
    state="queued",
    reason="waiting for a device",
    delayed=False,
    available_at=NOW,
    deadline=NOW + timedelta(hours=1),
    order_key=1,
    running=0,
    running_until=None,
    run_state=None,
    run_until=None,
    runs_ahead=0,
)


def task(**changes: Any) -> TaskFacts:
    return msgspec.structs.replace(TASK, **changes)


@pytest.mark.parametrize(
    ("facts", "words", "until"),
    [
        (
            task(state="blocked"),
            "waits for the tasks it depends on, at most until 2026-01-01 13:00:00 UTC",
            TASK.deadline,
        ),
        (
            task(state="verifying", reason="comparing results"),
            "comparing results. Nothing cancels or expires it meanwhile",
            None,
        ),
        (
            task(state="verifying", reason="waiting", run_state="queued", runs_ahead=1),
            "waiting; 1 run comes first. Nothing cancels or expires it meanwhile",
            None,
        ),
        (
            task(state="running", running=2, running_until=NOW),
            "running on 2 devices, which must submit before 2026-01-01 12:00:00 UTC",
            NOW,
        ),
        (
            task(state="failed", reason="4 attempts failed"),
            "failed: 4 attempts failed. Nothing more happens to it",
            None,
        ),
    ],
)
def test_states_that_are_waited_out(facts: TaskFacts, words: str, until: datetime | None) -> None:
    assert why_words.of_state(facts) == (words, until)


def test_standings_have_words_for_one_and_many() -> None:
    for standing in Standing:
        assert standing.of_devices(1).startswith("1 ")
        assert standing.of_devices(3).startswith("3 ")
    assert Standing.SILENT.of_devices(3) == "3 have not asked for work lately"


def of_device(running: int, **changes: Any) -> str | None:
    device = DeviceActor(
        device_id=UUID(int=1),
        account_id=UUID(int=2),
        name="a device",
        public_key="00" * 32,
        **{"state": "active", "trust": 500, "quota": 2, **changes},
    )
    asking = Asking(OffersRequest(profile="wasm/1", wait_ms=20_000), NOW)
    return why_words.of_device(
        device, asking, is_online=True, seen_at=NOW, running=running, now=NOW
    )


def test_a_device_that_asks_is_told_of_itself_only_what_keeps_it_from_work() -> None:
    assert of_device(0) is None
    assert of_device(2) == "it runs 2 tasks, as many as it may at a time"
    assert of_device(0, state="suspended") == (
        "suspended: too many of its results were proved wrong"
    )
