"""Random sequences of money movements agree, nano for nano, with a model in plain Python."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from gstd.database.connection import Database
from tests.integration.ledger.movements import Movements
from tests.integration.ledger.repairs import Repairs

SCALE = int(os.environ.get("GSTD_TEST_SCALE", "1"))


@pytest.mark.parametrize(("machine", "steps"), [(Movements, 25), (Repairs, 40)])
def test_every_sequence_of_movements_agrees_with_the_model(
    database_urls: dict[str, str], machine: type[Movements], steps: int
) -> None:
    with asyncio.Runner() as runner:
        database = runner.run(Database.connect(database_urls["app"], size=1))
        here = type("Here", (machine,), {"runner": runner, "database": database})
        try:
            run_state_machine_as_test(
                here,
                settings=settings(
                    max_examples=30 * SCALE, stateful_step_count=steps, deadline=None
                ),
            )
        finally:
            runner.run(database.close())
