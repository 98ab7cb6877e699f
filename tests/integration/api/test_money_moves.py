"""The idempotency contract of every route that moves money."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import msgspec
import pytest

from gstd.kernel.clock import SystemClock
from gstd.kernel.ids import new_id
from gstd.ledger import service as ledger
from gstd.protocol.corrections import (
    AccountName,
    CorrectableKind,
    CorrectionDecision,
    CorrectionRequest,
)
from gstd.protocol.graphs import JobAfter
from gstd.protocol.jobs import GraphRequest
from gstd.protocol.people import CreditRequest
from gstd.protocol.types import Asset, Role
from tests.contract.test_repeats import MONEY
from tests.integration.api.house import CREDITS, House, Person, keyed, open_house, problem_of
from tests.integration.ledger.scenes import Correction, propose
from tests.servers import until

DECISION = "/api/v1/admin/corrections/{correction_id}/decision"
TWINS = 16
AMOUNT = 7


class Refused(msgspec.Struct, frozen=True):
    """A request that is refused now, and how its reason goes away."""

    path: str
    sender: Person
    body: bytes
    status: int
    code: str
    mend: Callable[[], Awaitable[object]]


class Move(msgspec.Struct, frozen=True):
    """A request that moves money, and another one to the same route."""

    path: str
    sender: Person
    body: bytes
    other_body: bytes
    other_sender: Person
    effects: Callable[[], Awaitable[int]]
    """How often the first one happened, whoever sent it."""

    refused: Refused
    status: int = 201
    table: str = "ledger.transfer"
    """Where it is written that it happened."""

    once: str | None = None
    """What the other sender is told where it can happen only once, whoever asks."""


async def grant(house: House, person: Person, amount: int) -> None:
    now = SystemClock().now()
    await house.platform.database.run(
        lambda conn: ledger.grant_test_credits(conn, new_id(), person.id, amount, now)
    )


async def graph_move(house: House) -> Move:
    senders = [await house.requester() for _ in range(2)]
    poor = await house.person()

    async def graph(tasks: int) -> bytes:
        first = await house.request(tasks=tasks, name="map")
        second = await house.request(name="reduce", after=(JobAfter(job="map"),))
        return msgspec.json.encode(GraphRequest(jobs=[first, second]))

    async def effects() -> int:
        return sum([len((await sender.client.jobs()).items) for sender in senders]) // 2

    body = await graph(1)
    return Move(
        path="/api/v1/graphs",
        sender=senders[0],
        body=body,
        other_body=await graph(2),
        other_sender=senders[1],
        effects=effects,
        refused=Refused(
            "/api/v1/graphs",
            poor,
            body,
            402,
            "insufficient_funds",
            lambda: grant(house, poor, CREDITS),
        ),
    )


async def job_move(house: House) -> Move:
    senders = [await house.requester() for _ in range(2)]
    poor = await house.person()
    body = msgspec.json.encode(await house.request())

    async def effects() -> int:
        return sum([len((await sender.client.jobs()).items) for sender in senders])

    return Move(
        path="/api/v1/jobs",
        sender=senders[0],
        body=body,
        other_body=msgspec.json.encode(await house.request(tasks=2)),
        other_sender=senders[1],
        effects=effects,
        refused=Refused(
            "/api/v1/jobs",
            poor,
            body,
            402,
            "insufficient_funds",
            lambda: grant(house, poor, CREDITS),
        ),
    )


async def credit_move(house: House) -> Move:
    admins = [await house.person(Role.ADMIN) for _ in range(2)]
    receiver = await house.person()
    nobody = new_id()

    def body(amount: int) -> bytes:
        return msgspec.json.encode(CreditRequest(account_id=receiver.id, amount_nano=str(amount)))

    async def effects() -> int:
        balances = (await receiver.client.wallet()).balances
        return sum(int(balance.available_nano) for balance in balances) // AMOUNT

    async def appear() -> None:
        async with house.platform.database.connection() as connection:
            await connection.execute(
                "INSERT INTO account VALUES ($1, 'late', '{requester}', 0, now())", nobody
            )

    return Move(
        path="/api/v1/test-credits",
        sender=admins[0],
        body=body(AMOUNT),
        other_body=body(2 * AMOUNT),
        other_sender=admins[1],
        effects=effects,
        refused=Refused(
            "/api/v1/test-credits",
            admins[0],
            msgspec.json.encode(CreditRequest(account_id=nobody, amount_nano=str(AMOUNT))),
            404,
            "account_not_found",
            appear,
        ),
    )


def correction(
    giver: Person, taker: Person, amount: int, corrects: int | None = None
) -> CorrectionRequest:
    return CorrectionRequest(
        debit=AccountName(kind=CorrectableKind.AVAILABLE, owner=giver.id),
        credit=AccountName(kind=CorrectableKind.AVAILABLE, owner=taker.id),
        asset=Asset.TEST,
        amount_nano=str(amount),
        reason="credited to the wrong account",
        corrects=corrects,
    )


async def propose_move(house: House) -> Move:
    path = "/api/v1/admin/corrections"
    admins = [await house.person(Role.ADMIN) for _ in range(2)]
    giver, taker = await house.person(credit=AMOUNT), await house.person()
    owner = await asyncpg.connect(owner_url(house))
    newest = await owner.fetchval("SELECT last_value FROM ledger.transfer_id_seq")
    await owner.close()

    def body(amount: int, corrects: int | None = None) -> bytes:
        return msgspec.json.encode(correction(giver, taker, amount, corrects))

    async def effects() -> int:
        return sum(
            view.debit.owner == giver.id and view.amount_nano == str(AMOUNT)
            for view in await admins[0].client.corrections()
        )

    return Move(
        path=path,
        sender=admins[0],
        body=body(AMOUNT),
        other_body=body(2 * AMOUNT),
        other_sender=admins[1],
        effects=effects,
        refused=Refused(
            path,
            admins[0],
            body(3 * AMOUNT, newest + 1),
            400,
            "invalid_input",
            lambda: grant(house, taker, AMOUNT),  # the transfer that it corrects
        ),
        table="ledger.correction",
    )


async def apply_move(house: House) -> Move:
    admins = [await house.person(Role.ADMIN) for _ in range(3)]
    giver, poor = await house.person(credit=2 * AMOUNT), await house.person()
    taker, other_taker = await house.person(), await house.person()
    made = await admins[2].client.propose_correction(correction(giver, taker, AMOUNT))
    more = await admins[2].client.propose_correction(correction(poor, other_taker, AMOUNT))
    body = msgspec.json.encode(CorrectionDecision(apply=True))

    async def effects() -> int:
        balances = (await taker.client.wallet()).balances
        return sum(int(balance.available_nano) for balance in balances) // AMOUNT

    return Move(
        path=DECISION.format(correction_id=made.id),
        sender=admins[0],
        body=body,
        other_body=msgspec.json.encode(CorrectionDecision(apply=False)),
        other_sender=admins[1],
        effects=effects,
        refused=Refused(
            DECISION.format(correction_id=more.id),
            admins[0],
            body,
            402,
            "insufficient_funds",
            lambda: grant(house, poor, AMOUNT),
        ),
        status=200,
        once="correction_decided",
    )


async def reject_move(house: House) -> Move:
    admins = [await house.person(Role.ADMIN) for _ in range(3)]
    giver, taker = await house.person(credit=AMOUNT), await house.person()
    made = await admins[2].client.propose_correction(correction(giver, taker, AMOUNT))
    late = Correction(new_id(), giver.id, taker.id, AMOUNT)
    body = msgspec.json.encode(CorrectionDecision(apply=False))

    async def effects() -> int:
        async with house.platform.database.connection() as connection:
            return int(
                await connection.fetchval(
                    "SELECT count(*) FROM (SELECT kind, data FROM event_outbox "
                    "UNION ALL SELECT kind, data FROM event_log) AS said "
                    "WHERE kind = 'correction.rejected' AND data ->> 'correction_id' = $1",
                    str(made.id),
                )
            )

    async def appear() -> None:
        await house.platform.database.run(
            lambda conn: propose(conn, late, admins[2].id, SystemClock().now())
        )

    return Move(
        path=DECISION.format(correction_id=made.id),
        sender=admins[0],
        body=body,
        other_body=msgspec.json.encode(CorrectionDecision(apply=True)),
        other_sender=admins[1],
        effects=effects,
        refused=Refused(
            DECISION.format(correction_id=late.id),
            admins[0],
            body,
            404,
            "correction_not_found",
            appear,
        ),
        status=200,
        table="ledger.correction",
        once="correction_decided",
    )


MOVES = {
    "post a graph": ("/api/v1/graphs", graph_move),
    "post a job": ("/api/v1/jobs", job_move),
    "grant credits": ("/api/v1/test-credits", credit_move),
    "propose a correction": ("/api/v1/admin/corrections", propose_move),
    "apply a correction": (DECISION, apply_move),
    "reject a correction": (DECISION, reject_move),
}


@pytest.fixture(params=MOVES)
async def move(request: pytest.FixtureRequest, house: House) -> Move:
    _, make = MOVES[request.param]
    return await make(house)


async def post(
    house: House,
    move: Move,
    key: str,
    *,
    sender: Person | None = None,
    body: bytes | None = None,
) -> httpx2.Response:
    return await house.http.post(
        move.path, headers=keyed(sender or move.sender, key), content=body or move.body
    )


def owner_url(house: House) -> str:
    url = house.platform.settings.database_owner_url
    assert url is not None
    return url


async def everything(house: House) -> dict[str, str]:
    """A fingerprint of every table, except the errors that nobody expected."""
    owner = await asyncpg.connect(owner_url(house))
    try:
        names = await owner.fetch(
            "SELECT oid::regclass::text AS name FROM pg_class WHERE relkind = 'r' "
            "AND relnamespace IN ('public'::regnamespace, 'ledger'::regnamespace) "
            "AND relname <> 'recorded_error'"
        )
        return {
            row["name"]: await owner.fetchval(
                f"SELECT count(*) || md5(string_agg(t::text, '|' ORDER BY t::text)) "  # noqa: S608 - names of the catalogue
                f"FROM {row['name']} t"
            )
            for row in names
        }
    finally:
        await owner.close()


def assert_replay(again: httpx2.Response, first: httpx2.Response) -> None:
    assert again.headers["idempotent-replayed"] == "true"
    assert again.content == first.content
    assert again.status_code == first.status_code
    assert again.headers["content-type"] == first.headers["content-type"]


def test_every_route_that_moves_money_is_proved_here() -> None:
    assert {route for route, _ in MOVES.values()} == MONEY


async def test_without_a_key_nothing_moves_and_the_hint_says_why(house: House, move: Move) -> None:
    before = await everything(house)
    headers = keyed(move.sender)
    del headers["Idempotency-Key"]
    answer = await house.http.post(move.path, headers=headers, content=move.body)
    hint = problem_of(answer, 400, "idempotency_key_required").hint
    assert "`Idempotency-Key`" in hint
    assert "twice" in hint
    assert await everything(house) == before


async def test_a_replay_is_the_same_bytes_and_changes_no_row(house: House, move: Move) -> None:
    first = await post(house, move, "one")
    assert first.status_code == move.status
    assert "idempotent-replayed" not in first.headers
    before = await everything(house)
    for _ in range(3):
        assert_replay(await post(house, move, "one"), first)
    assert await everything(house) == before
    assert await move.effects() == 1


async def test_another_request_under_the_key_is_refused_and_changes_no_row(
    house: House, move: Move
) -> None:
    first = await post(house, move, "one")
    before = await everything(house)
    answer = await post(house, move, "one", body=move.other_body)
    problem_of(answer, 409, "idempotency_conflict")
    aside = await house.http.post(
        f"{move.path}?more=1", headers=keyed(move.sender, "one"), content=move.body
    )
    problem_of(aside, 409, "idempotency_conflict")
    assert await everything(house) == before
    assert_replay(await post(house, move, "one"), first)


async def test_a_refused_key_stays_refused_after_its_reason_is_gone(
    house: House, move: Move
) -> None:
    case = move.refused

    async def ask(key: str) -> httpx2.Response:
        return await house.http.post(case.path, headers=keyed(case.sender, key), content=case.body)

    first = await ask("poor")
    problem_of(first, case.status, case.code)
    await case.mend()
    before = await everything(house)
    assert_replay(await ask("poor"), first)
    assert await everything(house) == before
    assert (await ask("rich")).status_code == move.status, "the reason was not gone"


async def test_twins_wait_for_the_first_and_get_its_answer(house: House, move: Move) -> None:
    async with held_back(house, move.table) as waiting:
        twins = [asyncio.create_task(post(house, move, "twin")) for _ in range(TWINS)]
        await until(waiting)
        assert not any(twin.done() for twin in twins)
    answers = await asyncio.gather(*twins)
    assert [answer.status_code for answer in answers] == [move.status] * TWINS
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == TWINS - 1
    assert await move.effects() == 1


@asynccontextmanager
async def held_back(house: House, table: str) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Lets nobody write there within the block; tells whether a twin waits for another."""
    owner = await asyncpg.connect(owner_url(house))
    try:
        async with owner.transaction():
            await owner.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")

            async def waiting() -> bool:
                return bool(
                    await owner.fetchval(
                        "SELECT count(*) FROM pg_locks WHERE NOT granted "
                        "AND locktype = 'transactionid'"
                    )
                )

            yield waiting
    finally:
        await owner.close()


async def test_the_key_of_another_account_is_another_key(house: House, move: Move) -> None:
    first = await post(house, move, "same")
    other = await post(house, move, "same", sender=move.other_sender)
    assert "idempotent-replayed" not in other.headers
    if move.once is None:
        assert other.status_code == move.status
    else:
        problem_of(other, 409, move.once)
    happened = 2 if move.once is None else 1
    assert await move.effects() == happened
    assert_replay(await post(house, move, "same"), first)
    assert_replay(await post(house, move, "same", sender=move.other_sender), other)
    assert await move.effects() == happened


async def test_the_answer_survives_a_restart_of_the_application(
    house: House, move: Move, tmp_path: Path
) -> None:
    first = await post(house, move, "one")
    settings = house.platform.settings
    assert settings.database_url is not None
    async with open_house(
        tmp_path, settings.database_url, owner_url(house), None, blobs_url=settings.blobs_url
    ) as restarted:
        assert_replay(await post(restarted, move, "one"), first)
    assert await move.effects() == 1


@pytest.mark.parametrize(
    ("table", "trigger"),
    [
        (None, "TRIGGER poison BEFORE INSERT OR UPDATE"),
        ("idempotency", "TRIGGER poison BEFORE UPDATE"),
        ("idempotency", "CONSTRAINT TRIGGER poison AFTER INSERT"),
    ],
    ids=["while it is done", "while the answer is stored", "at the commit"],
)
async def test_a_failure_of_the_platform_undoes_everything_and_is_not_an_answer(
    house: House, move: Move, table: str | None, trigger: str
) -> None:
    before = await everything(house)
    async with poisoned(house, table or move.table, trigger):
        for _ in range(2):
            problem_of(await post(house, move, "again"), 500, "internal_error")
    assert await everything(house) == before
    answer = await post(house, move, "again")
    assert answer.status_code == move.status
    assert "idempotent-replayed" not in answer.headers
    assert await move.effects() == 1


@asynccontextmanager
async def poisoned(house: House, table: str, trigger: str) -> AsyncIterator[None]:
    """Within the block the database fails where this trigger stands."""
    late = "DEFERRABLE INITIALLY DEFERRED" if trigger.startswith("CONSTRAINT") else ""
    owner = await asyncpg.connect(owner_url(house))
    try:
        await owner.execute(
            "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'poison'; END $$"
        )
        await owner.execute(
            f"CREATE {trigger} ON {table} {late} FOR EACH ROW EXECUTE FUNCTION poison()"
        )
        yield
    finally:
        await owner.execute("DROP FUNCTION poison CASCADE")
        await owner.close()


@pytest.mark.parametrize("statement", ["DELETE FROM idempotency", "TRUNCATE idempotency"])
async def test_the_application_cannot_forget_a_key(house: House, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await house.platform.database.run(lambda conn: run(conn, statement))


async def run(connection: Any, statement: str) -> None:
    await connection.execute(statement)
