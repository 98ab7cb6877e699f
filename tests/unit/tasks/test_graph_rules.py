"""Cycles, fates and the bytes of inputs."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gstd.kernel.settings import Policy
from gstd.protocol.execution import TaskInput
from gstd.protocol.graphs import Feed, JobAfter, JobInput, OnFailure, Shape, TaskRef
from gstd.protocol.jobs import InputRange, JobRequest
from gstd.tasks.errors import GraphCycleError, GraphTooLargeError
from gstd.tasks.graph import Fate, Prospect, check_graph, fate, fed, fed_bytes, find_cycle

POLICY = Policy()
MODULE = "0" * 64

pairs = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=25)


def request(name: str, *after: JobAfter, inputs: list[JobInput] | None = None) -> JobRequest:
    numbered = InputRange(count=3) if inputs is None else None
    return JobRequest(
        module=MODULE, reward_nano="1", name=name, inputs=inputs, range=numbered, after=after
    )


def check(*requests: JobRequest) -> None:
    check_graph({item.name: item for item in requests}, POLICY)


@given(pairs)
def test_a_cycle_is_found_exactly_when_there_is_one(edges: list[tuple[int, int]]) -> None:
    reach = set(edges)
    for middle in range(10):
        reach |= {(a, d) for a, b in reach if b == middle for c, d in reach if c == middle}
    cycle = find_cycle(edges)
    assert (cycle is not None) == any(a == b for a, b in reach)
    if cycle is not None:
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1
        assert set(pairwise(cycle)) <= set(edges)


def test_a_long_chain_is_no_cycle_and_needs_no_recursion() -> None:
    chain = [(n, n + 1) for n in range(100_000)]
    assert find_cycle(chain) is None
    assert find_cycle([*chain, (100_000, 0)]) is not None


def test_two_jobs_may_wait_for_one_another_task_by_task() -> None:
    a = [JobInput(), JobInput(after=(TaskRef(job="b", index=0),))]
    b = [JobInput(after=(TaskRef(job="a", index=0),)), JobInput()]
    check(request("a", inputs=a), request("b", inputs=b))
    b[0] = JobInput(after=(TaskRef(job="a", index=1),))
    with pytest.raises(GraphCycleError, match=r"(\w\[\d\]) -> \w\[\d\] -> \1$"):
        check(request("a", inputs=a), request("b", inputs=b))


def test_a_cycle_through_whole_jobs_and_one_to_one_edges_is_found() -> None:
    one = JobAfter(job="a", shape=Shape.ONE_TO_ONE)
    check(request("a"), request("b", one), request("c", JobAfter(job="b")))
    with pytest.raises(GraphCycleError, match="a -> a"):
        check(request("a", one))
    with pytest.raises(GraphCycleError):
        check(request("a", JobAfter(job="c")), request("b", one), request("c", JobAfter(job="b")))
    inputs = [JobInput(after=(TaskRef(job="c", index=0),)), JobInput(), JobInput()]
    with pytest.raises(GraphCycleError):
        check(request("a", inputs=inputs), request("b", one), request("c", JobAfter(job="b")))


def test_too_many_nodes_are_refused_before_they_are_walked() -> None:
    inputs = [JobInput(after=(5_000,)) for _ in range(5_000)] + [JobInput()]
    check(request("a", inputs=inputs))
    chain = [request(f"j{n}", JobAfter(job=f"j{n - 1}", shape=Shape.ONE_TO_ONE)) for n in (2, 3)]
    with pytest.raises(GraphTooLargeError):
        check(request("j1", inputs=inputs), *chain)


@given(
    st.sampled_from(OnFailure),
    st.lists(st.sampled_from(["good", "waiting", "bad"]), max_size=5),
)
def test_no_task_opens_early_and_none_waits_for_nothing(
    policy: OnFailure, standings: list[str]
) -> None:
    failed = "x" if "bad" in standings else None
    found = fate(policy, Prospect(waiting="waiting" in standings, failed=failed))
    if found is Fate.OPEN:
        assert "waiting" not in standings
        assert "bad" not in standings or policy is OnFailure.CONTINUE
    if "waiting" not in standings:
        assert found is not Fate.WAIT
    if "bad" in standings and policy is not OnFailure.CONTINUE:
        assert found in {Fate.SKIP, Fate.STOP}


@given(st.lists(st.none() | st.binary(max_size=300), max_size=5), st.binary(max_size=20))
def test_frames_can_be_read_back_and_sizes_are_exact(
    outputs: list[bytes | None], own: bytes
) -> None:
    template = TaskInput(args=("a",), stdin=own, seed=3)
    size = sum(len(output or b"") for output in outputs)
    for feed in Feed:
        item = fed(template, feed, outputs)
        assert (item.args, item.seed) == (template.args, template.seed)
        assert len(item.stdin) - len(own) == fed_bytes(feed, len(outputs), size)
        assert item.stdin.startswith(own)
    rest, read = fed(template, Feed.FRAMES, outputs).stdin[len(own) :], []
    while rest:
        length = int.from_bytes(rest[1:5], "big")
        read.append(rest[5 : 5 + length] if rest[0] else None)
        rest = rest[5 + length :]
    assert read == outputs
