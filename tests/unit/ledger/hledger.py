"""The real hledger, which shares no line with this repository. Never skipped: make fetches it."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path

import pytest


def program() -> str:
    """The hledger beside this Python, else the one on the path."""
    beside = Path(sys.executable).with_name("hledger")
    found = str(beside) if beside.exists() else shutil.which("hledger")
    if found is None:
        pytest.fail("these tests need hledger: run `make .venv/bin/hledger`", pytrace=False)
    return found


def complaint(journal: str) -> str:
    """What the strict checks say against a journal; empty when they all pass."""
    result = _run(journal, "check", "--strict", "ordereddates")
    assert (result.returncode == 0) == (result.stderr == ""), result
    return result.stderr


def balances(journal: str) -> dict[tuple[str, str], int]:
    """Nano by account name and asset, as hledger adds them up."""
    result = _run(
        journal, "balance", "--flat", "--empty", "--no-total", "-O", "csv", "--layout=bare"
    )
    assert result.returncode == 0, result.stderr
    return {
        (row["account"], row["commodity"]): int(Decimal(row["balance"]).scaleb(9))
        for row in csv.DictReader(result.stdout.splitlines())
    }


def _run(journal: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run(
            [program(), "-f", "-", *arguments],
            input=journal,
            capture_output=True,
            text=True,
            encoding="ascii",
            check=False,
            timeout=60,
            # No configuration of whoever runs the tests, and no locale that helps.
            env={"HOME": home, "LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        )
