"""State folders with short paths, below a folder only we may enter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A state folder that does not exist yet, below a private one."""
    with TemporaryDirectory(prefix="gstd-", dir="/tmp", ignore_cleanup_errors=True) as private:
        yield Path(private) / "state"
