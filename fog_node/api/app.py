"""The ASGI application: all routes over one node's services."""

from __future__ import annotations

from importlib import resources

from fastapi import FastAPI, Response
from starlette.routing import Route

from . import (
    access,
    blob_routes,
    chain_routes,
    errors,
    governance_routes,
    node_routes,
    registry_routes,
    rollout_routes,
    transaction_routes,
)
from .following import Followers
from .models import ErrorView
from .services import Services

_DESCRIPTION = (
    "HTTP API of a Fogline fog node. Members read what their roles open to them; what is sent in "
    "must be signed by whom the ledger knows. An error's body names the field, the problem and "
    "the remedy."
)
# The page of /docs carries all it needs: no other host is asked for anything.
_PAGE = {
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs/docs.css": ("docs.css", "text/css; charset=utf-8"),
    "/docs/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}


def create_app(services: Services, *, tls: bool = False) -> FastAPI:
    """Make the application for one node.

    tls: whether readers show a certificate; without it, whoever asks is the local operator.
    """
    app = FastAPI(
        title="Fogline fog node",
        version=services.version,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        responses={"4XX": {"model": ErrorView}, "5XX": {"model": ErrorView}},
    )
    app.state.services = services
    app.state.followers = Followers()
    errors.install(app)
    for module in (
        node_routes,
        chain_routes,
        transaction_routes,
        registry_routes,
        rollout_routes,
        governance_routes,
        blob_routes,
    ):
        app.include_router(module.router)
    app.router.routes.extend(_page_routes())
    app.add_middleware(access.Gate, ledger=services.ledger, tls=tls)
    return app


def _page_routes() -> list[Route]:
    folder = resources.files(__package__) / "page"
    return [
        Route(
            path,
            Response((folder / name).read_bytes(), headers=_PAGE_HEADERS, media_type=media_type),
            methods=["GET"],
            include_in_schema=False,
        )
        for path, (name, media_type) in _PAGE.items()
    ]
