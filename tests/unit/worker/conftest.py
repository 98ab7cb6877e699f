"""A scripted platform and a sandbox that computes nothing."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections import Counter
from pathlib import Path

import httpx2
import msgspec
import pytest

from gstd.kernel.errors import Refusal
from gstd.proof_of_work.challenge import Challenge
from gstd.protocol import work
from gstd.protocol.execution import Limits, Outcome, Status, TaskInput, result_hash
from gstd.protocol.matching import NO_LIMITS, DeviceLimits
from gstd.protocol.people import Problem
from gstd.protocol.signing import DeviceKey, is_signed_by, result_statement
from gstd.protocol.types import Asset
from gstd.sandbox.errors import HostFault, WallClockExceeded
from gstd.sdk import DeviceClient, Pacing
from gstd.worker.daemon import Worker, WorkerOptions
from gstd.worker.misbehave import Alter, honest
from gstd.worker.modules import ModuleCache
from gstd.worker.status import Counters, Kind, WorkerEvent

MODULE = b"\0asm"
METERED = hashlib.sha256(MODULE).hexdigest()
KEY = DeviceKey.from_seed(bytes(32))
POW_KEY = b"secret"
QUICK = Pacing(retry_for_s=0.0, first_pause_s=0.001, longest_pause_s=0.004)


class Platform:
    """Answers a device's routes from memory and checks every proof and signature."""

    def __init__(self) -> None:
        self.queue: list[str] = []
        self.news = asyncio.Event()
        self.lease_ms = 15_000
        self.calls: Counter[str] = Counter()
        self.asked_free: list[int] = []
        self.asked: list[work.OffersRequest] = []
        self.claim_sizes: list[int] = []
        self.submit_sizes: list[int] = []
        self.claimed: dict[uuid.UUID, work.Claimed] = {}
        self.results: dict[str, bytes] = {}
        self.releases: dict[str, work.ReleaseReason] = {}
        self.over: set[uuid.UUID] = set()
        self.away: set[str] = set()
        self.refusals: dict[str, Problem] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.entered: dict[str, asyncio.Event] = {}

    def post(self, *words: str) -> None:
        """Queue a task per word; the word is its input and says what the sandbox does."""
        self.queue += words
        self.news.set()

    def hold(self, route: str) -> tuple[asyncio.Event, asyncio.Event]:
        """Let requests of a route wait: events for "one has come" and "let it go on"."""
        self.entered[route] = asyncio.Event()
        self.gates[route] = asyncio.Event()
        return self.entered[route], self.gates[route]

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        route = request.url.path.split("/")[3]
        self.calls[route] += 1
        if route in self.gates:
            self.entered[route].set()
            await self.gates[route].wait()
        if route in self.away:
            raise httpx2.ConnectError("refused", request=request)
        if (problem := self.refusals.get(route)) is not None:
            return httpx2.Response(problem.status, content=msgspec.json.encode(problem))
        if route == "modules":
            return httpx2.Response(200, content=MODULE)
        answer = await getattr(self, f"_{route}")(request.content)
        return httpx2.Response(200, content=msgspec.json.encode(answer))

    async def _offers(self, body: bytes) -> work.OffersResponse:
        asked = msgspec.json.decode(body, type=work.OffersRequest)
        self.asked_free.append(asked.free)
        self.asked.append(asked)
        while not self.queue:
            self.news.clear()
            await self.news.wait()
        words, self.queue = self.queue[: asked.free], self.queue[asked.free :]
        return work.OffersResponse(offers=[self.offer(word) for word in words])

    def offer(self, word: str) -> work.Offer:
        task_id = uuid.uuid5(uuid.NAMESPACE_OID, word)
        challenge = Challenge(
            offer_id=uuid.uuid4(),
            task_id=task_id,
            worker=KEY.public,
            bits=1,
            count=2,
            expires_at=1,
        )
        self.claimed[challenge.offer_id] = work.Claimed(
            attempt_id=uuid.uuid5(task_id, "attempt"),
            task_id=task_id,
            revision=0,
            lease_ms=self.lease_ms,
            module_hash="aa" * 32,
            metered_hash=METERED,
            profile="p",
            input=TaskInput(args=(word,)),
            limits=Limits(),
        )
        return work.Offer(
            offer_id=challenge.offer_id,
            task_id=task_id,
            job_id=uuid.uuid4(),
            reward_nano="5",
            asset=Asset.TEST,
            module_hash="aa" * 32,
            limits=Limits(),
            prefix=challenge.prefix(POW_KEY),
            bits=1,
            count=2,
            expires_at=1,
        )

    async def _claims(self, body: bytes) -> work.ClaimsResponse:
        items = msgspec.json.decode(body, type=work.ClaimsRequest).claims
        self.claim_sizes.append(len(items))
        return work.ClaimsResponse(outcomes=[self._claim(item) for item in items])

    def _claim(self, item: work.ClaimItem) -> work.Claimed | Refusal:
        challenge = Challenge(
            offer_id=item.offer_id,
            task_id=item.task_id,
            worker=KEY.public,
            bits=item.bits,
            count=item.count,
            expires_at=item.expires_at,
        )
        assert challenge.is_solved_by(POW_KEY, item.nonces)
        claimed = self.claimed[item.offer_id]
        if claimed.input.args == ("taken",):
            return Refusal(code="task_taken", detail="taken", hint="")
        return claimed

    async def _heartbeats(self, body: bytes) -> work.HeartbeatsResponse:
        attempts = msgspec.json.decode(body, type=work.HeartbeatsRequest).attempts
        return work.HeartbeatsResponse(
            outcomes=[
                Refusal(code="attempt_over", detail="the attempt is over", hint="")
                if attempt in self.over
                else work.Alive(attempt_id=attempt, lease_ms=self.lease_ms)
                for attempt in attempts
            ]
        )

    async def _submits(self, body: bytes) -> work.SubmitsResponse:
        items = msgspec.json.decode(body, type=work.SubmitsRequest).results
        self.submit_sizes.append(len(items))
        return work.SubmitsResponse(outcomes=[self._submit(item) for item in items])

    def _submit(self, item: work.SubmitItem) -> work.Submitted:
        claimed = self._attempt(item.attempt_id)
        assert is_signed_by(KEY.public, _statement(claimed, item), item.signature)
        self.results[claimed.input.args[0]] = item.stdout
        return work.Submitted(attempt_id=item.attempt_id, state="submitted")

    async def _releases(self, body: bytes) -> work.ReleasesResponse:
        items = msgspec.json.decode(body, type=work.ReleasesRequest).releases
        for item in items:
            self.releases[self._attempt(item.attempt_id).input.args[0]] = item.reason
        return work.ReleasesResponse(
            outcomes=[work.Released(attempt_id=item.attempt_id) for item in items]
        )

    def _attempt(self, attempt_id: uuid.UUID) -> work.Claimed:
        return next(one for one in self.claimed.values() if one.attempt_id == attempt_id)


def _statement(claimed: work.Claimed, item: work.SubmitItem) -> bytes:
    outcome = msgspec.convert(item, Outcome, from_attributes=True)
    hashed = result_hash(
        module_hash=bytes.fromhex(claimed.module_hash),
        metered_hash=bytes.fromhex(claimed.metered_hash),
        profile=claimed.profile,
        input_hash=claimed.input.hash(),
        limits=claimed.limits,
        outcome=outcome,
    )
    return result_statement(
        task_id=claimed.task_id,
        revision=claimed.revision,
        attempt_id=claimed.attempt_id,
        device_key=KEY.public,
        profile=claimed.profile,
        result_hash=hashed,
    )


class FakeSandbox:
    """Ends at once with the input as output, unless the input says otherwise."""

    def __init__(self) -> None:
        self.killed: list[str] = []
        self.started: list[str] = []
        self.go_on = asyncio.Event()
        self._starting = asyncio.Event()

    async def wait_started(self, count: int = 1) -> None:
        """Until so many runs have begun."""
        while len(self.started) < count:
            self._starting.clear()
            await self._starting.wait()

    async def run(self, module: bytes | Path, task: TaskInput, limits: Limits) -> Outcome:
        assert (module, limits) == (MODULE, Limits())
        (word,) = task.args
        self.started.append(word)
        self._starting.set()
        if word == "fault":
            raise HostFault("no memory")
        if word == "bug":
            raise ZeroDivisionError
        if word == "slow":
            raise WallClockExceeded
        if word.startswith("hang"):
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.killed.append(word)
                raise
        out = word.encode()
        return Outcome(status=Status.OK, exit_code=0, fuel=7, stdout=out, stderr=b"")


class Watch:
    """Waits for what a worker tells, so that no test has to sleep."""

    def __init__(self) -> None:
        self.events: list[WorkerEvent] = []
        self._news = asyncio.Event()

    def __call__(self, event: WorkerEvent, counters: Counters) -> None:
        assert counters.running >= 0
        self.events.append(event)
        self._news.set()

    def of(self, kind: Kind) -> list[WorkerEvent]:
        return [event for event in self.events if event.kind is kind]

    async def wait_for(self, kind: Kind, count: int = 1) -> None:
        async with asyncio.timeout(10):
            while len(self.of(kind)) < count:
                self._news.clear()
                await self._news.wait()


class Stage:
    """Everything a test of the daemon needs."""

    def __init__(self) -> None:
        self.platform = Platform()
        self.sandbox = FakeSandbox()
        self.watch = Watch()

    def client(self, pacing: Pacing = QUICK) -> DeviceClient:
        transport = httpx2.MockTransport(self.platform)
        return DeviceClient("http://h:1", KEY, pacing=pacing, http=transport)

    def worker(
        self,
        slots: int = 1,
        alter: Alter = honest,
        pacing: Pacing = QUICK,
        limits: DeviceLimits = NO_LIMITS,
    ) -> Worker:
        client = self.client(pacing)
        options = WorkerOptions(
            slots=slots, alter=alter, on_event=self.watch, pacing=pacing, limits=limits
        )
        return Worker(client, self.sandbox, ModuleCache(client.module), options)

    def refuse(self, route: str, code: str, status: int) -> None:
        self.platform.refusals[route] = Problem(
            type="", title="", status=status, code=code, detail=code, hint="h", request_id="r"
        )


@pytest.fixture
async def stage() -> Stage:
    return Stage()
