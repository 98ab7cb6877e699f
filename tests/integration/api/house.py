"""A running application and the people and devices that call it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import msgspec

from gstd.accounts import service as accounts
from gstd.api.app import build_app
from gstd.api.platform import Platform
from gstd.kernel.clock import SystemClock
from gstd.kernel.ids import new_id
from gstd.kernel.settings import Policy, Settings
from gstd.ledger import service as ledger
from gstd.maintenance.scheduler import Scheduler
from gstd.proof_of_work.solver import solve
from gstd.protocol.execution import Outcome, Status
from gstd.protocol.jobs import InputRange, JobRequest, JobView
from gstd.protocol.people import Problem
from gstd.protocol.signing import DeviceKey
from gstd.protocol.types import Asset, Role, Tier
from gstd.protocol.work import MAX_BATCH, Claimed, ClaimItem, Offer, OffersRequest, SubmitItem
from gstd.sandbox.profile import PROFILE
from gstd.sdk import Client, DeviceClient, Pacing
from gstd.tasks import jobs
from gstd.verification import runs
from gstd.verification.results import result_of
from gstd.worker.results import signed_result
from tests.servers import in_own_task, until

URL = "http://127.0.0.1:8420"
MODULE = Path(__file__).parents[3] / "examples" / "mandelbrot" / "mandelbrot.wasm"
SECRET = bytes(range(32)).hex()
REWARD = 1_000_000
CREDITS = 1_000_000_000_000
RIGHT = b"the right output"
ONCE = Pacing(retry_for_s=0.0)
"""Tests see the first answer."""


class Person(msgspec.Struct, frozen=True):
    """An account with its key and its client."""

    id: UUID
    key: str
    client: Client


class Device(msgspec.Struct, frozen=True):
    """An enrolled device with its key and its client."""

    id: UUID
    key: DeviceKey
    client: DeviceClient
    owner: Person


class House:
    """The application, how to call it, and short ways to what tests need before they begin."""

    def __init__(self, app: Any, platform: Platform) -> None:
        self.app = app
        self.platform = platform
        self.transport = httpx2.ASGITransport(app)
        self.http = httpx2.AsyncClient(transport=self.transport, base_url=URL)
        self._module_id: str | None = None
        self._starts = count(step=1000)

    async def person(self, *roles: Role, credit: int = 0) -> Person:
        """A new account of these roles, with test credits if asked."""
        now = SystemClock().now()
        made = await self.platform.database.run(
            lambda conn: accounts.create_account(conn, "somebody", roles or [Role.REQUESTER], now)
        )
        if credit:
            await self.platform.database.run(
                lambda conn: ledger.grant_test_credits(conn, new_id(), made.account.id, credit, now)
            )
        client = Client(URL, made.api_key, pacing=ONCE, http=self.transport)
        return Person(made.account.id, made.api_key, client)

    async def requester(self) -> Person:
        """A requester with test credits."""
        return await self.person(Role.REQUESTER, credit=CREDITS)

    async def device(self, owner: Person | None = None) -> Device:
        """A new device of a new worker, enrolled over HTTP."""
        owner = owner or await self.person(Role.WORKER)
        key = DeviceKey.generate()
        client = DeviceClient(URL, key, pacing=ONCE, http=self.transport)
        code = await owner.client.new_enrolment_code()
        return Device((await client.enrol(code.code, "device")).id, key, client, owner)

    async def module(self) -> str:
        """The id of the Mandelbrot module, uploaded once."""
        if self._module_id is None:
            person = await self.person(Role.REQUESTER)
            self._module_id = (await person.client.upload_module(MODULE.read_bytes(), "m")).id
        return self._module_id

    async def request(self, tasks: int = 1, **changes: Any) -> JobRequest:
        """A job of the smallest reward over ``tasks`` inputs that no other job has."""
        plain = JobRequest(
            module=await self.module(),
            reward_nano=str(REWARD),
            range=InputRange(count=tasks, start=next(self._starts)),
            asset=Asset.TEST,
            tier=Tier.FULL,
        )
        return msgspec.structs.replace(plain, **changes)

    async def job(self, person: Person, tasks: int = 1, **changes: Any) -> JobView:
        """A job posted over HTTP."""
        return await person.client.post_job(await self.request(tasks, **changes))

    async def offers_of(self, device: Device, job: JobView, wanted: int) -> list[Offer]:
        """Offers of this one job; those of other tests' jobs are left alone."""
        answer = await device.client.offers(OffersRequest(profile=PROFILE, free=64))
        mine = [offer for offer in answer.offers if offer.job_id == job.id]
        assert len(mine) >= wanted, answer
        return mine[:wanted]

    async def claim(self, device: Device, job: JobView, wanted: int = 1) -> list[Claimed]:
        """Attempts at this many tasks of a job, with their proofs of work."""
        offers = await self.offers_of(device, job, wanted)
        outcomes = await device.client.claims([solved(offer) for offer in offers])
        claimed = [outcome for outcome in outcomes if isinstance(outcome, Claimed)]
        assert len(claimed) == wanted, outcomes
        return claimed

    async def referee(self, truth: Outcome | None = None) -> None:
        """Let the referee find ``truth`` for everything that waits."""
        database, policy = self.platform.database, self.platform.policy
        now = SystemClock().now()
        result = truth or outcome()
        await self.platform.blobs.put(result.stdout)
        taken = await database.run(lambda conn: runs.take_runs(conn, 1000, policy, now))
        ends = [runs.Finished(run, result_of(run.work(), result)) for run in taken]
        await database.run(lambda conn: runs.record_runs(conn, ends, policy, now))
        ids = [run.id for run in taken]
        await database.run(lambda conn: runs.judge_waiting(conn, ids, policy, now))

    async def end_jobs(self) -> None:
        """Leave no task to the next test."""
        async with self.platform.database.connection() as connection:
            rows = await connection.fetch("SELECT id, account_id FROM job WHERE state = 'open'")
        for row in rows:
            await self.platform.database.run(
                lambda conn, row=row: jobs.cancel_job(  # type: ignore[misc]
                    conn, row["account_id"], row["id"], self.platform.policy, SystemClock().now()
                )
            )

    async def number_events(self) -> None:
        """What the scheduler does with the outbox, until it is empty."""
        platform = self.platform
        scheduler = Scheduler(
            platform.database,
            platform.blobs,
            platform.bus,
            platform.policy,
            platform.clock,
            platform.log_key,
        )

        async def all_numbered() -> bool:
            await scheduler.number_events()
            async with platform.database.connection() as connection:
                left: int = await connection.fetchval("SELECT count(*) FROM event_outbox")
                return left == 0

        # A transaction that runs in another database of the server holds the numbering back.
        await until(all_numbered)
        await scheduler.seal_events()


def outcome(stdout: bytes = RIGHT) -> Outcome:
    """A run that ended well."""
    return Outcome(status=Status.OK, exit_code=0, fuel=1_000, stdout=stdout, stderr=b"")


def solved(offer: Offer) -> ClaimItem:
    """The offer with its proof of work."""
    return ClaimItem(
        offer_id=offer.offer_id,
        task_id=offer.task_id,
        bits=offer.bits,
        count=offer.count,
        expires_at=offer.expires_at,
        nonces=solve(offer.prefix, offer.bits, offer.count),
    )


def signed(device: Device, claimed: Claimed, result: Outcome | None = None) -> SubmitItem:
    """A result of an attempt, rightly signed."""
    return signed_result(device.key, claimed, result or outcome())


def settings_for(
    folder: Path, database: str, owner: str, valkey: str | None, policy: Policy | None = None
) -> Settings:
    """Settings of one process over these stores."""
    return Settings(
        database_url=database,
        database_owner_url=owner,
        valkey_url=valkey,
        blobs_url=f"file://{folder}/blobs",
        secret=SECRET,
        state=str(folder),
        policy=policy
        or Policy(max_request_bytes=1 << 20, max_module_bytes=512 << 10, first_quota=MAX_BATCH),
    )


@asynccontextmanager
async def open_house(
    folder: Path, database: str, owner: str, valkey: str | None, **changes: Any
) -> AsyncIterator[House]:
    """An application of its own over these stores. ``changes`` are settings."""
    plain = settings_for(folder, database, owner, valkey)
    app = build_app(msgspec.structs.replace(plain, **changes))
    async with in_own_task(app.lifespan()):
        house = House(app, app.state.platform)
        async with house.http:
            yield house


def problem_of(response: httpx2.Response, status: int, code: str) -> Problem:
    """The problem that an answer tells of; fails unless it is complete and as expected."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/problem+json")
    found = msgspec.json.decode(response.content, type=Problem)
    assert (found.status, found.code) == (status, code), found
    assert found.type == f"urn:gstd:problem:{code}"
    assert found.title
    assert found.detail
    assert found.hint
    assert found.request_id == response.headers["x-request-id"]
    return found


def bearer(person: Person, **more: str) -> dict[str, str]:
    """Headers of a person's request."""
    return {"Authorization": f"Bearer {person.key}", **more}


def keyed(person: Person, key: str | None = None) -> dict[str, str]:
    """Headers of a person's request that moves money, with a new key unless one is given."""
    return bearer(person, **{"Idempotency-Key": str(new_id()) if key is None else key})


def codes(outcomes: Sequence[object]) -> list[str]:
    """The outcomes of a batch in short: what they are, or why not."""
    return [getattr(item, "code", type(item).__name__) for item in outcomes]
