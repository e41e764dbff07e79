"""``minister_files`` and ``domain_index``: what is built a domain, from the database, when its rows changed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from era_ingest.core.model import Category
from era_ingest.errors import EraError
from era_ingest.orchestration import schemas
from era_ingest.orchestration.assets.ingest import OWNERS
from era_ingest.orchestration.checks import MINISTER_CHECKS, CheckEvent, evaluate_ministers
from era_ingest.orchestration.metadata import markdown_table
from era_ingest.orchestration.partitions import DOMAINS, keys_of, register
from era_ingest.orchestration.recording import Made, fail, has_dependents, record, yield_outputs
from era_ingest.pipelines.indexes import DomainIndexReport
from era_ingest.pipelines.ministers import MinistersReport
from era_ingest.pipelines.work import Era

GROUP = "domains"
_UPSTREAM = dg.AssetDep("vector_tables", partition_mapping=dg.AllPartitionMapping())


class DomainsConfig(dg.Config):
    """Which domains a run is to work on, where they are not the run's partitions.

    Such a run needs the tag of one partition all the same: Dagster looks up the partitions of what is upstream.
    """

    domains: list[str] = Field([], description="domains to work on, instead of the run's partitions")
    listed: bool = Field(False, description="take `domains` as it stands, even if it is empty")


MINISTER_FILES = dg.AssetSpec(
    "minister_files",
    deps=[_UPSTREAM],
    description="A domain's minister files, `<domain>/{principles,rules,claims,warnings,doctrine}.json`, and the "
    "combined index beside the folders: built whole from the database, the same bytes for the same rows.",
    metadata=schemas.table_metadata(schemas.MINISTER_ENTRY),
    skippable=True,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"python", "json"},
    code_version="1",
)
DOMAIN_INDEX = dg.AssetSpec(
    "domain_index",
    deps=[_UPSTREAM],
    description="A domain's view `doctrine_embeddings_<domain>`, its statistics and, above ERA_INDEX_MIN_ROWS rows, "
    "its HNSW index, built after the load.",
    skippable=True,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
    code_version="1",
)


@dg.multi_asset(
    name="minister_files",
    specs=[MINISTER_FILES],
    check_specs=MINISTER_CHECKS,
    can_subset=True,
    partitions_def=DOMAINS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def minister_files(
    context: dg.AssetExecutionContext, config: DomainsConfig, era: dg.ResourceParam[Era]
) -> Iterator[dg.MaterializeResult[object] | CheckEvent]:
    """Build the minister files of the run's domains; record each domain that has some."""
    domains = _domains(context, config)
    if context.selected_asset_keys:
        report = _built(context, era, domains)
        kept = {
            name: _files_metadata(report, name) for name in report.published if name not in report.removed
        }
        yield from _record(context, "minister_files", kept, _whole(report))
        domains = tuple(report.published)
    yield from evaluate_ministers(context, era, domains)


@dg.multi_asset(
    name="domain_index",
    specs=[DOMAIN_INDEX],
    can_subset=True,
    partitions_def=DOMAINS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def domain_index(
    context: dg.AssetExecutionContext, config: DomainsConfig, era: dg.ResourceParam[Era]
) -> Iterator[dg.MaterializeResult[object]]:
    """Look after view, statistics and index of the run's domains; record each."""
    try:
        reports = era.refresh_indexes(_domains(context, config))
    except EraError as error:
        fail(context, error, retries=era.retries)
    kept = {
        report.domain: {
            "dagster/partition_row_count": report.total_rows,
            "dagster/table_name": f"era.{report.view}",
            "rows by category": dict(report.rows),
            "ANN index": _index_of(report),
        }
        for report in reports
        if report.view is not None
    }
    rows = sorted(reports, key=lambda report: (-report.total_rows, report.domain))
    table = markdown_table(
        ("domain", "rows", "ANN index"), [(r.domain, r.total_rows, _index_of(r)) for r in rows]
    )
    _record_without_files(context, reports)
    yield from _record(context, "domain_index", kept, {"run: domains": dg.MetadataValue.md(table)})


def _record_without_files(context: dg.AssetExecutionContext, reports: Sequence[DomainIndexReport]) -> None:
    """Record domains that have passages only as complete: no minister file is due for them."""
    facts = {
        "dagster/partition_row_count": 0,
        "files": "none: minister files hold doctrine, and there is none",
    }
    made = [
        Made(report.domain, facts)
        for report in reports
        if report.view is not None and set(report.rows) == {Category.PASSAGE}
    ]
    if made:
        register(context.instance, DOMAINS, [item.partition for item in made])
        record(context, "minister_files", made, definition=minister_files)


def _index_of(report: DomainIndexReport) -> str:
    return report.index.action.value if report.index else "none"


def _built(context: dg.AssetExecutionContext, era: Era, domains: tuple[str, ...]) -> MinistersReport:
    try:
        return era.build_ministers(domains)
    except EraError as error:
        fail(context, error, retries=era.retries)


def _domains(context: dg.AssetExecutionContext, config: DomainsConfig) -> tuple[str, ...]:
    """Return the domains of a run."""
    return tuple(config.domains) if config.listed or config.domains else keys_of(context)


def _record(
    context: dg.AssetExecutionContext,
    asset: str,
    kept: Mapping[str, Mapping[str, Any]],
    whole: Mapping[str, Any],
) -> Iterator[dg.MaterializeResult[object]]:
    """Record each domain; the last one carries what is true of the whole run."""
    if not kept:
        return
    register(context.instance, DOMAINS, kept)
    if has_dependents(context):
        yield from yield_outputs(context, {asset: kept}, whole)
        return
    made = [Made(name, metadata) for name, metadata in kept.items()]
    made[-1] = Made(made[-1].partition, {**made[-1].metadata, **whole})
    record(context, asset, made)


def _files_metadata(report: MinistersReport, domain: str) -> dict[str, Any]:
    published = report.published[domain]
    statistics = published.statistics
    return {
        "dagster/partition_row_count": statistics.total_entries,
        "files written": len(published.changes.written),
        "files unchanged": len(published.changes.unchanged),
    }


def _whole(report: MinistersReport) -> dict[str, Any]:
    order = sorted(report.published.items(), key=lambda item: (-item[1].statistics.total_entries, item[0]))
    table = markdown_table(
        ("domain", "entries", "files written"),
        [(name, item.statistics.total_entries, len(item.changes.written)) for name, item in order],
    )
    return {
        "run: domains": dg.MetadataValue.md(table),
        "run: domains built": report.domains,
        "run: domains removed": len(report.removed),
        "run: files written": report.files_written,
        "run: seconds": round(report.seconds, 3),
    }
