"""`era bench search`: how long a search takes and how much of what is nearest it finds, by size and by filter.

Each size has made-up rows (`search_corpus`) in a scratch database, the indexes that an installation of this size would
have, and questions that are none of the rows. *Store* is the searcher of this process; *HTTP* one caller of an ``era
serve`` beside it, over one connection. Both without the embedding of the query: questions come as vectors; those of
hybrid searches over HTTP are words, each asked once before the clock starts, so that its vector is at hand.
"""

from __future__ import annotations

import os
import time
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from era_ingest.bench.caller import calling, serving
from era_ingest.bench.load_tool import Throughput, measure_throughput
from era_ingest.bench.measure import load_average
from era_ingest.bench.scratch import scratch_database, scratch_home
from era_ingest.bench.search_corpus import DOMAINS, TOPICS, Corpus
from era_ingest.pipelines.search import Searcher, SearchRequest
from era_ingest.pipelines.services import open_services
from era_ingest.settings import EmbedderKind
from era_ingest.store.indexes import ensure_domain_index, ensure_words_index
from era_ingest.store.models import ensure_model
from era_ingest.store.search import recall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from era_ingest.bench.caller import Caller
    from era_ingest.bench.search_corpus import Question
    from era_ingest.pipelines.services import Services
    from era_ingest.settings import Settings
    from era_ingest.store.models import Model

SIZES = (1_376, 50_000, 500_000)
RECALL_QUESTIONS = 50
_MOST_WARM_UP = 20
K = 10


class Filter(NamedTuple):
    """What a search is narrowed to; the names are those of a search's fields."""

    name: str
    domain: str | None = None
    category: str | None = None
    hybrid: bool = False

    @property
    def topics(self) -> Sequence[int]:
        """Topics that its questions are about."""
        return range(TOPICS) if self.domain is None else DOMAINS[self.domain]


FILTERS = (
    Filter("all"),
    *(Filter(f"domain {name}", domain=name) for name in DOMAINS),
    Filter("warnings of all", category="warning"),
    Filter("hybrid, all", hybrid=True),
    Filter("hybrid, domain large", domain="large", hybrid=True),
)


@dataclass(frozen=True, slots=True)
class SearchRow:
    """One filter at one size, one way.

    Attributes:
        rows: Rows of the table.
        way: ``store`` or ``http``.
        filter: What it was narrowed to.
        searches: How many there were.
        p50_ms: Median, milliseconds.
        p95_ms: 95th percentile.
        recall: Share of the ten exact nearest that were found; None: not by meaning alone, or measured already.
    """

    rows: int
    way: str
    filter: str
    searches: int
    p50_ms: float
    p95_ms: float
    recall: float | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one size took before it could be searched: seconds of loading and of building its indexes."""

    rows: int
    load_s: float
    index_s: float


@dataclass(frozen=True, slots=True)
class SearchFound:
    """All of it.

    Attributes:
        dimensions: Size of the vectors.
        rows: What was measured.
        prepared: What each size took before.
        throughput: What the load tool said, at the last size.
        load_average: The machine's, over the last minute, at the end.
    """

    dimensions: int
    rows: tuple[SearchRow, ...]
    prepared: tuple[Prepared, ...]
    throughput: tuple[Throughput, ...]
    load_average: float

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {"bench": "search", "k": K, **asdict(self), "cores": os.cpu_count()}


async def bench_search(
    settings: Settings,
    *,
    sizes: Sequence[int] = SIZES,
    dimensions: int = 768,
    questions: int = 200,
    load_tool_s: int = 0,
    on_step: Callable[[str], None] = lambda _: None,
) -> SearchFound:
    """Measure searches.

    Args:
        settings: ERA_DATABASE_URL says on which server; else on an embedded one of its own.
        sizes: Rows of the tables, one after the other.
        dimensions: Size of the vectors.
        questions: Searches a filter and way.
        load_tool_s: How long ``hey`` asks the service, by each number of callers, seconds; 0: not.
        on_step: Told what is done next.

    Raises:
        ConfigurationError: There is no ``hey``; or no scratch database may be made.
        EraError: The database cannot be reached.
    """
    rows: list[SearchRow] = []
    prepared: list[Prepared] = []
    throughput: tuple[Throughput, ...] = ()
    with scratch_home(settings) as (home, server):
        for size in sizes:
            with scratch_database(server) as url:
                here = settings.model_copy(
                    update={
                        "home": home / "home",
                        "database_url": type(settings)(database_url=url).database_url,
                        "embedder": EmbedderKind.HASHING,
                    }
                )
                async with _loaded(here, Corpus(size, dimensions), on_step) as (services, corpus, made):
                    prepared.append(made)
                    on_step(f"{size:,} rows: searches")
                    rows += [await _store_row(services, corpus, one, questions) for one in FILTERS]
                    environment = {**os.environ, "ERA_DATABASE_URL": url, "ERA_HOME": str(home / "home")}
                    environment |= {"ERA_SERVE_RATE_PER_S": "0", "ERA_EMBEDDER": "hashing"}
                    with serving(environment) as service:
                        with calling(service) as caller:
                            rows += [_http_row(caller, corpus, one, questions) for one in FILTERS]
                        if load_tool_s and size == sizes[-1]:
                            body = _body(FILTERS[0], corpus.questions(1)[0])
                            throughput = measure_throughput(
                                f"{service}/v1/search", body, load_tool_s, on_step
                            )
    return SearchFound(dimensions, tuple(rows), tuple(prepared), throughput, load_average())


@asynccontextmanager
async def _loaded(
    settings: Settings, corpus: Corpus, on_step: Callable[[str], None]
) -> AsyncIterator[tuple[Services, Corpus, Prepared]]:
    """Yield services over a database that holds the rows and their indexes."""
    async with open_services(settings) as services:
        on_step(f"{corpus.rows:,} rows: loading")
        started = time.perf_counter()
        async with services.database.connection() as conn:
            name, size = f"hashing/{corpus.dimensions}", corpus.dimensions
            model = await ensure_model(conn, name=name, backend="hashing", dimensions=size)
            await corpus.load(conn, model)
        loaded = time.perf_counter()
        on_step(f"{corpus.rows:,} rows: building indexes")
        await _index(services, model)
        built = time.perf_counter()
        async with services.database.connection() as conn:
            await conn.commit()
            await conn.set_autocommit(True)
            await conn.execute("vacuum analyze")
            await conn.set_autocommit(False)
        yield services, corpus, Prepared(corpus.rows, loaded - started, built - loaded)


async def _index(services: Services, model: Model) -> None:
    settings = services.settings
    for domain in (None, *DOMAINS):
        await ensure_domain_index(
            services.database,
            model,
            domain,
            min_rows=settings.index_min_rows,
            memory_mb=settings.index_memory_mb,
        )
    await ensure_words_index(services.database, model)


async def _store_row(services: Services, corpus: Corpus, one: Filter, count: int) -> SearchRow:
    searcher = Searcher(services)
    warm_up = min(_MOST_WARM_UP, count)
    asked = corpus.questions(warm_up + count, one.topics)
    took = []
    for question in asked:
        text = question.text if one.hybrid else ""
        vector = question.vector
        request = SearchRequest(
            text=text,
            vector=vector.tolist(),
            domain=one.domain,
            category=one.category,
            k=K,
            hybrid=one.hybrid,
        )
        began = time.perf_counter()
        await searcher.find(request)
        took.append(time.perf_counter() - began)
    share = None
    if not one.hybrid:
        vectors = [question.vector for question in asked[: min(RECALL_QUESTIONS, count)]]
        async with services.database.connection() as conn:
            share = await recall(conn, vectors, domain=one.domain, category=one.category, k=K)
    return _row(corpus, "store", one, took[warm_up:], share)


def _http_row(caller: Caller, corpus: Corpus, one: Filter, count: int) -> SearchRow:
    warm_up = min(_MOST_WARM_UP, count)
    bodies = [_body(one, question) for question in corpus.questions(warm_up + count, one.topics)]
    took = []
    for body in bodies if one.hybrid else ():
        caller.post("/v1/search", body)
    for body in bodies:
        began = time.perf_counter()
        answer = caller.post("/v1/search", body)
        took.append(time.perf_counter() - began)
        assert answer.status == 200, answer.json  # noqa: PLR2004 - OK
    return _row(corpus, "http", one, took[warm_up:], None)


def _body(one: Filter, question: Question) -> dict[str, Any]:
    """Return what is posted; a hybrid search has its vector from the service's embedder."""
    narrowed = {"domain": one.domain, "category": one.category, "k": K}
    if one.hybrid:
        return {"text": question.text, "hybrid": True, **narrowed}
    return {"vector": question.vector.tolist(), **narrowed}


def _row(corpus: Corpus, way: str, one: Filter, took_s: Sequence[float], share: float | None) -> SearchRow:
    p50_ms, p95_ms = (float(x) * 1000 for x in np.percentile(took_s, (50, 95)))
    return SearchRow(corpus.rows, way, one.name, len(took_s), round(p50_ms, 2), round(p95_ms, 2), share)
