"""Is the service alive, and can it do its work? For load balancers: no token, no details."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from era_ingest.service.parts import parts_of

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
    """Say whether database and run queue answered within the last second; 503 where one of them did not."""
    states = await parts_of(request).readiness.states()
    ready = all(state == "ok" for state in states.values())
    response.status_code = 200 if ready else 503
    return Health(status="ok" if ready else "unavailable", parts=states)
