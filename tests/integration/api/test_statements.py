"""The history of money over HTTP: statements, tables, balances of the past, the whole ledger."""

from __future__ import annotations

import asyncio
import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from gstd.ledger.statements import MAX_LIMIT
from gstd.protocol.money import Direction, Part, StatementRow, TransferKind
from gstd.protocol.types import Asset, Role
from gstd.sdk.client import Client
from gstd.sdk.money import StatementFilters
from tests.integration.api.house import CREDITS, REWARD, House, Person, bearer, problem_of, signed
from tests.servers import until
from tests.unit.ledger import hledger

BASE = "/api/v1/wallet"


async def worked(house: House) -> tuple[Person, Person, UUID]:
    """A requester, and the worker that was paid for one of the job's two tasks; the job."""
    requester = await house.requester()
    job = await house.job(requester, tasks=2)
    device = await house.device()
    [claimed] = await house.claim(device, job)
    await device.client.submits([signed(device, claimed)])
    await house.referee()
    await requester.client.cancel_job(job.id)
    return requester, device.owner, job.id


async def all_rows(client: Client) -> list[StatementRow]:
    return [row async for row in client.statement_rows()]


async def table_of(client: Client) -> list[dict[str, str]]:
    file = io.BytesIO()
    assert await client.statement_csv(file) == len(file.getvalue())
    return list(csv.DictReader(io.StringIO(file.getvalue().decode(), newline="")))


async def test_a_statement_tells_how_a_job_was_paid(house: House) -> None:
    requester, worker, job = await worked(house)
    mine = await all_rows(requester.client)
    assert {row.kind for row in mine} >= {
        TransferKind.GRANT,
        TransferKind.FUND,
        TransferKind.REFUND,
    }
    assert {row.job_id for row in mine} == {None, job}
    [reward] = [row for row in await all_rows(worker.client) if row.kind is TransferKind.REWARD]
    assert (reward.part, reward.direction) == (Part.HELD, Direction.IN)
    assert reward.amount_nano == str(REWARD)
    assert reward.counterparty == f"escrow of job {job}"
    assert reward.task_id is not None
    assert reward.attempt_id is not None
    filters = StatementFilters(task_id=reward.task_id, direction=Direction.IN)
    assert reward in (await worker.client.statement(filters)).items
    page = await requester.client.statement(StatementFilters(job_id=job, part=Part.ESCROW))
    assert sum(int(row.amount_nano) for row in page.items) == 0


async def test_rows_of_others_are_never_visible(house: House) -> None:
    requester, worker, job = await worked(house)
    stranger, admin = await house.requester(), await house.person(Role.ADMIN)
    rows = await all_rows(requester.client)
    task = next(row.task_id for row in rows if row.task_id is not None)
    for person in (stranger, admin):
        own = await all_rows(person.client)
        assert len(own) == (person is stranger)
        assert (await person.client.statement(StatementFilters(task_id=task))).items == []
        answer = await house.http.get(
            f"{BASE}/statement", params={"job_id": str(job)}, headers=bearer(person)
        )
        problem_of(answer, 400, "invalid_input")
        assert len(await table_of(person.client)) == len(own)
        assert len(await person.client.totals()) == len(own)
    earned = {row.transfer_id for row in await all_rows(worker.client)}
    assert {row.part for row in await all_rows(worker.client)} <= {Part.HELD, Part.AVAILABLE}
    assert earned < {row.transfer_id for row in rows} | earned
    assert sum(int(row.amount_nano) for row in rows if row.part is Part.HELD) == 0


async def test_the_table_adds_up_to_the_balance(house: House) -> None:
    requester, _, _ = await worked(house)
    rows = await table_of(requester.client)
    assert len(rows) == len(await all_rows(requester.client))
    [balance] = (await requester.client.wallet()).balances
    for part in Part:
        amounts = (Decimal(row["amount"]) for row in rows if row["part"] == part)
        total = sum(amounts, Decimal(0))
        assert int(total.scaleb(9)) == int(getattr(balance, f"{part.value}_nano"))
    for row in rows:
        assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in row.values()), row
        assert all(not cell.startswith("-") for name, cell in row.items() if name != "amount"), row


async def test_downloads_are_attachments(house: House) -> None:
    admin = await house.person(Role.ADMIN)
    for path, kind in ((f"{BASE}/statement.csv", "text/csv"),
                       ("/api/v1/admin/ledger/export", "text/plain")):  # fmt: skip
        answer = await house.http.get(path, headers=bearer(admin))
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


async def test_balances_and_totals(house: House) -> None:
    requester, _, _ = await worked(house)
    now = await requester.client.balances_at()
    [balance] = (await requester.client.wallet()).balances
    [item] = now.balances
    assert item.available_nano == balance.available_nano
    assert item.total_nano == balance.total_nano
    first = (await all_rows(requester.client))[-1]
    [item] = (await requester.client.balances_at(first.at)).balances
    assert item.available_nano == item.total_nano == str(CREDITS)
    past = await requester.client.balances_at(first.at - timedelta(microseconds=1))
    assert past.balances == []
    totals = await requester.client.totals(asset=Asset.TEST)
    sums = sum(int(total.in_nano) - int(total.out_nano) for total in totals)
    assert sums == int(balance.total_nano)
    assert await requester.client.totals(kind=TransferKind.DEPOSIT) == []


async def test_the_export_of_a_used_ledger_passes_hledger(house: House) -> None:
    await worked(house)
    admin = await house.person(Role.ADMIN)
    file = io.BytesIO()
    await admin.client.export_ledger(file)
    journal = file.getvalue().decode("ascii")
    assert hledger.complaint(journal) == ""
    async with house.platform.database.connection() as connection:
        rows = await connection.fetch(
            "SELECT owner, kind::text, job_id, asset::text, balance FROM ledger.balance"
        )
    expected = {}
    for owner, kind, job, asset, balance in rows:
        holder = "platform" if owner is None else f"user:{owner}"
        name = f"{holder}:{kind}" + ("" if job is None else f":{job}")
        expected[name, asset] = balance
    found = hledger.balances(journal)
    assert {key: nano for key, nano in found.items() if nano} == {
        key: nano for key, nano in expected.items() if nano
    }


async def test_only_admins_export(house: House) -> None:
    for role in (Role.REQUESTER, Role.WORKER):
        person = await house.person(role)
        answer = await house.http.get("/api/v1/admin/ledger/export", headers=bearer(person))
        assert answer.status_code == 403


@pytest.mark.parametrize("path", ["statement", "statement.csv"])
@pytest.mark.parametrize(
    "query",
    [
        "asset=EUR",
        "part=pocket",
        "kind=theft",
        "kind=fund&kind=theft",
        "direction=sideways",
        "since=yesterday",
        "since=2026-01-01T00:00:00",
        "until=9999-12-31T23:59:59.999999Z",
        "since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z",
        "task_id=7",
        f"job_id={UUID(int=7)}",
        f"job_id={UUID(int=7)}&task_id={UUID(int=7)}",
    ],
)
async def test_bad_filters_are_refused_with_a_hint(house: House, path: str, query: str) -> None:
    person = await house.person()
    answer = await house.http.get(f"{BASE}/{path}?{query}", headers=bearer(person))
    problem_of(answer, 400, "invalid_input")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("statement?cursor=nonsense", "bad_cursor"),
        ("statement?cursor=%00", "bad_cursor"),
        ("statement?limit=0", "invalid_input"),
        (f"statement?limit={MAX_LIMIT + 1}", "invalid_input"),
        ("balances?at=noon", "invalid_input"),
        ("balances?at=2026-01-01T00:00:00", "invalid_input"),
        ("balances?at=0001-01-01T00:00:00Z", "invalid_input"),
        ("totals?kind=theft", "invalid_input"),
    ],
)
async def test_bad_questions_are_refused_with_a_hint(house: House, path: str, code: str) -> None:
    person = await house.person()
    answer = await house.http.get(f"{BASE}/{path}", headers=bearer(person))
    problem_of(answer, 400, code)


async def test_who_hangs_up_leaves_no_transaction(house: House) -> None:
    """The client goes away after the first piece and takes nothing more."""
    requester, _, _ = await worked(house)
    begun = asyncio.Event()
    sent: list[str] = []

    async def receive() -> dict[str, object]:
        if not sent:
            sent.append("request")
            return {"type": "http.request", "body": b"", "more_body": False}
        await begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.body":
            begun.set()
            await asyncio.sleep(0.05)

    path = f"{BASE}/statement.csv"
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "server": ("127.0.0.1", 8420), "client": ("127.0.0.1", 1),
        "headers": [(b"authorization", f"Bearer {requester.key}".encode())], "state": {},
    }  # fmt: skip
    await house.app(scope, receive, send)
    assert begun.is_set()
    assert house.app.state["downloads"] == 0

    async def is_released() -> bool:
        async with house.platform.database.connection() as connection:
            return not await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND state LIKE 'idle in transaction%'"
            )

    await until(is_released)


async def test_too_many_downloads_wait(house: House) -> None:
    person = await house.person()
    house.app.state["downloads"] = 4
    try:
        answer = await house.http.get(f"{BASE}/statement.csv", headers=bearer(person))
        problem_of(answer, 503, "too_many_downloads")
    finally:
        house.app.state["downloads"] = 0
    assert (await house.http.get(f"{BASE}/statement.csv", headers=bearer(person))).is_success


async def test_times_are_understood_in_any_zone(house: House) -> None:
    person = await house.requester()
    [row] = await all_rows(person.client)
    at = row.at.astimezone(UTC)
    for filters in (
        StatementFilters(since=at, until=at + timedelta(microseconds=1)),
        StatementFilters(since=datetime(2000, 1, 1, tzinfo=UTC)),
    ):
        assert (await person.client.statement(filters)).items == [row]
    assert (await person.client.statement(StatementFilters(until=at))).items == []
