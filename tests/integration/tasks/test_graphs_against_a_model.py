"""Random graphs in any order of work and failure, against a plain model of what opens when."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gstd.protocol.graphs import JobInput, OnFailure
from tests.integration.tasks.mill import Mill
from tests.world import World

SCALE = int(os.environ.get("GSTD_TEST_SCALE", "1"))
MOST = 7

ACCEPT = """
WITH done AS (
    UPDATE task SET state = 'accepted', wanted = 0, proven = true, status = $3, exit_code = 0,
        output_hash = $4, output_bytes = 1
    WHERE job_id = $1 AND index = $2 AND state = 'queued' RETURNING job_id, index
)
INSERT INTO graph_news (about, job_id, first, last)
SELECT 'ended', job_id, index, index FROM done
"""
"""What ``advance`` does to a task and to the graph, without the work and the money."""


class Model:
    """States by the words of the reference, looked at until nothing changes."""

    def __init__(self, parents: list[set[int]], policy: OnFailure) -> None:
        self.parents = parents
        self.policy = policy
        self.states = ["blocked" if above else "queued" for above in parents]
        self.good: set[int] = set()

    def end(self, node: int, *, good: bool) -> None:
        self.states[node] = "accepted"
        if good:
            self.good.add(node)

    def look(self) -> None:
        """Open and end what waits, to the end."""
        while self._look():
            pass

    def _look(self) -> bool:
        before, stopped = list(self.states), False
        for node, above in enumerate(self.parents):
            if before[node] != "blocked":
                continue
            over = {p for p in above if before[p] in {"accepted", "cancelled"}}
            failed = over - self.good
            if failed and self.policy is OnFailure.STOP:
                stopped = True
            elif failed and self.policy is OnFailure.SKIP:
                self.states[node] = "cancelled"
            elif over == above:
                self.states[node] = "queued"
        if stopped:
            self.states = ["cancelled" if s == "blocked" else s for s in self.states]
        return self.states != before


@st.composite
def graphs(draw: st.DrawFn) -> list[set[int]]:
    """Parents by node. Node numbers say nothing about the order."""
    count = draw(st.integers(1, MOST))
    order = draw(st.permutations(range(count)))
    parents: list[set[int]] = [set() for _ in range(count)]
    for place, node in enumerate(order[1:], start=1):
        parents[node] = draw(st.sets(st.sampled_from(order[:place]), max_size=3))
    return parents


@settings(
    max_examples=12 * SCALE,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(parents=graphs(), policy=st.sampled_from(OnFailure), data=st.data())
async def test_what_opens_and_ends_is_what_the_model_says(
    world: World, parents: list[set[int]], policy: OnFailure, data: st.DataObject
) -> None:
    mill = await Mill.open(world)
    inputs = [JobInput(args=(str(n),), after=tuple(above)) for n, above in enumerate(parents)]
    [job] = await mill.post(await mill.request("g", inputs, on_failure=policy))
    output = await world.blobs.put(b"x")
    model = Model(parents, policy)
    while True:
        await mill.settle()
        model.look()
        assert [task.state for task in await world.tasks(job)] == model.states
        queued = [node for node, state in enumerate(model.states) if state == "queued"]
        if not queued:
            break
        for node in data.draw(st.sets(st.sampled_from(queued), min_size=1, max_size=3)):
            good = data.draw(st.sampled_from([True, True, False]))
            async with world.database.connection() as conn:
                await conn.execute(ACCEPT, job, node, "ok" if good else "trap", output)
            model.end(node, good=good)
    assert "blocked" not in model.states
