"""The application: routes, how errors look, and what stands before them."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from era_ingest.service import health, job_routes, metrics, search_routes
from era_ingest.service.bodies import BodyLimits
from era_ingest.service.deadline import Deadline
from era_ingest.service.guard import PUBLIC, Guard
from era_ingest.service.http_metrics import HttpMetrics
from era_ingest.service.pages import corpus, finding, jobs, refused, signing, speed, static_routes
from era_ingest.service.pages.faces import show_problem
from era_ingest.service.pages.reading import DomainCounts
from era_ingest.service.pages.sessions import Sessions
from era_ingest.service.problems import MEDIA_TYPE, ProblemBody, add_handlers
from era_ingest.service.rates import Rates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from era_ingest.service.access import Grant
    from era_ingest.service.parts import Parts

_DESCRIPTION = """Books in, searchable doctrine out. Errors are problem details (RFC 9457). Every request but
`/healthz` and `/readyz` carries `Authorization: Bearer <token>`, unless the service is bound to the loopback
interface and has no tokens."""


def build_app(parts: Parts, grants: Sequence[Grant]) -> FastAPI:
    """Return the application over open parts.

    Args:
        parts: What the routes work with.
        grants: Tokens; empty only where bound to the loopback interface.
    """
    app = FastAPI(
        title="era_ingest",
        version=version("era-ingest"),
        description=_DESCRIPTION,
        openapi_url="/v1/openapi.json",
        docs_url=None,  # both pages load their scripts from a foreign host
        redoc_url=None,
        redirect_slashes=False,
        responses={"4XX": _problem("What is wrong with the request"), "5XX": _problem("Not now, or a bug")},
    )
    app.state.parts = parts
    app.state.sessions = Sessions(grants)
    app.state.domain_counts = DomainCounts()
    app.include_router(health.router)
    app.include_router(search_routes.router)
    app.include_router(job_routes.router)
    app.include_router(metrics.router)
    for pages in (corpus, finding, jobs, refused, signing, speed, static_routes):
        app.include_router(pages.router)
    add_handlers(app, show_problem)
    settings = parts.settings
    app.add_middleware(Deadline, timeout_s=settings.serve_timeout_s)
    app.add_middleware(
        BodyLimits, max_bytes=settings.serve_max_body_bytes, timeout_s=settings.serve_timeout_s
    )
    rates = Rates(settings.serve_rate_per_s)
    app.add_middleware(Guard, grants=grants, sessions=app.state.sessions, rates=rates)
    app.add_middleware(HttpMetrics, registry=parts.registry)
    _document(app, with_tokens=bool(grants))
    return app


def _problem(description: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{ProblemBody.__name__}"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


def _document(app: FastAPI, *, with_tokens: bool) -> None:
    """Say in the OpenAPI document what the guard asks for, and what an error looks like."""
    document = app.openapi()
    components = document.setdefault("components", {})
    if with_tokens:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    schemas = components.setdefault("schemas", {})
    body = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(body.pop("$defs"))
    schemas[ProblemBody.__name__] = body
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path, item in document["paths"].items():
        for operation in item.values():
            operation["security"] = [{"bearer": []}] if with_tokens and path not in PUBLIC else []
            operation["responses"].pop("422", None)  # it is a problem like the others
