"""The OpenAPI reference at ``/docs``, served without loading anything from outside."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from litestar import Litestar, Router
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import (
    Components,
    License,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
)
from litestar.routes import HTTPRoute
from litestar.static_files import create_static_files_router

import gstd
from gstd.api import edge
from gstd.api.problems import MEDIA_TYPE
from gstd.protocol.people import Problem

ASSETS = "/docs-assets"
API_KEY = {"api_key": list[str]()}

DESCRIPTION = """\
A marketplace for verified compute on devices that nobody trusts.

Amounts are integers of nano in strings; bytes are base64. People send
`Authorization: Bearer <API key>`, devices sign each request. Errors are RFC 9457 problems with a
stable `code` and a `hint`.

Make an `Idempotency-Key` for each thing you want done and send it again with every repetition: the
same request with the same key gets the first answer again, refusals too, with the header
`Idempotent-Replayed: true`; another request with it is refused. A 5xx is not an answer: repeat the
request with its key to learn what became of it. What moves money demands a key. Keys never expire.
"""


def openapi_config() -> OpenAPIConfig:
    """How the reference is made and shown."""
    return OpenAPIConfig(
        title="GSTD",
        version=gstd.__version__,
        description=DESCRIPTION,
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        path="/docs",
        render_plugins=[
            SwaggerRenderPlugin(
                path="/",
                js_url=f"{ASSETS}/swagger-ui-bundle.js",
                css_url=f"{ASSETS}/swagger-ui.css",
                standalone_preset_js_url=f"{ASSETS}/swagger-ui-standalone-preset.js",
                favicon=f"<link rel='icon' type='image/png' href='{ASSETS}/favicon-32x32.png'>",
            )
        ],
        components=Components(
            security_schemes={
                "api_key": SecurityScheme(type="http", scheme="bearer"),
                "device": SecurityScheme(
                    type="apiKey",
                    name="Authorization",
                    security_scheme_in="header",
                    description="`GSTD-Device key=…,ts=…,nonce=…,sig=…`",
                ),
            },
        ),
        security=[API_KEY],
        use_handler_docstrings=True,
    )


def assets() -> Router:
    """The reference's scripts and styles, from the installed package."""
    folder = Path(str(files("swagger_ui"))) / "static"
    return create_static_files_router(path=ASSETS, directories=[folder], include_in_schema=False)


def complete_reference(app: Litestar) -> None:
    """Add what the framework cannot know: problems, idempotency keys, the body of an upload."""
    components = app.openapi_schema.components
    assert components is not None
    components.schemas = {**(components.schemas or {}), Problem.__name__: _problem_schema()}
    for handler, operation in _posts(app):
        rule = edge.key_rule(handler)
        if rule is not None:
            operation.parameters = [*(operation.parameters or []), _idempotency_key(rule)]
    for path, operation in _operations(app):
        assert operation.responses is not None
        operation.responses.pop("400", None)  # the framework's own shape, which we never send
        operation.responses["default"] = OpenAPIResponse(
            description="A problem: what is wrong and what to do instead.",
            content={MEDIA_TYPE: OpenAPIMediaType(schema=Reference(ref=_ref(Problem)))},
        )
        if path.endswith("/wasm/upload"):
            binary = Schema(type=OpenAPIType.STRING, content_media_type="application/wasm")
            operation.request_body = RequestBody(
                required=True, content={"application/wasm": OpenAPIMediaType(schema=binary)}
            )


def _operations(app: Litestar) -> Iterator[tuple[str, Operation]]:
    for path, item in (app.openapi_schema.paths or {}).items():
        if item.get is not None:
            yield path, item.get
        if item.post is not None:
            yield path, item.post
        if item.patch is not None:
            yield path, item.patch


def _posts(app: Litestar) -> Iterator[tuple[HTTPRouteHandler, Operation]]:
    paths = app.openapi_schema.paths or {}
    for route in app.routes:
        if isinstance(route, HTTPRoute) and route.path_format in paths:
            operation = paths[route.path_format].post
            for handler in route.route_handlers:
                if operation is not None and "POST" in handler.http_methods:
                    yield handler, operation


def _idempotency_key(rule: edge.KeyRule) -> Parameter:
    words = "Makes the request safe to repeat: keep it, and send it again with every repetition."
    return Parameter(
        name=edge.KEY_HEADER,
        param_in="header",
        required=rule is edge.KeyRule.REQUIRED,
        description=words,
        schema=Schema(type=OpenAPIType.STRING, min_length=1, max_length=edge.KEY_CHARACTERS),
    )


def _problem_schema() -> Schema:
    texts = {name: Schema(type=OpenAPIType.STRING) for name in Problem.__struct_fields__}
    return Schema(
        type=OpenAPIType.OBJECT,
        title=Problem.__name__,
        description=Problem.__doc__,
        properties={**texts, "status": Schema(type=OpenAPIType.INTEGER)},
        required=list(Problem.__struct_fields__),
    )


def _ref(kind: type) -> str:
    return f"#/components/schemas/{kind.__name__}"
