"""The ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from litestar import Litestar, Response, Router, get
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components, License, SecurityScheme
from litestar.response import Redirect
from litestar.static_files import create_static_files_router

import gstd
from gstd.api import jobs, operations, people, problems, wasm, work
from gstd.api.authentication import provide_actor, provide_device, provide_platform
from gstd.api.platform import Platform
from gstd.kernel.clock import Clock
from gstd.kernel.errors import GstdError
from gstd.kernel.settings import Settings

ASSETS = "/docs-assets"


@get("/", include_in_schema=False)
async def home() -> Redirect:
    """Until there is a web app, the reference is the front page."""
    return Redirect("/docs")


def build_app(settings: Settings, clock: Clock | None = None) -> Litestar:
    """The application for these settings. Nothing is connected before it starts."""
    return Litestar(
        route_handlers=[
            home,
            Router(
                "/api/v1",
                route_handlers=[
                    operations.router,
                    people.router,
                    wasm.router,
                    jobs.router,
                    work.router,
                ],
            ),
            _assets(),
        ],
        dependencies={
            "platform": Provide(provide_platform),
            "actor": Provide(provide_actor),
            "device": Provide(provide_device),
        },
        lifespan=[_lifespan(settings, clock)],
        exception_handlers={
            GstdError: problems.handle_gstd_error,
            HTTPException: problems.handle_http_error,
            RecursionError: problems.handle_nesting,
            Exception: problems.handle_unexpected,
        },
        after_request=_add_headers,
        openapi_config=_openapi(),
        request_max_body_size=settings.policy.max_request_bytes,
        logging_config=None,
    )


def _lifespan(
    settings: Settings, clock: Clock | None
) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with Platform.open(settings, clock) as platform:
            app.state.platform = platform
            yield

    return lifespan


async def _add_headers(response: Response[Any]) -> Response[Any]:
    for name, value in problems.SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="GSTD",
        version=gstd.__version__,
        description=(
            "A marketplace for verified compute on devices that nobody trusts. "
            "Amounts are integers of nano in strings; bytes are base64. People send "
            "`Authorization: Bearer <API key>`, devices sign each request."
        ),
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
            }
        ),
        security=[{"api_key": []}],
        use_handler_docstrings=True,
    )


def _assets() -> Router:
    folder = Path(str(files("swagger_ui"))) / "static"
    return create_static_files_router(path=ASSETS, directories=[folder], include_in_schema=False)
