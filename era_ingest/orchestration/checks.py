"""Asset checks: the audit of ``era verify``, restricted to what a run touched.

Those of the vector tables and the minister files are blocking: where one fails, the run fails and nothing in it
goes further.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import dagster as dg

from era_ingest.orchestration.metadata import markdown_table
from era_ingest.pipelines.report import BookStatus, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from era_ingest.core.audit import Finding
    from era_ingest.pipelines.work import Era, Loaded

CheckEvent: TypeAlias = dg.Output[None] | dg.AssetCheckEvaluation

QUARANTINE_EMPTY = "quarantine_empty"
ROWS_AGREE = "rows_agree"
VECTORS_SOUND = "vectors_sound"
FILES_EQUAL_DATABASE = "files_equal_database"

VECTOR_CODES = frozenset(
    {"zero_vector", "bad_vector", "wrong_size", "missing_vector", "foreign_vector", "wrong_hash"}
)
QUARANTINE_CODES = frozenset({"quarantine"})

BOOK_CHECKS = (
    dg.AssetCheckSpec(
        QUARANTINE_EMPTY,
        asset=Stage.BOOKS.value,
        description="Nothing of the run's books was refused: no document, no item, no text. A warning; what was not "
        "refused is loaded.",
    ),
    dg.AssetCheckSpec(
        ROWS_AGREE,
        asset=Stage.VECTOR_TABLES.value,
        blocking=True,
        description="The table holds exactly what the books' files hold: nothing lost, doubled, stale or orphaned.",
    ),
    dg.AssetCheckSpec(
        VECTORS_SOUND,
        asset=Stage.VECTOR_TABLES.value,
        blocking=True,
        description="Every row has the vector of its text: right size, unit length, not zero, no NaN.",
    ),
)
MINISTER_CHECKS = (
    dg.AssetCheckSpec(
        FILES_EQUAL_DATABASE,
        asset="minister_files",
        blocking=True,
        description="The files of the run's domains, and the combined index, are what the database says, to the byte.",
    ),
)


def evaluate_books(context: dg.AssetExecutionContext, loaded: Loaded) -> Iterator[CheckEvent]:
    """Yield the results of those checks that were selected."""
    if not loaded.audited:
        return
    by_check: dict[str, list[Finding]] = {QUARANTINE_EMPTY: [], ROWS_AGREE: [], VECTORS_SOUND: []}
    for finding in loaded.findings:
        if finding.code in QUARANTINE_CODES:
            by_check[QUARANTINE_EMPTY].append(finding)
        elif finding.code in VECTOR_CODES:
            by_check[VECTORS_SOUND].append(finding)
        else:
            by_check[ROWS_AGREE].append(finding)
    refused = [book for book in loaded.report.books if book.status is BookStatus.REFUSED]
    facts = {"books that could not be read": len(refused)}
    for key in sorted(context.selected_asset_check_keys):
        warn = key.name == QUARANTINE_EMPTY
        yield from _result(
            context, _evaluation(key, by_check[key.name], warn=warn, facts=facts if warn else {})
        )


def evaluate_ministers(
    context: dg.AssetExecutionContext, era: Era, domains: tuple[str, ...] | None
) -> Iterator[CheckEvent]:
    """Yield the results of those checks that were selected; None: of all domains."""
    keys = sorted(context.selected_asset_check_keys)
    if keys:
        findings = era.audit_ministers(domains)
        for key in keys:
            yield from _result(context, _evaluation(key, findings, warn=False, facts={}))


def _result(context: dg.AssetExecutionContext, evaluation: dg.AssetCheckEvaluation) -> Iterator[CheckEvent]:
    """Yield a check's output, which steps on top of it wait for, and its result."""
    output = context.assets_def.get_output_name_for_asset_check_key(evaluation.asset_check_key)
    yield dg.Output(None, output_name=output)
    yield evaluation


def _evaluation(
    key: dg.AssetCheckKey, findings: Sequence[Finding], *, warn: bool, facts: Mapping[str, int]
) -> dg.AssetCheckEvaluation:
    """Return the result of one check.

    ``AssetCheckResult`` would not do: Dagster resolves it by the run's partition, and a run of listed books has none.
    """
    spec = next(s for s in (*BOOK_CHECKS, *MINISTER_CHECKS) if s.key == key)
    metadata: dict[str, int | dg.MarkdownMetadataValue] = {"findings": len(findings), **facts}
    if findings:
        rows = [(finding.code, finding.subject, finding.detail) for finding in findings]
        metadata["what was found"] = dg.MetadataValue.md(markdown_table(("finding", "of", "detail"), rows))
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=not findings,
        metadata=metadata,
        severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
        description="all is well" if not findings else findings[0].detail,
        blocking=spec.blocking,
    )
