"""``landing_catalog``: the landing folder, whose books become partitions; and ``quarantine``, what was refused."""

from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DEFAULT_DATA_VERSION

from era_ingest.errors import EraError
from era_ingest.orchestration import schemas
from era_ingest.orchestration.assets.ingest import GROUP, OWNERS
from era_ingest.orchestration.interrupts import run_interruptibly
from era_ingest.orchestration.metadata import defects_table, markdown_table
from era_ingest.orchestration.partitions import BOOKS, register
from era_ingest.orchestration.recording import fail
from era_ingest.orchestration.resources import EraResource
from era_ingest.pipelines.arrivals import Landing, look

NAMES_ONLY = DEFAULT_DATA_VERSION
"""Of the catalogue, whatever stands in it: what a book holds its own file says, so none is out of date by this."""

QUARANTINE = dg.AssetSpec(
    "quarantine",
    deps=[dg.AssetDep("books", partition_mapping=dg.AllPartitionMapping())],
    description="What was refused, where and why: documents, items of a document, texts that the embedder refuses. "
    "Recorded by the run that changes it; `era quarantine list` shows it whole.",
    metadata=schemas.table_metadata(schemas.QUARANTINE, "era.quarantine"),
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"python"},
    code_version="1",
    description="The books that lie in the landing folder. Materializing it makes each a partition of `books`: the "
    "first line of a CI job. The sensor does the same by itself.",
)
def landing_catalog(context: dg.AssetExecutionContext, era: EraResource) -> dg.MaterializeResult[Any]:
    """Look into the landing folder and add the partitions that are missing."""
    try:
        landing = run_interruptibly(_look(era, context.run.run_id))
    except EraError as error:
        fail(context, error, retries=era.retries)
    added = register(context.instance, BOOKS, [source.slug for source in landing.sources])
    return dg.MaterializeResult(
        metadata=catalog_metadata(landing, added, str(era.settings().landing_dir)),
        data_version=NAMES_ONLY,
    )


async def _look(era: EraResource, run_id: str) -> Landing:
    async with era.services() as services:
        return await look(services, settle_s=services.settings.settle_s, run_id=run_id)


def catalog_metadata(landing: Landing, added: int, folder: str) -> dict[str, Any]:
    """Return what a person looks at.

    Args:
        landing: What lies in the landing folder.
        added: Partitions that were added.
        folder: The landing folder.
    """
    largest = sorted(landing.sources, key=lambda source: (-source.size, source.slug))
    table = markdown_table(
        ("book", "partition", "format", "bytes"), [(s.name, s.slug, s.format, s.size) for s in largest]
    )
    return {
        "folder": dg.MetadataValue.path(folder),
        "dagster/row_count": len(landing.sources),
        "partitions added": added,
        "new": len(landing.delta.new),
        "changed": len(landing.delta.changed),
        "removed": len(landing.delta.removed),
        "still being written": len(landing.delta.waiting),
        "held back": landing.held_back or "nothing",
        "bytes": sum(source.size for source in landing.sources),
        "books": dg.MetadataValue.md(table),
        "cannot be taken": dg.MetadataValue.md(defects_table(landing.defects)),
    }
