"""Clients that post and cancel jobs, take credits, and keep book of what they were told."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from uuid import UUID

from gstd.kernel.ids import new_id
from gstd.protocol.jobs import JobSummary
from gstd.protocol.people import NewAccount
from gstd.sdk import ApiError, Client, Pacing, UnreachableError
from tests.chaos.site import Site
from tests.chaos.witness import Deed, Witness

IMPATIENT = Pacing(retry_for_s=1.0, first_pause_s=0.05, longest_pause_s=0.2)
"""Gives up within most outages, so that the caller has to keep the key and come back."""

TASKS = 3
CREDIT = 2_000_000
"""Less than most jobs cost: many are refused for want of money."""


class Customer:
    """One account. What it believes is only what answers told it."""

    def __init__(self, site: Site, made: NewAccount, witness: Witness, seed: int) -> None:
        self.id: UUID = made.account.id
        self.granted = 0
        self.jobs: dict[UUID, int] = {}
        self.cancelled: set[UUID] = set()
        self.aside: list[Deed] = []
        self._site = site
        self._random = random.Random(seed)  # noqa: S311 - a choice of deeds
        self.client = Client(site.url, made.api_key, pacing=IMPATIENT, http=witness)
        self._admin = Client(site.url, site.admin_key, pacing=IMPATIENT, http=witness)

    async def live(self, stop: asyncio.Event) -> None:
        """One deed after the other; whoever lost patience with one may go on to the next."""
        while not stop.is_set():
            await self._settle(self._choose(), may_leave=0.3)

    async def settle_the_rest(self) -> None:
        """Come back to what was left without an answer, each with its own key."""
        while self.aside:
            await self._settle(self.aside.pop(), may_leave=0.0)

    async def _settle(self, deed: Deed, *, may_leave: float) -> None:
        while True:
            try:
                return await deed()
            except UnreachableError:
                pass
            except ApiError as error:
                if error.code == "insufficient_funds":
                    return None
                if error.status < 500:
                    raise
            if self._random.random() < may_leave:
                return self.aside.append(deed)

    def _choose(self) -> Deed:
        key = str(new_id())
        uncancelled = sorted(self.jobs.keys() - self.cancelled)
        kind = self._random.choices("pgc", [5, 4, 3 if uncancelled else 0])[0]
        if kind == "g":
            return partial(self._take_credit, key, self._random.randint(1, CREDIT))
        if kind == "c":
            return partial(self._cancel, key, self._random.choice(uncancelled))
        return partial(self._post, key, self._random.randint(1, TASKS))

    async def _take_credit(self, key: str, amount: int) -> None:
        await self._admin.credit(self.id, amount, idempotency_key=key)
        self.granted += amount

    async def _post(self, key: str, tasks: int) -> None:
        job = await self.client.post_job(self._site.job(tasks), idempotency_key=key)
        assert job.id not in self.jobs
        self.jobs[job.id] = int(job.money.funded_nano)

    async def _cancel(self, key: str, job_id: UUID) -> None:
        job = await self.client.cancel_job(job_id, idempotency_key=key)
        assert job.state == "cancelled"
        self.cancelled.add(job_id)

    async def assert_all_true(self) -> None:
        """What the platform says now is exactly what the answers said: nothing lost or doubled."""
        jobs = await self._all_jobs()
        assert {job.id: int(job.total_nano) for job in jobs} == self.jobs
        assert {job.id for job in jobs if job.state != "open"} == self.cancelled
        locked = sum(total for job, total in self.jobs.items() if job not in self.cancelled)
        balances = (await self.client.wallet()).balances
        assert sum(int(balance.escrow_nano) for balance in balances) == locked
        assert sum(int(balance.total_nano) for balance in balances) == self.granted

    async def _all_jobs(self) -> list[JobSummary]:
        page = await self.client.jobs(limit=500)
        found = page.items
        while page.next is not None:
            page = await self.client.jobs(before=page.next, limit=500)
            found += page.items
        return found
