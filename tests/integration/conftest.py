"""What the rooms' integration tests share."""

from __future__ import annotations

import pytest

from gstd.blobs.store import Blobs
from gstd.database.connection import Database
from gstd.kernel.clock import ManualClock
from tests.world import World


@pytest.fixture
def world(database: Database, blobs: Blobs, clock: ManualClock) -> World:
    """A platform without HTTP on a fresh database."""
    return World(database, blobs, clock)
