"""Drains graphs: devices whose output is a function of the input, and a referee that agrees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from gstd.protocol.execution import Outcome, Status, TaskInput
from gstd.protocol.graphs import JobInput
from gstd.protocol.jobs import JobRequest, RerunRequest, TaskView
from gstd.protocol.types import Role
from gstd.protocol.work import Claimed
from gstd.tasks import jobs, rerun
from gstd.tasks.opening import open_children, stop_jobs
from gstd.tasks.supersede import supersede_stale
from gstd.verification import runs
from gstd.verification.results import result_of
from tests.world import CREDITS, Device, World, outcome

Program = Callable[[TaskInput], Outcome]


def bracket(item: TaskInput) -> Outcome:
    """``args(stdin)``: shows what was read, in which order."""
    return outcome(" ".join(item.args).encode() + b"(" + item.stdin + b")")


def trapping(*names: str) -> Program:
    """The same, but inputs with these arguments trap."""

    def program(item: TaskInput) -> Outcome:
        if item.args and item.args[0] in names:
            return Outcome(status=Status.TRAP, exit_code=0, fuel=9, stdout=b"", stderr=b"")
        return bracket(item)

    return program


def named(*names: str | tuple[str, tuple[Any, ...]]) -> list[JobInput]:
    """Inputs with one argument each, and what they wait for."""
    return [
        JobInput(args=(name,))
        if isinstance(name, str)
        else JobInput(args=(name[0],), after=name[1])
        for name in names
    ]


class Mill:
    """Posts graphs of one requester and works on them."""

    def __init__(self, world: World, owner: UUID, device: Device) -> None:
        self.world = world
        self.owner = owner
        self.device = device

    @classmethod
    async def open(cls, world: World) -> Mill:
        owner = await world.account(Role.REQUESTER, credits=CREDITS)
        return cls(world, owner, await world.device())

    async def request(self, name: str, inputs: list[JobInput] | int, **changes: Any) -> JobRequest:
        """A job over listed or numbered inputs."""
        if isinstance(inputs, int):
            return await self.world.request(inputs, name=name, **changes)
        return await self.world.request(name=name, inputs=inputs, range=None, **changes)

    async def post(self, *requests: JobRequest) -> list[UUID]:
        """Post them as one graph."""
        world, module = self.world, await self.world._module()
        pairs = [(request, module) for request in requests]
        return await world.run(
            lambda conn: jobs.post_jobs(
                conn, world.blobs, self.owner, pairs, world.policy, world.clock.now()
            )
        )

    async def rerun(self, job_id: UUID, request: RerunRequest | None = None) -> UUID:
        """Run again what failed."""
        world, module = self.world, await self.world._module()

        async def work(conn: Any) -> UUID:
            first = await rerun.original(conn, self.owner, job_id)
            return await rerun.rerun_job(
                conn,
                world.blobs,
                self.owner,
                first,
                request or RerunRequest(),
                module,
                world.policy,
                world.clock.now(),
            )

        return await world.run(work)

    async def settle(self) -> int:
        """What the scheduler does with news, to the end; returns how many there were."""
        world, total = self.world, 0
        policy, blobs, now = world.policy, world.blobs, world.clock.now()
        while True:
            news = await world.run(lambda conn: supersede_stale(conn, policy, now))
            news += await world.run(lambda conn: stop_jobs(conn, policy, now))
            news += await world.run(lambda conn: open_children(conn, blobs, policy, now))
            await world.run(lambda conn: jobs.fill_jobs(conn, blobs, policy, now))
            if not news:
                return total
            total += news

    async def ready(self, job_id: UUID | None = None, limit: int = 64) -> list[UUID]:
        """Tasks that may be claimed."""
        async with self.world.database.connection() as conn:
            rows = await conn.fetch(
                "SELECT id FROM task WHERE wanted > 0 AND NOT delayed"
                " AND ($1::uuid IS NULL OR job_id = $1) ORDER BY order_key LIMIT $2",
                job_id,
                limit,
            )
        return [row["id"] for row in rows]

    async def work(self, ids: Sequence[UUID], program: Program = bracket) -> list[Claimed]:
        """Claim these, compute and submit; the referee comes later."""
        found = await self.world.claim_all(self.device, ids)
        claimed = [item for item in found if isinstance(item, Claimed)]
        items = [self.world.signed(self.device, item, program(item.input)) for item in claimed]
        await self.world.submit_all(self.device, items)
        return claimed

    async def referee(self, program: Program = bracket) -> int:
        """Run everything that waits again."""
        world = self.world
        taken = await world.run(
            lambda conn: runs.take_runs(conn, 100, world.policy, world.clock.now())
        )
        ends = []
        for run in taken:
            truth = program(run.task_input())
            await world.blobs.put(truth.stdout)
            ends.append(runs.Finished(run, result_of(run.work(), truth)))
        now = world.clock.now()
        await world.run(lambda conn: runs.record_runs(conn, ends, world.policy, now))
        ids = [run.id for run in taken]
        await world.run(lambda conn: runs.judge_waiting(conn, ids, world.policy, now))
        return len(taken)

    async def drain(self, program: Program = bracket, job_id: UUID | None = None) -> None:
        """Work until nothing is left to do."""
        while True:
            await self.settle()
            ids = await self.ready(job_id)
            if not ids:
                return
            await self.work(ids, program)
            await self.referee(program)

    async def fail(self, job_id: UUID, index: int) -> None:
        """Use up the retries of a queued task; the policy must allow none."""
        assert self.world.policy.max_retries == 0
        [task] = [task for task in await self.world.tasks(job_id) if task.index == index]
        await self.world.release(self.device, await self.world.claim(self.device, task.id))

    async def outputs(self, job_id: UUID) -> dict[int, bytes]:
        """Accepted outputs by index."""
        async with self.world.database.connection() as conn:
            rows = await conn.fetch(
                "SELECT index, output_hash FROM task WHERE job_id = $1 AND state = 'accepted'",
                job_id,
            )
        return {row["index"]: await self.world.blobs.get(row["output_hash"]) for row in rows}

    async def states(self, job_id: UUID) -> str:
        """The first letters of the tasks' states, in order of index."""
        return "".join(task.state[0] for task in await self.world.tasks(job_id))

    async def task(self, job_id: UUID, index: int) -> TaskView:
        """A task by its index."""
        return next(item for item in await self.world.tasks(job_id) if item.index == index)

    async def assert_over(self) -> None:
        """Nothing is left in escrow, nothing waits to be looked at, the ledger is sound."""
        async with self.world.database.connection() as conn:
            assert await conn.fetchval("SELECT count(*) FROM graph_news") == 0
            open_tasks = await conn.fetchval(
                "SELECT count(*) FROM task"
                " WHERE state IN ('blocked', 'queued', 'running', 'verifying')"
            )
            left = await conn.fetchval(
                "SELECT coalesce(sum(locked - released - fee - referee - refunded), 0)"
                " FROM ledger.escrow"
            )
        assert (open_tasks, left) == (0, 0)
        await self.world.assert_sound()


def replaced(request: JobRequest, **changes: Any) -> JobRequest:
    """The request with changes."""
    return msgspec.structs.replace(request, **changes)
