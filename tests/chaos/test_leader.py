"""The leading scheduler sleeps longer than its lease, and wakes up without knowing it."""

from __future__ import annotations

import os
import secrets
import signal
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.terms import Term, Terms
from tests.e2e.processes import gstd, stopping
from tests.servers import until

PATIENCE_S = 60.0


async def test_a_leader_that_sleeps_is_followed_and_leads_only_in_a_new_term(
    tmp_path: Path, database_urls: dict[str, str]
) -> None:
    env = {
        "GSTD_DATABASE_URL": database_urls["app"],
        "GSTD_BLOBS_URL": f"file://{tmp_path}/blobs",
        "GSTD_SECRET": secrets.token_hex(32),
        "GSTD_POLICY_LEADER_LEASE_MS": "2000",
    }
    terms = Terms(database_urls["owner"])
    await terms.remember()
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(stopping(gstd("scheduler", state=tmp_path, env=env)))
            for _ in range(2)
        )
        one: Term = await until(terms.now, PATIENCE_S)
        os.kill(one.pid, signal.SIGSTOP)
        other: Term = await until(terms.after(one), PATIENCE_S)
        os.kill(one.pid, signal.SIGCONT)
        assert {one.pid, other.pid} == {first.pid, second.pid}
        os.kill(other.pid, signal.SIGTERM)
        again: Term = await until(terms.after(other), PATIENCE_S)
        assert again.holder == one.holder
    await terms.assert_one_led_at_a_time()
