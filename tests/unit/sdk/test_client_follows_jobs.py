"""The client: results in order, and waiting for a job by its events."""

from __future__ import annotations

import asyncio
import base64
from typing import Any
from uuid import UUID

import httpx2

from gstd.protocol.jobs import JobView
from gstd.sdk import Client, Pacing

JOB = UUID("01890000-0000-7000-8000-000000000002")
HASH = "a" * 64


async def at_once(seconds: float) -> None:
    await asyncio.sleep(0 * seconds)


def job_view(state: str, **counts: int) -> dict[str, Any]:
    nano = dict.fromkeys(
        ("funded_nano", "released_nano", "fee_nano", "referee_nano", "refunded_nano"), "0"
    )
    prices = dict.fromkeys(("reward_nano", "fee_nano", "referee_nano", "task_nano"), "0")
    return {
        "id": str(JOB),
        "name": "j",
        "state": state,
        "reason": "",
        "module": HASH,
        "tier": "full",
        "quorum": 2,
        "priority": "normal",
        "asset": "TEST",
        "limits": {},
        "profile": "p",
        "quote": {"tasks": 2, "copies": 1, **prices, "total_nano": "0", "asset": "TEST"},
        "counts": {"tasks": 2, **counts},
        "money": {**nano, "locked_nano": "0", "restored_nano": "0", "frozen_nano": "0"},
        "created_at": "2026-01-01T00:00:00Z",
        "deadline": "2026-01-02T00:00:00Z",
        "closed_at": None,
    }


def result(index: int) -> dict[str, Any]:
    return {
        "task_id": str(JOB),
        "index": index,
        "status": "ok",
        "exit_code": 0,
        "fuel": 1,
        "output_hash": HASH,
        "output_bytes": 1,
        "result_hash": HASH,
        "output": base64.b64encode(bytes([index])).decode(),
    }


async def test_results_come_page_by_page_in_order() -> None:
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.raw_path.decode())
        after = request.url.params.get("after")
        if after is None:
            return httpx2.Response(200, json={"items": [result(0), result(1)], "next": 1})
        return httpx2.Response(200, json={"items": [result(4)], "next": None})

    async with Client("http://h:1/", "k", http=httpx2.MockTransport(answer)) as client:
        got = [(one.index, one.output) async for one in client.results(JOB)]
    assert got == [(0, b"\0"), (1, b"\1"), (4, b"\4")]
    assert asked == [
        f"/api/v1/jobs/{JOB}/results?output=true",
        f"/api/v1/jobs/{JOB}/results?after=1&output=true",
    ]


async def test_waits_by_events_until_nothing_can_change() -> None:
    views = [
        job_view("open", running=2),
        job_view("open", running=2),
        job_view("cancelled", accepted=1, verifying=1),
        job_view("cancelled", accepted=2),
    ]
    event = {
        "position": 7,
        "kind": "job.posted",
        "at": "2026-01-01T00:00:00Z",
        "job_id": str(JOB),
        "task_id": None,
        "attempt_id": None,
        "data": {},
    }
    polls: list[tuple[str, str | None]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path != "/api/v1/events":
            return httpx2.Response(200, json=views.pop(0))
        after, wait = request.url.params["after"], request.url.params.get("wait_ms")
        polls.append((after, wait))
        items = [event] if after == "0" else []
        return httpx2.Response(200, json={"items": items, "position": int(after) + 7})

    seen: list[JobView] = []
    pacing = Pacing(sleep=at_once)
    transport = httpx2.MockTransport(answer)
    async with Client("http://h:1", "k", pacing=pacing, http=transport) as client:
        job = await client.wait_for_job(JOB, seen.append)
    assert job.counts.accepted == 2
    assert [view.state for view in seen] == ["open", "cancelled", "cancelled"]
    assert polls == [("0", None), ("7", None), ("14", "20000"), ("21", "20000"), ("28", "20000")]
