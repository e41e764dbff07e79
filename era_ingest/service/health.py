"""Is the service alive, and can it do its work? For load balancers: no token, no details."""

import asyncio
from collections.abc import Awaitable

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from era_ingest.errors import EraError
from era_ingest.service.parts import parts_of

READY_TIMEOUT_S = 5.0

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """How the parts are: ``ok`` or ``unavailable`` each."""

    status: str
    parts: dict[str, str] = {}


@router.get("/healthz", summary="The process answers")
async def healthz() -> Health:
    """Say that the process answers."""
    return Health(status="ok")


@router.get("/readyz", summary="Database and run queue answer", responses={503: {"model": Health}})
async def readyz(request: Request, response: Response) -> Health:
    """Ask the database and the run queue; 503 where one of them does not answer."""
    parts = parts_of(request)
    checks = {"database": parts.ping_database(), "run_queue": parts.jobs.ping()}
    states = dict(zip(checks, await asyncio.gather(*map(_state, checks.values())), strict=True))
    ready = all(state == "ok" for state in states.values())
    response.status_code = 200 if ready else 503
    return Health(status="ok" if ready else "unavailable", parts=states)


async def _state(check: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await check
    except (EraError, TimeoutError):
        return "unavailable"
    return "ok"
