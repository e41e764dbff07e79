"""What the flow does to the database, one transaction a call."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from era_ingest.errors import EraError, PermanentError
from era_ingest.logs import bound
from era_ingest.pipelines.planned_reading import report_of
from era_ingest.pipelines.report import BookStatus, Stage
from era_ingest.pipelines.retrying import patient, retry_transient
from era_ingest.pipelines.vector_size import find_vector_size
from era_ingest.store import books, embeddings, models, refused_texts, views
from era_ingest.store.chunk_table import BookRows
from era_ingest.store.claims import Claims
from era_ingest.store.refused_texts import RefusedText

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from era_ingest.clients.backend import Embedder
    from era_ingest.clients.feed import TextItem
    from era_ingest.core.ledger import TextCounts
    from era_ingest.pipelines.chunked import ChunkedBook
    from era_ingest.pipelines.report import IngestReport, IngestRequest
    from era_ingest.pipelines.services import Services
    from era_ingest.store.books import LoadCounts
    from era_ingest.store.models import Model

_log = logging.getLogger(__name__)

_REFUSALS_LOGGED = 20


class DatabaseSteps:
    """Looks up, commits, quarantines and loads for one ingestion.

    Args:
        services: Open services.
        request: What was asked.
        embedder: Names the model; tells its dimensions where a book without texts is the first of a model.
        model: The model, if the database knows it already; else it is registered with its first vectors.
        result: Gets a report for each book that is finished.
    """

    def __init__(
        self,
        services: Services,
        request: IngestRequest,
        embedder: Embedder,
        model: Model | None,
        result: IngestReport,
    ) -> None:
        self._services = services
        self._request = request
        self._embedder = embedder
        self.model = model
        self._result = result
        self._refused: list[RefusedText] = []
        self._storing = asyncio.Lock()
        self._claims = Claims(services.database)
        self._viewed: set[str] = set()
        self._refusals_logged = 0

    async def claim(self, slugs: Sequence[str]) -> Collection[str]:
        """Return the books that no other run works on, which are this run's now until they are loaded."""
        return await self._claims.take(slugs)

    async def aclose(self) -> None:
        """Let other runs have what was claimed."""
        await self._claims.aclose()

    @patient
    async def known(self, hashes: Sequence[bytes]) -> tuple[Collection[bytes], Collection[bytes]]:
        """Return the hashes that the store has, and those that the server is known to refuse."""
        async with self._services.database.connection() as conn:
            if self.model is None:  # by now another run may have registered it
                found = await models.find_model(conn, self._embedder.name)
                self.model = self.model or found  # a commit may have been first
            model = self.model
            if model is None:
                return (), ()
            if self._request.retry_refused:
                await refused_texts.forgive_texts(conn, model.id, hashes)
            known = await embeddings.known_hashes(conn, model.id, hashes)
            refused = await refused_texts.refused_hashes(conn, model.id, hashes)
        return known, refused

    async def commit(self, hashes: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Make the vectors of finished requests durable, in one transaction."""
        started = time.monotonic()
        model = await self._ensure_model(int(vectors.shape[1]))
        await retry_transient(lambda: self._store(model, hashes, vectors))
        self._add_seconds("commit", started)

    async def refuse(self, item: TextItem, error: EraError) -> None:
        """Put one text into the quarantine, at the latest when a book that holds it is loaded."""
        self._log_refusal(item, error)
        self._refused.append(RefusedText(item.content_hash, item.text, type(error).__name__, error.message))
        if self.model is not None:
            await retry_transient(self._store_refused)

    def _log_refusal(self, item: TextItem, error: EraError) -> None:
        """Say the first ones one by one; the quarantine has them all."""
        self._refusals_logged += 1
        if self._refusals_logged <= _REFUSALS_LOGGED:
            with bound(stage=Stage.EMBEDDINGS):
                facts = {
                    "text": item.content_hash.hex(),
                    "reason": type(error).__name__,
                    "error": error.message,
                }
                _log.warning("the embedder refuses a text", extra=facts)

    async def finish(self) -> None:
        """Store what is still to be stored at the end of a run.

        Raises:
            PermanentError: The embedder refused every text, so that not even the vectors' size is known.
        """
        if not self._refused:
            return
        if self.model is None:
            raise PermanentError(
                f"The embedder refused every text, so this looks like a wrong model or server: "
                f"{self._refused[0].detail} Run `era doctor`."
            )
        await retry_transient(self._store_refused)

    async def load(self, book: ChunkedBook, counts: TextCounts) -> None:
        """Bring the rows of one book, whose texts are all settled, into the tables."""
        started = time.monotonic()
        report = report_of(book, BookStatus.LOADED)
        report.texts_embedded, report.texts_reused = counts.embedded, counts.reused
        if Stage.VECTOR_TABLES in self._request.stages:
            model = self.model or await self._probe()
            loaded = await retry_transient(lambda: self._load_rows(book, counts, model))
            report.rows_written = loaded.inserted + loaded.updated
            report.rows_deleted = loaded.deleted
            self._result.changed_domains |= set(loaded.changed_domains)
            await self._ensure_views(loaded.changed_domains)
        await self._claims.give(book.record.slug)
        report.seconds = time.monotonic() - started
        self._add_seconds("load", started)
        self._result.books.append(report)
        with bound(book=report.book, stage=Stage.VECTOR_TABLES):
            facts = ("entries", "passages", "texts_embedded", "texts_reused", "rows_written", "rows_deleted")
            _log.info("book loaded", extra={name: getattr(report, name) for name in facts})

    async def lack(self, book: ChunkedBook) -> None:
        """Report a book whose texts have no vectors where none were to be made."""
        await self._claims.give(book.record.slug)
        report = report_of(book, BookStatus.REFUSED)
        report.error = (
            f"Texts of {book.record.name} have no vectors of {self._embedder.name} yet: "
            "materialize `embeddings` for it first."
        )
        self._result.books.append(report)

    async def _load_rows(self, book: ChunkedBook, counts: TextCounts, model: Model) -> LoadCounts:
        await self._store_refused()
        rows = BookRows(book.record, book.table, self._request.run_id, counts.embedded, counts.reused)
        async with self._services.database.connection() as conn:
            return await books.load_book(conn, model, rows, rewrite=self._request.force)

    async def _store_refused(self) -> None:
        model = self.model
        if not self._refused or model is None:
            return
        async with self._storing:
            storing = list(self._refused)
            async with self._services.database.connection() as conn:
                await refused_texts.refuse_texts(conn, model, storing, run_id=self._request.run_id)
            del self._refused[: len(storing)]

    @patient
    async def _ensure_views(self, domains: Collection[str]) -> None:
        """Create the views of domains that this run meets for the first time."""
        if new := set(domains) - self._viewed:
            await views.ensure_views(self._services.database, sorted(new))
            self._viewed |= new

    async def _probe(self) -> Model:
        """Learn the size of the model's vectors, and register it."""
        budget_s = self._services.settings.embed_retry_budget_s
        return await self._ensure_model(await find_vector_size(self._embedder, budget_s))

    @patient
    async def _ensure_model(self, dimensions: int) -> Model:
        """Register the model on first use."""
        if self.model is None:
            async with self._services.database.connection() as conn:
                self.model = await models.ensure_model(
                    conn, name=self._embedder.name, backend=self._embedder.backend, dimensions=dimensions
                )
        return self.model

    async def _store(self, model: Model, hashes: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        async with self._services.database.connection() as conn:
            await embeddings.store_vectors(conn, model.id, hashes, vectors, dimensions=model.dimensions)

    def _add_seconds(self, stage: str, started: float) -> None:
        seconds = self._result.stage_seconds
        seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - started
