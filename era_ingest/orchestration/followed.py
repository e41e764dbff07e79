"""Work that is under way elsewhere, as the `Era` of the runs that record it: their steps wait for what comes."""

from __future__ import annotations

from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

from era_ingest.orchestration.recorder import TELL_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from era_ingest.core.audit import Finding
    from era_ingest.pipelines.indexes import DomainIndexReport
    from era_ingest.pipelines.ministers import MinistersReport
    from era_ingest.pipelines.report import Progress
    from era_ingest.pipelines.work import BookWork, Loaded


class FollowedWork:
    """What steps ask for is done anyway; its futures are done one after another.

    Attributes:
        order: What is loaded, once that is known.
        loaded: What became of the books.
        ministers: What became of the minister files; None if the loading stopped before them.
        indexes: What became of views and indexes.
        progress: How far it was when it was last told; None: not told yet.
    """

    def __init__(self) -> None:
        self.order: Future[BookWork] = Future()
        self.loaded: Future[Loaded] = Future()
        self.ministers: Future[MinistersReport | None] = Future()
        self.indexes: Future[list[DomainIndexReport]] = Future()
        self.progress: Progress | None = None

    @property
    def retries(self) -> bool:
        """Never: the work is done once, and a person waits for it."""
        return False

    def load(self, work: BookWork, report: Callable[[Progress], None]) -> Loaded:
        """Wait for the books; tell meanwhile how far they are."""
        del work
        while not self.loaded.done():
            wait([self.loaded], timeout=TELL_S)
            if self.progress is not None:
                report(self.progress)
        return self.loaded.result()

    def build_ministers(self, domains: tuple[str, ...] | None) -> MinistersReport:
        """Wait for the minister files."""
        from era_ingest.pipelines.ministers import MinistersReport  # heavy: not before it is needed

        del domains
        return self.ministers.result() or MinistersReport()

    def refresh_indexes(self, domains: tuple[str, ...] | None) -> Sequence[DomainIndexReport]:
        """Wait for views and indexes."""
        del domains
        return self.indexes.result()

    def audit_ministers(self, domains: tuple[str, ...] | None) -> Sequence[Finding]:
        """Nothing: the files were written from these rows a moment ago; `era verify` compares them."""
        del domains
        return ()

    def fail(self, cause: BaseException) -> None:
        """Let whoever waits for what did not come have the reason."""
        for future in (self.order, self.loaded, self.ministers, self.indexes):
            if not future.done():
                future.set_exception(cause)
