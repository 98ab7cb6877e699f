"""A small world for integration tests: people, devices, a real module, jobs, claims, results.

Everything goes through the use cases on a real database; only HTTP and the sandbox are left out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from gstd.accounts import service as accounts
from gstd.accounts.model import DeviceActor
from gstd.blobs.store import Blobs
from gstd.database.connection import Connection, Database
from gstd.dispatch import claims, submits
from gstd.dispatch.matchmaker import challenge_key
from gstd.kernel.clock import ManualClock
from gstd.kernel.errors import Refusal
from gstd.kernel.ids import new_id
from gstd.kernel.settings import Policy
from gstd.ledger import service as ledger
from gstd.modules import service as modules
from gstd.proof_of_work.challenge import Challenge
from gstd.proof_of_work.solver import solve
from gstd.protocol.execution import Outcome, Status
from gstd.protocol.jobs import InputRange, JobRequest, JobView, TaskView
from gstd.protocol.people import EnrolRequest
from gstd.protocol.signing import DeviceKey, enrolment_statement, result_statement
from gstd.protocol.types import Asset, Role, Tier
from gstd.protocol.work import (
    Alive,
    Claimed,
    ClaimItem,
    Released,
    ReleaseItem,
    ReleaseReason,
    SubmitItem,
    Submitted,
)
from gstd.sandbox.inspect import inspect_module
from gstd.tasks import jobs, views
from gstd.tasks.advance import advance, expire_leases
from gstd.tasks.model import Step
from gstd.verification import runs
from gstd.verification.results import Work, result_of

T = TypeVar("T")

MODULE = Path(__file__).parents[1] / "examples" / "mandelbrot" / "mandelbrot.wasm"
SECRET = bytes(range(32))
REWARD = 10_000_000
CREDITS = 1_000_000_000_000
RIGHT = b"the right output"


class Device(msgspec.Struct, frozen=True):
    """An enrolled device with its key."""

    actor: DeviceActor
    key: DeviceKey


def outcome(stdout: bytes = RIGHT, fuel: int = 1_000) -> Outcome:
    """A run that ended well."""
    return Outcome(status=Status.OK, exit_code=0, fuel=fuel, stdout=stdout, stderr=b"")


class World:
    """A platform without HTTP. ``run`` gives each call its own transaction, like the edge."""

    def __init__(
        self, database: Database, blobs: Blobs, clock: ManualClock, policy: Policy | None = None
    ) -> None:
        self.database = database
        self.blobs = blobs
        self.clock = clock
        self.policy = policy or Policy()
        self.pow_key = challenge_key(SECRET)
        self.module: modules.Module | None = None

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        return await self.database.run(work)

    async def read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Read outside of a transaction, in one statement."""
        async with self.database.connection() as connection:
            return await work(connection)

    async def account(self, *roles: Role, credits: int = 0) -> UUID:  # noqa: A002 - the word of the design
        """A new account, with test credits if asked."""
        made = await self.run(
            lambda conn: accounts.create_account(
                conn, "somebody", roles or [Role.WORKER], self.clock.now()
            )
        )
        if credits:
            await self.run(
                lambda conn: ledger.grant_test_credits(
                    conn, new_id(), made.account.id, credits, self.clock.now()
                )
            )
        return made.account.id

    async def device(self, account_id: UUID | None = None) -> Device:
        """A device of a new account or of the given one."""
        owner = account_id or await self.account(Role.WORKER)
        key = DeviceKey.generate()

        async def enrol(connection: Connection) -> None:
            code = await accounts.new_enrolment_code(
                connection, owner, self.policy, self.clock.now()
            )
            request = EnrolRequest(
                code=code.code,
                name="device",
                public_key=key.public,
                signature=key.sign(enrolment_statement(code.code, key.public)),
            )
            await accounts.enrol_device(connection, request, self.policy, self.clock.now())

        await self.run(enrol)
        return Device(await self.actor(key.public), key)

    async def actor(self, public_key: str) -> DeviceActor:
        """An enrolled device as the platform knows it now."""
        [found] = await self.read(lambda conn: accounts.devices_of_keys(conn, [public_key]))
        assert found is not None
        return found

    async def _module(self) -> modules.Module:
        if self.module is None:
            data = MODULE.read_bytes()
            await self.blobs.put(data)
            info = inspect_module(data)
            owner = await self.account(Role.REQUESTER)
            self.module = await self.run(
                lambda conn: modules.add_module(conn, owner, "module", info, self.clock.now())
            )
        return self.module

    async def request(self, tasks: int = 1, **changes: Any) -> JobRequest:
        """A job over ``tasks`` numbered inputs."""
        module = await self._module()
        plain = JobRequest(
            module=module.hash.hex(),
            reward_nano=str(REWARD),
            range=InputRange(count=tasks),
            asset=Asset.TEST,
            tier=Tier.FULL,
        )
        return msgspec.structs.replace(plain, **changes)

    async def job(self, owner: UUID | None = None, tasks: int = 1, **changes: Any) -> JobView:
        """Post a job for a funded requester."""
        requester = owner or await self.account(Role.REQUESTER, credits=CREDITS)
        request = await self.request(tasks, **changes)
        module = await self._module()

        async def post(connection: Connection) -> JobView:
            job_id = await jobs.post_job(
                connection,
                self.blobs,
                requester,
                request,
                module,
                self.policy,
                self.clock.now(),
            )
            return await views.job_view(connection, job_id, requester)

        return await self.run(post)

    def solved(self, device: Device, task_id: UUID, bits: int = 4, count: int = 16) -> ClaimItem:
        """An offer of this task to this device with its proof."""
        challenge = Challenge(
            offer_id=new_id(),
            task_id=task_id,
            worker=device.key.public,
            bits=bits,
            count=count,
            expires_at=int(self.clock.now().timestamp()) + 60,
        )
        nonces = solve(challenge.prefix(self.pow_key), bits, count)
        return ClaimItem(
            offer_id=challenge.offer_id,
            task_id=task_id,
            bits=bits,
            count=count,
            expires_at=challenge.expires_at,
            nonces=nonces,
        )

    async def claim_all(self, device: Device, task_ids: Sequence[UUID]) -> list[Claimed | Refusal]:
        """Claim these tasks in one batch."""
        return await self.claim_items(
            device, [self.solved(device, task_id) for task_id in task_ids]
        )

    async def claim_items(
        self, device: Device, items: Sequence[ClaimItem]
    ) -> list[Claimed | Refusal]:
        """Send these claims as one batch."""
        return await self.claim_together([(device, item) for item in items])

    async def claim_together(
        self, items: Sequence[tuple[Device, ClaimItem]]
    ) -> list[Claimed | Refusal]:
        """Send claims of several devices as one batch."""
        now = self.clock.now()
        found = [
            checked
            for device, item in items
            for checked in claims.check_proofs(device.actor, [item], self.pow_key, now)
        ]
        proven = [one for one in found if isinstance(one, claims.Proven)]
        outcomes = iter(await self.run(lambda conn: claims.claim(conn, proven, self.policy, now)))
        return [next(outcomes) if isinstance(one, claims.Proven) else one for one in found]

    async def claim(self, device: Device, task_id: UUID) -> Claimed:
        """Claim one task that must be there."""
        [claimed] = await self.claim_all(device, [task_id])
        assert isinstance(claimed, Claimed), claimed
        return claimed

    def signed(
        self,
        device: Device,
        claimed: Claimed,
        result: Outcome,
        input_hash: bytes | None = None,
    ) -> SubmitItem:
        """A result of an attempt, rightly signed."""
        work = Work(
            attempt_id=claimed.attempt_id,
            task_id=claimed.task_id,
            revision=claimed.revision,
            module_hash=bytes.fromhex(claimed.module_hash),
            metered_hash=bytes.fromhex(claimed.metered_hash),
            profile=claimed.profile,
            input_hash=input_hash or claimed.input.hash(),
            limits=claimed.limits,
        )
        statement = result_statement(
            task_id=claimed.task_id,
            revision=claimed.revision,
            attempt_id=claimed.attempt_id,
            device_key=device.key.public,
            profile=claimed.profile,
            result_hash=result_of(work, result).result_hash,
        )
        return SubmitItem(
            attempt_id=claimed.attempt_id,
            task_id=claimed.task_id,
            revision=claimed.revision,
            status=result.status,
            exit_code=result.exit_code,
            fuel=result.fuel,
            stdout=result.stdout,
            stderr=result.stderr,
            signature=device.key.sign(statement),
        )

    async def submit_all(
        self, device: Device, items: Sequence[SubmitItem]
    ) -> list[Submitted | Refusal]:
        """Submit results in one batch."""
        return await self.submit_together([(device, item) for item in items])

    async def submit_together(
        self, items: Sequence[tuple[Device, SubmitItem]]
    ) -> list[Submitted | Refusal]:
        """Submit results of several devices in one batch."""
        found = await self.checked(items)
        good = [one for one in found if isinstance(one, submits.Checked)]
        await submits.store_outputs(self.blobs, good)
        outcomes = iter(await self.submit_checked(good))
        return [next(outcomes) if isinstance(one, submits.Checked) else one for one in found]

    async def checked(
        self, items: Sequence[tuple[Device, SubmitItem]]
    ) -> list[submits.Checked | Submitted | Refusal]:
        """What becomes of results before anything is locked."""
        attempts = [(device.actor, item.attempt_id) for device, item in items]
        held = await self.read(lambda conn: submits.held_attempts(conn, attempts))
        return [
            submits.check(device.actor, item, attempt, self.clock.now())
            for (device, item), attempt in zip(items, held, strict=True)
        ]

    async def submit_checked(self, results: Sequence[submits.Checked]) -> list[Submitted | Refusal]:
        """Record results that were checked, in one batch."""
        if not results:
            return []
        return await self.run(
            lambda conn: submits.submit(conn, results, self.policy, self.clock.now())
        )

    async def heartbeat(self, device: Device, *attempts: UUID) -> list[Alive | Refusal]:
        """Extend leases of one device."""
        return await self.heartbeat_all([(device, attempt) for attempt in attempts])

    async def heartbeat_all(self, attempts: Sequence[tuple[Device, UUID]]) -> list[Alive | Refusal]:
        """Extend leases of several devices in one batch."""
        beats = [(device.actor, attempt) for device, attempt in attempts]
        return await self.run(
            lambda conn: claims.heartbeat(conn, beats, self.policy, self.clock.now())
        )

    async def submit(
        self, device: Device, claimed: Claimed, result: Outcome | None = None
    ) -> Submitted:
        """Submit one result that must be taken."""
        item = self.signed(device, claimed, result or outcome())
        [submitted] = await self.submit_all(device, [item])
        assert isinstance(submitted, Submitted), submitted
        return submitted

    async def release(
        self, device: Device, claimed: Claimed, reason: ReleaseReason = ReleaseReason.HOST_FAULT
    ) -> Released | Refusal:
        """Give one attempt back."""
        item = ReleaseItem(attempt_id=claimed.attempt_id, reason=reason)
        [released] = await self.release_all([(device, item)])
        return released

    async def release_all(
        self, items: Sequence[tuple[Device, ReleaseItem]]
    ) -> list[Released | Refusal]:
        """Give attempts of several devices back in one batch."""
        sent = [(device.actor, item) for device, item in items]
        return await self.run(
            lambda conn: claims.release(conn, sent, self.policy, self.clock.now())
        )

    async def cancel(self, owner: UUID, job_id: UUID) -> None:
        """Cancel a job."""
        await self.run(
            lambda conn: jobs.cancel_job(conn, owner, job_id, self.policy, self.clock.now())
        )

    async def expire_leases(self) -> int:
        """Let the scheduler look at leases."""
        return await self.run(lambda conn: expire_leases(conn, self.policy, self.clock.now()))

    async def advance(self, *task_ids: UUID) -> dict[UUID, Step]:
        """Ask again what should be of these tasks."""
        return await self.run(lambda conn: advance(conn, task_ids, self.policy, self.clock.now()))

    async def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Every row that a use case could have changed."""
        tables = {
            "job": "id",
            "task": "id",
            "attempt": "id",
            "referee_run": "id",
            "device": "id",
            "event_outbox": "id",
            "event_log": "position",
            "ledger.account": "id",
            "ledger.transfer": "id",
            "ledger.job_escrow": "job_id",
            "ledger.escrow": "task_id",
            "ledger.earning": "attempt_id",
        }
        async with self.database.connection() as connection:
            return {
                name: [
                    dict(row)
                    for row in await connection.fetch(f"SELECT * FROM {name} ORDER BY {key}")  # noqa: S608 - constants
                ]
                for name, key in tables.items()
            }

    async def referee(self, truth: Outcome | None = None, count: int = 100) -> int:
        """Let the referee find ``truth`` for every run that waits; returns how many there were."""
        taken = await self.run(
            lambda conn: runs.take_runs(conn, count, self.policy, self.clock.now())
        )
        found = truth or outcome()
        await self.blobs.put(found.stdout)
        ends = [runs.Finished(run, result_of(run.work(), found)) for run in taken]
        await self.run(lambda conn: runs.record_runs(conn, ends, self.policy, self.clock.now()))
        await self.run(
            lambda conn: runs.judge_waiting(
                conn, [run.id for run in taken], self.policy, self.clock.now()
            )
        )
        return len(taken)

    async def tasks(self, job_id: UUID) -> list[TaskView]:
        """A job's tasks with their attempts."""
        return await self.run(
            lambda conn: views.tasks_of_job(conn, job_id, None, after=-1, limit=500)
        )

    async def task(self, task_id: UUID) -> TaskView:
        """A task with its attempts."""
        return await self.run(lambda conn: views.task_view(conn, task_id, None))

    async def view(self, job_id: UUID) -> JobView:
        """A job with counts and money."""
        return await self.run(lambda conn: views.job_view(conn, job_id, None))

    async def available(self, account_id: UUID) -> int:
        """Test credits the account may spend."""
        balances = await self.run(lambda conn: ledger.balances(conn, account_id))
        return sum(int(balance.available_nano) for balance in balances)

    async def assert_sound(self) -> None:
        """Every promise of the ledger holds."""
        check = await self.run(ledger.check)
        assert check.ok, [item for item in check.invariants if not item.holds]
        assert check.sum_nano == "0"
