"""The few files that pages load, under addresses that change with their content."""

from fastapi import APIRouter, HTTPException
from fastapi.responses import Response

from era_ingest.service.pages.rendering import STATIC

_FOR_EVER = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False)


@router.get("/static/{digest}/{name}")
async def static_file(digest: str, name: str) -> Response:
    """Return a file; only under the address of its present content."""
    file = STATIC.get(name)
    if file is None or file.digest != digest:
        raise HTTPException(404, "There is no such file.")
    return Response(file.data, headers={"Cache-Control": _FOR_EVER}, media_type=file.media_type)
