"""Every POST is safe to repeat: by its key, or by what it is. What moves money demands a key."""

from __future__ import annotations

from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from gstd.api import edge
from gstd.api.app import build_app
from gstd.api.edge import KeyRule
from gstd.kernel.settings import Settings
from tests.contract.test_openapi import operations

MONEY = {
    "/api/v1/graphs",
    "/api/v1/jobs",
    "/api/v1/test-credits",
    "/api/v1/admin/corrections",  # a proposal made twice could be applied twice
    "/api/v1/admin/corrections/{correction_id}/decision",
}
"""Twice would pay twice. `test_money_moves.py` proves the whole contract for each of them."""

RERUNS = {"/api/v1/jobs/{job_id}/rerun"}
"""Names somebody's job, so nobody else can send the same: `test_graph_routes.py` repeats it."""

KEYED = {
    "/api/v1/accounts",
    "/api/v1/devices/codes",
    "/api/v1/devices/{device_id}/revoke",  # revoking twice is revoking
    "/api/v1/jobs/{job_id}/cancel",  # gives back only what is left, so twice gives nothing more
    "/api/v1/pools",
    "/api/v1/pools/{pool_id}/join",  # joining twice is joining
    "/api/v1/pools/{pool_id}/leave",
    "/api/v1/pools/{pool_id}/members/{account_id}/remove",
    "/api/v1/wasm/upload",  # the bytes are the module's name
}
"""Twice does no harm to anybody's money; a key brings the first answer back."""

NATURAL = {
    "/api/v1/claims": "one attempt per offer and device: the offer is the key",
    "/api/v1/devices/enrol": "one device per code and public key",
    "/api/v1/heartbeats": "a lease only moves forward",
    "/api/v1/jobs/quote": "changes nothing",
    "/api/v1/offers": "reserves nothing",
    "/api/v1/releases": "an attempt ends once",
    "/api/v1/submits": "one result per attempt: a repeated one gets the same outcome",
    "/api/v1/wasm/{module_id}/execute": "nothing is kept and nothing is paid",
}
"""No header: the request names what it is about, so its repetition changes nothing."""


def posts() -> dict[str, HTTPRouteHandler]:
    """Every route that takes a POST, as the application really serves it."""
    return {
        route.path_format: handler
        for route in build_app(Settings()).routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if "POST" in handler.http_methods
    }


def test_every_post_is_sorted_by_what_makes_it_safe_to_repeat() -> None:
    rules = {path: edge.key_rule(handler) for path, handler in posts().items()}
    assert rules == {
        **dict.fromkeys(MONEY | RERUNS, KeyRule.REQUIRED),
        **dict.fromkeys(KEYED, KeyRule.TAKEN),
        **dict.fromkeys(NATURAL),
    }, "a new POST belongs into one of the lists above"


def test_the_reference_shows_the_key_where_it_is_taken_and_demands_it_where_needed() -> None:
    shown = {}
    for method, path, operation in operations():
        for parameter in operation.get("parameters", []):
            if parameter["name"] == edge.KEY_HEADER:
                assert (method, parameter["in"]) == ("post", "header")
                assert parameter["schema"]["maxLength"] == edge.KEY_CHARACTERS
                assert parameter["description"]
                shown[path] = parameter["required"]
    assert shown == dict.fromkeys(MONEY | RERUNS, True) | dict.fromkeys(KEYED, False)
