"""``books``, ``chunks``, ``embeddings`` and ``vector_tables``: one step that works on all books of a run together.

They are four assets and one multi-asset, since their work overlaps: while one book is embedded another is read and
a third is loaded, and a text that two books share is embedded once. Within Dagster, assets of one run would go
one after another.

A run says its books in one of three ways: partition tags (the UI, backfills, the command line), a list in its
config (the sensor where the books are no short contiguous range), or ``everything``.
"""

from collections.abc import Iterator, Sequence

import dagster as dg
from pydantic import Field

from era_ingest.errors import EraError
from era_ingest.logs import bound
from era_ingest.orchestration import schemas
from era_ingest.orchestration.book_recording import GOOD, BookRecorder
from era_ingest.orchestration.checks import BOOK_CHECKS, CheckEvent, evaluate_books
from era_ingest.orchestration.jobs import JOB_TAG
from era_ingest.orchestration.metadata import book_metadata, run_metadata
from era_ingest.orchestration.partitions import BOOKS, DOMAINS, keys_of, register, unregister
from era_ingest.orchestration.recording import (
    fail,
    has_dependents,
    record_quarantine,
    yield_outputs,
)
from era_ingest.pipelines.report import BookReport, BookStatus, IngestReport, Stage
from era_ingest.pipelines.work import BookWork, Era, Loaded

GROUP = "corpus"
OWNERS = ["team:corpus"]


class BooksConfig(dg.Config):
    """What a run is to do besides the partitions it is started for; all of it may stay empty."""

    books: list[str] = Field(
        [], description="books to load (partition keys), instead of the run's partitions"
    )
    removed: list[str] = Field([], description="books whose files are gone: their rows and files go too")
    everything: bool = Field(False, description="load whatever is new, changed, removed or stale")
    force: bool = Field(False, description="work on unchanged books too")
    retry_refused: bool = Field(False, description="ask again for texts that the embedder refused before")
    audit: bool = Field(True, description="check afterwards what was loaded")


SPECS = (
    dg.AssetSpec(
        Stage.BOOKS.value,
        deps=["landing_catalog"],
        description="A book read and cleaned: typed chapters and entries, its defects listed, its files hashed. "
        "A partition is one book.",
        skippable=True,
        group_name=GROUP,
        owners=OWNERS,
        kinds={"python", "json"},
        code_version="1",
    ),
    dg.AssetSpec(
        Stage.CHUNKS.value,
        deps=[Stage.BOOKS.value],
        description="A book's chunks as Parquet: a doctrine entry is a chunk of its own, chapter text is cut into "
        "passages at sentence and paragraph borders. Load it as `pandas.DataFrame` or `pyarrow.Table`.",
        metadata=schemas.table_metadata(schemas.CHUNKS),
        skippable=True,
        group_name=GROUP,
        owners=OWNERS,
        kinds={"python", "parquet"},
        code_version="1",
    ),
    dg.AssetSpec(
        Stage.EMBEDDINGS.value,
        deps=[Stage.CHUNKS.value],
        description="A vector for each distinct text of a book, kept by model and content hash: paid for once, kept "
        "for ever. All texts of a run go through one adaptive client, batched over its books.",
        metadata=schemas.table_metadata(schemas.EMBEDDINGS, "era.embeddings"),
        skippable=True,
        group_name=GROUP,
        owners=OWNERS,
        kinds={"python", "postgres"},
        code_version="1",
    ),
    dg.AssetSpec(
        Stage.VECTOR_TABLES.value,
        deps=[Stage.EMBEDDINGS.value],
        description="A book's rows in `doctrine_embeddings_all`, brought up to date in one transaction by a diff of "
        "ids and content hashes. Seen through one view a domain.",
        metadata=schemas.table_metadata(schemas.VECTOR_TABLES, "era.doctrine_embeddings_all"),
        skippable=True,
        group_name=GROUP,
        owners=OWNERS,
        kinds={"postgres"},
        code_version="1",
    ),
)


@dg.multi_asset(
    name="load_books",
    specs=SPECS,
    check_specs=BOOK_CHECKS,
    can_subset=True,
    partitions_def=BOOKS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="embedding",
)
def load_books(
    context: dg.AssetExecutionContext, config: BooksConfig, era: dg.ResourceParam[Era]
) -> Iterator[dg.MaterializeResult[object] | CheckEvent]:
    """Take the run's books through the stages that are selected; record each book that came through."""
    work = build_work(context, config)
    register(context.instance, BOOKS, work.slugs)
    recorder = BookRecorder(context, work)
    loaded = _load(context, work, era, recorder)
    report = loaded.report
    recorded = recorder.finish(report)
    if loaded.unknown:
        context.log.warning("not in a landing folder: %s", ", ".join(loaded.unknown[:10]))
    unregister(context.instance, BOOKS, [b.slug for b in report.books if b.status is BookStatus.REMOVED])
    register(context.instance, BOOKS, [b.slug for b in report.books if b.status in GOOD])
    register(context.instance, DOMAINS, sorted(report.changed_domains))
    if loaded.audited:
        record_quarantine(context, loaded.quarantine)
    if has_dependents(context):
        yield from _yield_for_dependents(context, report, recorded)
    yield from evaluate_books(context, loaded)
    _raise_what_failed(context, era, work, loaded)


def build_work(context: dg.AssetExecutionContext, config: BooksConfig) -> BookWork:
    """Return what a run was asked to do.

    Raises:
        dg.Failure: Nothing says which books.
    """
    slugs = tuple(dict.fromkeys(config.books)) or (() if config.everything else keys_of(context))
    stages = frozenset(Stage(key.path[-1]) for key in context.selected_asset_keys)
    if stages and not (slugs or config.removed or config.everything):
        raise dg.Failure(
            "This run names no books. Choose partitions in the UI or with --partition or --partition-range, or set "
            "`books` or `everything` in the run's config. Books become partitions by materializing landing_catalog.",
            allow_retries=False,
        )
    return BookWork(
        slugs=slugs,
        removed=tuple(config.removed),
        everything=config.everything,
        stages=stages,
        run_id=context.run.run_id,
        force=config.force,
        retry_refused=config.retry_refused,
        audit=config.audit and bool(context.selected_asset_check_keys),
    )


def _load(context: dg.AssetExecutionContext, work: BookWork, era: Era, recorder: BookRecorder) -> Loaded:
    try:
        with bound(run=context.run.run_id, job=context.run.tags.get(JOB_TAG)):
            return era.load(work, recorder)
    except EraError as error:
        fail(context, error, retries=era.retries)


def _yield_for_dependents(
    context: dg.AssetExecutionContext, report: IngestReport, recorded: Sequence[BookReport]
) -> Iterator[dg.MaterializeResult[object]]:
    """Yield the assets' outputs where assets of the same run stand on them, if every book came through."""
    missing = set(keys_of(context)) - {book.slug for book in recorded}
    if missing:
        context.log.warning(
            "%d books did not come through, so what stands on them in this run is skipped: %s",
            len(missing),
            ", ".join(sorted(missing)[:10]),
        )
        return
    by_stage = {
        stage.value: {b.slug: book_metadata(stage, b, model=report.model) for b in recorded}
        for stage in Stage
        if dg.AssetKey(stage.value) in context.selected_asset_keys
    }
    yield from yield_outputs(context, by_stage, run_metadata(report))


def _raise_what_failed(context: dg.AssetExecutionContext, era: Era, work: BookWork, loaded: Loaded) -> None:
    """Fail the run if it was stopped early, or if not one of the books it was asked for came through."""
    report = loaded.report
    if report.error is not None:
        fail(context, report.error, retries=era.retries)
    wrong = [b for b in report.books if b.status is BookStatus.REFUSED]
    if work.slugs and not any(b.status in GOOD for b in report.books):
        reasons = [f"{b.book}: {b.error}" for b in wrong[:5]]
        reasons += [f"{slug}: its files are not in a landing folder" for slug in loaded.unknown[:5]]
        if reasons:
            raise dg.Failure("No book could be loaded. " + " | ".join(reasons), allow_retries=False)
