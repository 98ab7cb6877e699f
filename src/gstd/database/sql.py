"""Named SQL: a room keeps its statements in ``.sql`` files, each headed ``-- name: …``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files

_HEADING = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


class Queries(Mapping[str, str]):
    """The statements of one room by name. A missing name raises ``KeyError`` at import."""

    def __init__(self, package: str, text: str) -> None:
        self.package = package
        parts = _HEADING.split(text)
        self._statements = {
            name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)
        }
        assert len(self) == len(parts) // 2, f"{package} has two statements of one name"

    def __getitem__(self, name: str) -> str:
        return self._statements[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._statements)

    def __len__(self) -> int:
        return len(self._statements)


def load_queries(package: str) -> Queries:
    """The queries of a room, for instance ``load_queries("gstd.tasks")``."""
    found = [entry for entry in files(package).iterdir() if entry.name.endswith(".sql")]
    return Queries(package, "\n".join(entry.read_text("utf-8") for entry in found))
