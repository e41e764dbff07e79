"""The work on the books of a plan: the flow is set up, run and measured."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from era_ingest.clients.driver import EmbeddingClient
from era_ingest.clients.factory import build_limiter
from era_ingest.pipelines.flow import IngestFlow
from era_ingest.pipelines.meter import Meter
from era_ingest.pipelines.planned_reading import read_planned
from era_ingest.pipelines.report import Stage
from era_ingest.pipelines.retrying import patient
from era_ingest.pipelines.sharing import sharing_limiter
from era_ingest.pipelines.steps import DatabaseSteps
from era_ingest.store import models

if TYPE_CHECKING:
    from collections.abc import Callable

    from era_ingest.clients.backend import Embedder
    from era_ingest.pipelines.planning import Plan
    from era_ingest.pipelines.report import IngestReport, IngestRequest, Progress
    from era_ingest.pipelines.services import Services
    from era_ingest.pipelines.telemetry import Telemetry

_LEAST_TEXTS_FOR_SPEED = 100


async def work_on(
    services: Services,
    request: IngestRequest,
    plan: Plan,
    embedder: Embedder,
    report: Callable[[Progress], None],
    result: IngestReport,
    telemetry: Telemetry,
) -> models.Model | None:
    """Run the flow over the books that need it; return the model, if it is known by now."""
    if plan.model is not None:
        embedder.dimensions = plan.model.dimensions  # the first reply does not decide, if another run has
    limiter = build_limiter(services.settings)
    async with sharing_limiter(limiter, embedder, services.database, rng=random.Random()) as shared:  # noqa: S311
        client = EmbeddingClient(embedder, shared, settings=services.settings)
        return await _flow(services, request, plan, client, report, result, telemetry)


async def _flow(
    services: Services,
    request: IngestRequest,
    plan: Plan,
    client: EmbeddingClient,
    report: Callable[[Progress], None],
    result: IngestReport,
    telemetry: Telemetry,
) -> models.Model | None:
    embedder = client.embedder
    steps = DatabaseSteps(services, request, embedder, plan.model, result)
    flow = IngestFlow(steps, client if Stage.EMBEDDINGS in request.stages else None)
    meter = Meter(
        flow,
        client,
        result,
        total=len(request.sources) + len(request.removed),
        total_bytes=sum(source.size for source in plan.work),
        price=services.settings.embed_price,
    )
    telemetry.follow(client, meter)
    report(meter.picture())
    ticking = asyncio.create_task(meter.tick(report))
    try:
        result.error = await flow.run(read_planned(services, request, plan, result))
        if result.error is None:
            await steps.finish()
        await _note_speed(services, steps.model, client, meter.elapsed_s)
    finally:
        await steps.aclose()
        ticking.cancel()
        report(meter.picture())
        meter.summarise(result)
    return steps.model


@patient
async def _note_speed(
    services: Services, model: models.Model | None, client: EmbeddingClient, elapsed_s: float
) -> None:
    """Keep the run's speed for the next plan, if it embedded enough to tell."""
    if model is not None and client.stats.texts >= _LEAST_TEXTS_FOR_SPEED and elapsed_s > 0:
        async with services.database.connection() as conn:
            await models.note_speed(conn, model, client.stats.texts / elapsed_s)
