"""One side of a peer under measurement: ``python peer.py SYSTEM produce|consume JOBS``.

Runs in the peers' own environment (``make bench-peers``), so nothing of GSTD is imported here. The
job does nothing and no results are kept. Addresses come from ``PEER_REDIS`` (the socket),
``PEER_PASSWORD`` and ``PEER_POSTGRES``. Prints one line of JSON per step, with times of the clock
that all processes share.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

SYSTEM, ROLE, JOBS = sys.argv[1], sys.argv[2], int(sys.argv[3])
SOCKET, PASSWORD = os.environ["PEER_REDIS"], os.environ["PEER_PASSWORD"]
REDIS = f"unix://{SOCKET}?password={PASSWORD}"

done = 0
cpu_at_start = 0.0


def tell(step: str) -> None:
    """One step with its time and what this process has computed since it was ready."""
    facts = {"step": step, "at": time.monotonic(), "cpu": time.process_time() - cpu_at_start}
    print(json.dumps(facts), flush=True)


def start() -> None:
    """Everything before, imports and connections, is not measured."""
    global cpu_at_start  # noqa: PLW0603
    cpu_at_start = time.process_time()
    tell("start")


def count() -> None:
    """The job itself: it only says when it was the last one."""
    global done  # noqa: PLW0603
    done += 1
    if done == JOBS:
        tell("end")


def produce(send: Callable[[], object]) -> None:
    """Enqueue all jobs one by one."""
    start()
    for _ in range(JOBS):
        send()
    tell("end")


def celery() -> None:
    """Solo pool, acknowledged when done, 64 fetched ahead."""
    from celery import Celery
    from celery.signals import worker_ready

    # kombu reads the password of a socket's URL where a host would have it
    app = Celery(broker=f"redis+socket://:{PASSWORD}@{SOCKET}")
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        worker_prefetch_multiplier=64,
        worker_concurrency=1,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_pool_limit=1,
    )
    job = app.task(count, name="noop", acks_late=True, ignore_result=True)
    if ROLE == "produce":
        produce(job.delay)
    else:
        worker_ready.connect(lambda **_: start(), weak=False)
        app.worker_main(
            [
                "worker",
                "--pool=solo",
                "--loglevel=" + os.environ.get("PEER_LOGS", "ERROR"),
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
            ]
        )


def dramatiq() -> None:
    """Eight threads, no middleware that keeps results."""
    import dramatiq as library
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=REDIS)
    library.set_broker(broker)
    lock = threading.Lock()

    def locked() -> None:
        with lock:
            count()

    job = library.actor(locked, actor_name="noop", max_retries=0)
    if ROLE == "produce":
        produce(job.send)
        return
    worker = library.Worker(broker, worker_threads=8)
    start()
    worker.start()
    while True:
        signal.pause()


async def saq() -> None:
    """Twenty at a time, results dropped at once."""
    from redis.asyncio import Redis
    from saq import Worker
    from saq.queue.redis import RedisQueue

    queue = RedisQueue(Redis.from_url(REDIS))
    await queue.connect()
    if ROLE == "produce":
        start()
        for _ in range(JOBS):
            await queue.enqueue("noop", ttl=-1)
        tell("end")
        return

    async def noop(_: Any) -> None:
        count()

    start()
    await Worker(queue, functions=[("noop", noop)], concurrency=20).start()


async def procrastinate() -> None:
    """Twenty at a time; done jobs are deleted."""
    import procrastinate as library

    connector = library.PsycopgConnector(conninfo=os.environ["PEER_POSTGRES"])
    app = library.App(connector=connector)

    async def noop() -> None:
        count()

    job = app.task(noop, name="noop")
    async with app.open_async():
        if ROLE == "produce":
            start()
            for _ in range(JOBS):
                await job.defer_async()
            tell("end")
            return
        await app.schema_manager.apply_schema_async()
        start()
        await app.run_worker_async(
            concurrency=20, delete_jobs="successful", install_signal_handlers=False
        )


if __name__ == "__main__":
    if SYSTEM in ("saq", "procrastinate"):
        asyncio.run({"saq": saq, "procrastinate": procrastinate}[SYSTEM]())
    else:
        {"celery": celery, "dramatiq": dramatiq}[SYSTEM]()
