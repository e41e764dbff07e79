"""``/metrics``: what runs counted, how they and the corpus stand, and this process's own requests.

Counters of runs come from the database, where the runs themselves add to them: they are the same whichever replica of
the service is asked, and go on after its restart. Of several replicas take one, or the maximum, never the sum; only
``era_http_*`` and ``process_*`` are each process's own.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric

from era_ingest.clients.stats import LATENCY_BOUNDS_S
from era_ingest.core.increments import Series
from era_ingest.core.reasons import REASONS
from era_ingest.pipelines.telemetry import COUNTERS, LATENCY, OUTCOMES
from era_ingest.service.parts import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from era_ingest.pipelines.jobs import RunFacts
    from era_ingest.pipelines.watching import Counted, Picture
    from era_ingest.store.corpus import CorpusSize

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HOLDERS = ("nothing", "pipe", "quota", "rate", "turns", "breaker", "fixed", "latency", "aimd")
_LATENCY_HELP = "Time from sending a request to the embedder to its whole reply; of good ones."
_REQUESTS = "era_embedding_requests_total"

router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics",
    summary="Metrics in Prometheus' text format",
    response_class=PlainTextResponse,
)
async def metrics(request: Request) -> PlainTextResponse:
    """Return everything there is to watch; what is away is left out, and said to be away by ``era_up``."""
    parts = parts_of(request)
    picture = await parts.watch.picture()
    both = Joined(parts.registry, Pictured(picture, capacity=parts.settings.serve_max_waiting))
    return PlainTextResponse(generate_latest(both), headers={"Content-Type": MEDIA_TYPE})


def build_registry() -> CollectorRegistry:
    """Return a registry of what this process counts itself."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


class Joined:
    """Shows a registry and one picture together.

    Args:
        registry: What this process counts.
        pictured: What was gathered.
    """

    def __init__(self, registry: CollectorRegistry, pictured: Pictured) -> None:
        self._own = registry
        self._pictured = pictured

    def collect(self) -> Iterator[Metric]:
        """Yield all of both."""
        yield from self._pictured.collect()
        yield from self._own.collect()


class Pictured:
    """Turns a picture into metrics. Labels are of fixed sets, or name models: nothing that grows with the corpus.

    Args:
        picture: What was gathered.
        capacity: Runs that may wait in the queue.
    """

    def __init__(self, picture: Picture, *, capacity: int) -> None:
        self._picture = picture
        self._capacity = capacity

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield _gauge("era_build_info", "The version that serves.", {("version", version("era-ingest")): 1})
        up = {
            ("part", "database"): self._picture.counted is not None,
            ("part", "corpus"): self._picture.corpus is not None,
            ("part", "run_queue"): self._picture.runs is not None,
        }
        yield _gauge("era_up", "Whether a part answers; where it is 0, its metrics are missing.", up)
        if self._picture.counted is not None:
            yield from _counters(self._picture.counted)
            yield from _live(self._picture.counted)
        if self._picture.corpus is not None:
            yield from _corpus(self._picture.corpus)
        if self._picture.runs is not None:
            yield from _runs(self._picture.runs, self._capacity)


def _counters(counted: Counted) -> Iterator[Metric]:
    """Yield what all runs counted; outcomes that never came are 0, so that the first one is seen to be new."""
    totals = dict(counted.totals)
    models = sorted({label[1] for series in totals for label in series.labels if label[0] == "model"})
    for model in models:
        for outcome in OUTCOMES:
            totals.setdefault(Series.of(_REQUESTS, model=model, outcome=outcome), 0.0)
    for name, text in COUNTERS.items():
        metric = Metric(name.removesuffix("_total"), text, "counter")
        for series in sorted(series for series in totals if series.name == name):
            metric.add_sample(name, dict(series.labels), totals[series])
        if metric.samples:
            yield metric
    latency = Metric(LATENCY, _LATENCY_HELP, "histogram")
    for model in models:
        so_far = 0.0
        for bound in (*map(str, LATENCY_BOUNDS_S), "+Inf"):
            so_far += totals.get(Series.of(f"{LATENCY}_bucket", model=model, le=bound), 0.0)
            latency.add_sample(f"{LATENCY}_bucket", {"model": model, "le": bound}, so_far)
        latency.add_sample(f"{LATENCY}_count", {"model": model}, so_far)
        sum_s = totals.get(Series.of(f"{LATENCY}_sum", model=model), 0.0)
        latency.add_sample(f"{LATENCY}_sum", {"model": model}, sum_s)
    if latency.samples:
        yield latency


def _live(counted: Counted) -> Iterator[Metric]:
    """Yield how the runs at work stand together."""
    states = [run.state for run in counted.live if "limit" in run.state]
    yield _plain("era_runs_at_work", "Runs at work that were heard of in the last 30 s.", len(counted.live))
    yield _plain(
        "era_embedding_limit",
        "Requests that the controllers of the runs at work allow in flight, together.",
        sum(state["limit"] for state in states),
    )
    yield _plain(
        "era_embedding_in_flight",
        "Requests in flight, of all runs at work.",
        sum(state["in_flight"] for state in states),
    )
    held = {("by", by): sum(state["held_by"] == by for state in states) for by in HOLDERS}
    yield _gauge("era_embedding_held_runs", "Runs at work, by what holds their next request.", held)
    yield _plain(
        "era_embedding_breaker_open",
        "Runs at work whose breaker is open: they take the embedder for down.",
        sum(state["breaker_open"] for state in states),
    )
    yield _plain(
        "era_texts_left",
        "Texts that the runs at work have yet to embed; an estimate while they still read.",
        sum(state["texts_left"] for state in states),
    )


def _corpus(size: CorpusSize) -> Iterator[Metric]:
    """Yield how large the corpus is."""
    yield _plain("era_books", "Books loaded.", size.books)
    yield _plain("era_chapters", "Chapters of the books loaded.", size.chapters)
    rows = {("kind", "entry"): size.entries, ("kind", "passage"): size.passages}
    yield _gauge("era_rows", "Rows of the books loaded: doctrine entries and passages.", rows)
    yield _plain("era_domains", "Domains.", size.domains)
    yield _plain(
        "era_stale_domains",
        "Domains whose minister files or index are behind the tables.",
        size.stale_domains,
    )
    yield _plain(
        "era_landing_waiting_books",
        "Books in the landing folder, seen by the sensor, that no run dealt with.",
        size.waiting,
    )
    if size.waiting_since is not None:
        yield _plain(
            "era_landing_waiting_since_timestamp_seconds",
            "When the first of those books came to lie there as it is.",
            size.waiting_since,
        )
    quarantine = Metric("era_quarantine_rows", "Rows in the quarantine, by kind and reason.", "gauge")
    for (kind, reason), count in _known_reasons(size.quarantine).items():
        quarantine.add_sample("era_quarantine_rows", {"kind": kind, "reason": reason}, count)
    yield quarantine


def _known_reasons(counts: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Fold reasons that this version does not know, so that their number is bounded."""
    folded: dict[tuple[str, str], int] = {}
    for (kind, reason), count in counts.items():
        key = (kind, reason if reason in REASONS else "other")
        folded[key] = folded.get(key, 0) + count
    return folded


def _runs(facts: RunFacts, capacity: int) -> Iterator[Metric]:
    """Yield how Dagster's runs stand."""
    by_status = {("status", status): count for status, count in facts.counts.items()}
    yield _gauge("era_runs", "Dagster's runs on record, by status.", by_status)
    yield _plain("era_queue_depth", "Runs that wait in the queue.", facts.waiting)
    yield _plain(
        "era_queue_capacity", "While so many wait, books are refused (ERA_SERVE_MAX_WAITING).", capacity
    )
    if facts.waiting_since is not None:
        yield _plain(
            "era_queue_waiting_since_timestamp_seconds",
            "When the run that waits longest was put into the queue.",
            facts.waiting_since,
        )
    yield _gauge(
        "era_run_last_success_timestamp_seconds",
        "When a run of a job succeeded last.",
        {("job", job): at for job, at in facts.last_success.items()},
    )
    yield _gauge(
        "era_asset_last_success_timestamp_seconds",
        "When an asset was materialized last.",
        {("asset", asset): at for asset, at in facts.last_made.items()},
    )


def _plain(name: str, text: str, value: float) -> Metric:
    metric = Metric(name, text, "gauge")
    metric.add_sample(name, {}, value)
    return metric


def _gauge(name: str, text: str, values: Mapping[tuple[str, str], float]) -> Metric:
    """Return a gauge with one label."""
    metric = Metric(name, text, "gauge")
    for (label, label_value), value in values.items():
        metric.add_sample(name, {label: label_value}, value)
    return metric
