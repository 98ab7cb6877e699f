"""The example: its module works both ways, and its graph is one that can be posted."""

from __future__ import annotations

from pathlib import Path

import wasmtime

from gstd.cli.graphs import read_graph
from gstd.kernel.settings import Policy
from gstd.protocol.execution import Limits, Status, TaskInput
from gstd.sandbox.runner import Sandbox
from gstd.tasks.graph import check_graph, fed

HOME = Path(__file__).parents[3] / "examples" / "map_reduce"


def test_the_module_is_what_its_source_says() -> None:
    source = (HOME / "squares.wat").read_text()
    assert (HOME / "squares.wasm").read_bytes() == bytes(wasmtime.wat2wasm(source))


async def test_squares_are_mapped_and_summed_in_the_sandbox(box: Sandbox) -> None:
    request, binaries = read_graph(HOME / "graph.json")
    check_graph({job.name: job for job in request.jobs}, Policy())
    first, second = request.jobs
    assert first.range is not None
    assert second.inputs is not None
    [module] = binaries.values()
    outputs: list[bytes | None] = []
    for index in range(5):
        outcome = await box.run(module, first.range.input_at(index, seed=index), Limits())
        assert outcome.status is Status.OK
        outputs.append(outcome.stdout)
    assert outputs == [b"0\n", b"1\n", b"4\n", b"9\n", b"16\n"]
    summed = await box.run(module, fed(TaskInput(), second.feed, outputs), Limits())
    assert (summed.status, summed.stdout) == (Status.OK, b"30\n")
