"""``python -m gstd.api.schema`` prints the interface's OpenAPI description as sorted JSON."""

from __future__ import annotations

import json
import sys

from gstd.api.app import build_app
from gstd.kernel.settings import Settings


def openapi_json() -> str:
    """The description, one stable text per interface."""
    schema = build_app(Settings()).openapi_schema.to_schema()
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(openapi_json())
