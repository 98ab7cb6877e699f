"""Two APIs, two schedulers, two referees and four workers on one PostgreSQL and one Valkey."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import asyncpg
import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gstd.cli.stack import bootstrap, free_port, gstd_command
from gstd.cli.worker import Enrolment
from gstd.embedded.postgres import EmbeddedPostgres
from gstd.embedded.process import ManagedProcess, Supervisor
from gstd.embedded.state import private_folder
from gstd.embedded.valkey import EmbeddedValkey
from gstd.kernel.settings import Policy, Settings
from gstd.protocol.people import AccountRequest, NewAccount
from gstd.protocol.types import Role
from gstd.sdk import Client, Pacing
from tests.chaos.site import BACK_WITHIN_S, kill_server, prepare
from tests.chaos.terms import Term, Terms
from tests.e2e.processes import is_well, kill
from tests.servers import until
from tests.world import MODULE

SLOTS = 4
PATIENT = Pacing(retry_for_s=BACK_WITHIN_S, longest_pause_s=0.5)

POLICY = Policy(
    lease_ms=3_000,
    referee_lease_ms=2_000,
    leader_lease_ms=2_000,
    retry_delays_ms=(200,),
    max_retries=1_000,
    referee_tries=1_000,
    same_device_after_ms=1_000,
    breaker_base_ms=500,
    breaker_longest_ms=1_000,
    challenge_window_s=0,
    holdback_rewards=0,
)
"""What ends by itself ends soon, a task never runs out of retries, and all is paid at once."""


class Engine:
    """The processes, each started again when it dies, and the ways to hurt them."""

    def __init__(
        self, settings: Settings, admin_key: str, postgres: EmbeddedPostgres, valkey: EmbeddedValkey
    ) -> None:
        self.settings = settings
        self.admin_key = admin_key
        assert settings.database_owner_url is not None
        self.terms = Terms(settings.database_owner_url)
        self.postgres = postgres
        self.valkey = valkey
        any_port = msgspec.structs.replace(settings, port=0)
        self.urls = [f"http://{settings.host}:{free_port(any_port)}" for _ in range(2)]
        self.apis = [self._api(url) for url in self.urls]
        self.schedulers = [self._gstd("scheduler", number) for number in range(2)]
        self.referees = [self._gstd("referee", number) for number in range(2)]
        self.workers: list[ManagedProcess] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, state: Path) -> AsyncIterator[Self]:
        """A new platform whose workers are enrolled; all of it ends with the block."""
        private_folder(state / "logs")
        async with Supervisor() as supervisor:
            postgres, valkey = EmbeddedPostgres(state, durable=True), EmbeddedValkey(state)
            await supervisor.start(postgres, valkey)
            settings = msgspec.structs.replace(
                await prepare(state, postgres),
                valkey_url=valkey.address().url(),
                referee_slots=2,
                policy=POLICY,
            )
            made = await bootstrap(settings, lambda _: None)
            assert made is not None
            engine = cls(settings, made.api_key, postgres, valkey)
            await engine.terms.remember()
            await supervisor.start(*engine.apis, *engine.schedulers, *engine.referees)
            async with engine.client() as admin:
                accounts = [
                    await admin.create_account(AccountRequest(name="w", roles=[Role.WORKER]))
                    for _ in range(4)
                ]
            engine.workers += [
                engine._worker(number, account) for number, account in enumerate(accounts)
            ]
            await supervisor.start(*engine.workers)
            await until(engine._are_enrolled, BACK_WITHIN_S)
            yield engine

    @property
    def steady(self) -> dict[str, list[ManagedProcess]]:
        """Those that never end by themselves. An API that finds no database at its start does."""
        return {"scheduler": self.schedulers, "referee": self.referees, "worker": self.workers}

    def surprises(self) -> list[str]:
        """What any process logged about errors that nobody expected."""
        return [
            line
            for log in (self.settings.state_dir / "logs").iterdir()
            for line in log.read_text().splitlines()
            if "unexpected_error" in line or "attempt_broke" in line
        ]

    def client(self, api: int = 0) -> Client:
        """The admin at one of the APIs, patient with outages."""
        return Client(self.urls[api], self.admin_key, pacing=PATIENT)

    async def module(self) -> str:
        """The id of the module that is run."""
        async with self.client() as admin:
            return (await admin.upload_module(MODULE.read_bytes(), "mandelbrot")).id

    def _api(self, url: str) -> ManagedProcess:
        port = url.rpartition(":")[2]
        command = gstd_command(self.settings, f"api-{port}", "api", env={"GSTD_PORT": port})
        return ManagedProcess(command, ready=partial(is_well, url))

    def _gstd(self, kind: str, number: int) -> ManagedProcess:
        return ManagedProcess(gstd_command(self.settings, f"{kind}-{number}", kind))

    def _worker(self, number: int, account: NewAccount) -> ManagedProcess:
        name = f"worker-{number}"
        options = ("--slots", str(SLOTS), "--home", str(self._home(name)))
        command = gstd_command(
            self.settings,
            name,
            *("worker", "start", "--url", self.urls[number % 2], *options),
            env={"GSTD_API_KEY": account.api_key},
        )
        return ManagedProcess(command)

    def _home(self, worker: str) -> Path:
        return self.settings.state_dir / worker

    def _are_enrolled(self) -> bool:
        return all(Enrolment.in_home(self._home(one.name)).is_done() for one in self.workers)

    async def kill_one(self, processes: Sequence[ManagedProcess], chance: random.Random) -> None:
        """SIGKILL for one of these that runs."""

        def running() -> list[int]:
            return [process.pid for process in processes if process.pid is not None]

        kill(chance.choice(await until(running, BACK_WITHIN_S)))

    async def kill_postgres(self) -> None:
        """SIGKILL for the server and all its backends, as when the machine goes down."""
        await until(lambda: self.postgres.pid, BACK_WITHIN_S)
        kill_server(self.postgres)

    async def kill_valkey(self) -> None:
        """SIGKILL for Valkey: all it held is gone."""
        kill(await until(lambda: self.valkey.pid, BACK_WITHIN_S))

    async def flush_valkey(self) -> None:
        """Everything in Valkey is gone, and the connections stay."""

        async def is_flushed() -> bool:
            try:
                async with Redis.from_url(self.valkey.address().url()) as valkey:
                    return bool(await valkey.flushall())
            except RedisError:
                return False

        await until(is_flushed, BACK_WITHIN_S)

    async def freeze_leader(self) -> None:
        """The leading scheduler sleeps until another leads, and wakes up not knowing."""

        async def leads() -> Term | None:
            term = await self.terms.now()
            alive = [process.pid for process in self.schedulers]
            return term if term is not None and term.pid in alive else None

        frozen: Term = await until(leads, BACK_WITHIN_S)
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            await until(self.terms.after(frozen), BACK_WITHIN_S)
        finally:
            os.kill(frozen.pid, signal.SIGCONT)

    async def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the database, asked behind the platform's back."""
        owner = await asyncpg.connect(self.settings.database_owner_url)
        try:
            return [tuple(row) for row in await owner.fetch(query, *values)]
        finally:
            await owner.close()
