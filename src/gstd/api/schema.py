"""``python -m gstd.api.schema`` prints the interface's OpenAPI description as sorted JSON."""

from __future__ import annotations

import sys

import msgspec

from gstd.api.app import build_app
from gstd.kernel.settings import Settings


def openapi_json() -> str:
    """The description, one stable text per interface."""
    schema = build_app(Settings()).openapi_schema.to_schema()
    compact = msgspec.json.encode(schema, order="sorted")
    return msgspec.json.format(compact, indent=2).decode() + "\n"


if __name__ == "__main__":
    sys.stdout.write(openapi_json())
