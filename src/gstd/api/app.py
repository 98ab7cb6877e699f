"""The ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from litestar import Litestar, Response, Router, get
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.response import Redirect

from gstd.api import (
    audit,
    corrections,
    jobs,
    metrics,
    money,
    operations,
    people,
    pools,
    problems,
    reference,
    wasm,
    why,
    work,
)
from gstd.api.authentication import provide_actor, provide_device, provide_platform
from gstd.api.platform import Platform
from gstd.kernel.clock import Clock
from gstd.kernel.errors import GstdError
from gstd.kernel.settings import Settings


@get("/", include_in_schema=False)
async def home() -> Redirect:
    """Until there is a web app, the reference is the front page."""
    return Redirect("/docs")


def build_app(settings: Settings, clock: Clock | None = None) -> Litestar:
    """The application for these settings. Nothing is connected before it starts."""
    app = Litestar(
        route_handlers=[
            home,
            metrics.show_metrics,
            Router(
                "/api/v1",
                route_handlers=[
                    operations.router,
                    people.router,
                    pools.router,
                    money.router,
                    wasm.router,
                    jobs.router,
                    corrections.router,
                    work.router,
                    why.router,
                    audit.router,
                ],
            ),
            reference.assets(),
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
        openapi_config=reference.openapi_config(),
        request_max_body_size=settings.policy.max_request_bytes,
        logging_config=None,
    )
    reference.complete_reference(app)
    return app


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
