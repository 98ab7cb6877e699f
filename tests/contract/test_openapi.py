"""The interface as clients know it changes only on purpose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gstd.api.schema import openapi_json

SNAPSHOT = Path(__file__).with_name("openapi.json")
SEED_ROUTES = {
    ("get", "/api/v1/health"),
    ("post", "/api/v1/wasm/upload"),
    ("get", "/api/v1/wasm/{module_id}/metadata"),
    ("post", "/api/v1/wasm/{module_id}/execute"),
}
BYTES = {"/api/v1/tasks/{task_id}/output", "/api/v1/modules/{metered_hash}"} | {
    "/api/v1/audit/checkpoint",
    "/api/v1/admin/ledger/export",
    "/api/v1/wallet/statement.csv",
}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in json.loads(openapi_json())["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def test_the_description_is_the_committed_one() -> None:
    committed = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    assert json.loads(openapi_json()) == committed, (
        "the interface changed; if that is on purpose, run `make openapi` and commit the result"
    )


def test_the_description_is_the_same_text_every_time() -> None:
    assert openapi_json() == openapi_json() == SNAPSHOT.read_text(encoding="utf-8")


def test_the_routes_that_were_promised_first_are_there() -> None:
    assert {(method, path) for method, path, _ in operations()} >= SEED_ROUTES


def test_every_route_has_a_summary_and_a_description() -> None:
    for method, path, operation in operations():
        assert operation.get("summary"), f"{method} {path}"
        assert operation.get("description"), f"{method} {path}"
        assert operation.get("tags"), f"{method} {path}"


def test_every_answer_is_typed() -> None:
    for method, path, operation in operations():
        fine = [code for code in operation["responses"] if code.startswith("2")]
        assert len(fine) == 1, f"{method} {path}"
        content = operation["responses"][fine[0]]["content"]
        for media_type, body in content.items():
            schema = body["schema"]
            named = "$ref" in schema or "$ref" in schema.get("items", {})
            assert named or path in BYTES, f"{method} {path} {media_type}: {schema}"


def test_operation_names_are_unique() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names)) > 25


def test_every_reference_leads_somewhere() -> None:
    schema = json.loads(openapi_json())
    known = set(schema["components"]["schemas"])

    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"].rpartition("/")[2]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    assert set(references(schema)) - known == set()


def is_for_devices(path: str) -> bool:
    """Whether a device, not a person, asks there."""
    return path.split("/")[3] in {
        "offers",
        "claims",
        "heartbeats",
        "submits",
        "releases",
        "modules",
    }


def test_every_route_says_whose_credential_it_needs() -> None:
    open_to_all = {"/api/v1/health", "/api/v1/devices/enrol"} | {
        f"/api/v1/audit/{name}" for name in ("key", "checkpoint", "checkpoints", "consistency")
    }
    for method, path, operation in operations():
        security = operation.get("security", [{"api_key": []}])
        if is_for_devices(path):
            assert security == [{"device": []}], f"{method} {path}"
        elif path in open_to_all:
            assert security == [{}], f"{method} {path}"
        else:
            assert security == [{"api_key": []}], f"{method} {path}"
