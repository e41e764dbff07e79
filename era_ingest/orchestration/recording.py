"""Recording one materialization a book or domain, with its own metadata, at a cost that scales.

Dagster's own ways cost 5 ms an event with pooled connections and 20 ms without; ``add_asset_metadata`` with a
partition key reads all keys on every call. One batch of events costs under 1 ms each (measured on PostgreSQL), so
materializations are written with ``store_event_batch``, the call that Dagster's own batching ends in.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.events import StepMaterializationData

from era_ingest.errors import EraError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MAX_BATCH_EVENTS = 500
"""Events one insert writes, at most."""
MAX_DETAILED_PARTITIONS = 50
"""Partitions that ``yield_outputs`` gives metadata of their own: Dagster reads all keys again for each."""
MAX_STEP_RETRIES = 3
FIRST_RETRY_S = 30
"""Pause before the first retry of a step, seconds; each further one is twice as long."""


@dataclass(frozen=True, slots=True)
class Made:
    """One partition of an asset that was made, or found to be as it should be.

    Attributes:
        partition: Its key.
        metadata: What a person looks at.
        tags: Indexed facts besides the code version, which is added.
    """

    partition: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def record(
    context: dg.AssetExecutionContext,
    asset: str,
    made: Sequence[Made],
    *,
    definition: dg.AssetsDefinition | None = None,
) -> None:
    """Write one materialization event a partition, as events of the running step.

    The step must not yield the asset's output as well: that would record every partition of the run's range.

    Args:
        context: Of the step that made them.
        asset: The asset's name.
        made: In the order of recording; the last is shown as the asset's latest.
        definition: Where the asset is defined; None: in this step.
    """
    key = dg.AssetKey(asset)
    stamped = _provenance(definition or context.assets_def, key)
    entries = [
        _entry(
            context,
            dg.AssetMaterialization(
                asset_key=key, partition=item.partition, metadata=item.metadata, tags={**stamped, **item.tags}
            ),
        )
        for item in made
    ]
    storage = context.instance.event_log_storage
    for start in range(0, len(entries), MAX_BATCH_EVENTS):
        storage.store_event_batch(entries[start : start + MAX_BATCH_EVENTS])


def _provenance(assets: dg.AssetsDefinition, key: dg.AssetKey) -> dict[str, str]:
    """Return the tags by which Dagster tells whether a partition is up to date.

    Whether a book or domain is out of date its content decides, in the database; Dagster is to see a new code version
    and nothing else. Without the inputs' tags it would call each a new dependency, and every partition "unsynced".
    """
    version = assets.code_versions_by_key.get(key)
    if version is None:
        return {}
    tags = {CODE_VERSION_TAG: version}
    for upstream in assets.asset_deps[key]:
        tags[get_input_data_version_tag(upstream)] = DEFAULT_DATA_VERSION.value
        tags[get_input_event_pointer_tag(upstream)] = NULL_EVENT_POINTER
    return tags


def _entry(context: dg.AssetExecutionContext, materialization: dg.AssetMaterialization) -> dg.EventLogEntry:
    """Return the event log's entry of one materialization in this step."""
    step = context.op_execution_context.op_handle
    event = dg.DagsterEvent(
        event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name=context.job_name,
        event_specific_data=StepMaterializationData(materialization),
        message=f"Materialized {materialization.asset_key.to_user_string()}, {materialization.partition}.",
        step_key=str(step),
        node_handle=step,
        pid=os.getpid(),
    )
    return dg.EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None,
        level=logging.DEBUG,
        user_message="",
        run_id=context.run.run_id,
        timestamp=time.time(),
        step_key=str(step),
        job_name=context.job_name,
        dagster_event=event,
    )


def has_dependents(context: dg.AssetExecutionContext) -> bool:
    """Say whether assets of other steps of this run stand on assets of this step.

    Dagster skips those whose upstream output was not yielded, so this step must yield its outputs then.
    """
    layer = context.job_def.asset_layer
    mine = context.assets_def.keys
    children = {child for key in context.selected_asset_keys for child in layer.get(key).child_keys}
    return bool((children & layer.selected_asset_keys) - mine)


def yield_outputs(
    context: dg.AssetExecutionContext,
    by_asset: Mapping[str, Mapping[str, Mapping[str, Any]]],
    whole: Mapping[str, Any],
) -> Iterator[dg.MaterializeResult[object]]:
    """Yield the outputs of a step, which records every partition of the run.

    Args:
        context: Of the step.
        by_asset: Metadata by asset, in topological order, then by partition.
        whole: What is true of the whole run; stands at every partition.
    """
    for asset, partitions in by_asset.items():
        if len(partitions) <= MAX_DETAILED_PARTITIONS:
            for partition, metadata in partitions.items():
                context.add_asset_metadata(metadata, asset_key=asset, partition_key=partition)
        yield dg.MaterializeResult(asset_key=asset, metadata=whole)


def fail(context: dg.AssetExecutionContext, error: EraError, *, retries: bool) -> NoReturn:
    """Fail the step with a message that says what to do; what may pass by itself is tried again, three times.

    A retry policy would not do: it would repeat failed checks and mistakes too.

    Args:
        context: Of the step.
        error: What went wrong.
        retries: Whether anything may be tried again.

    Raises:
        dg.RetryRequested: It may pass by itself.
        dg.Failure: It will not.
    """
    if retries and isinstance(error, TransientError):
        raise dg.RetryRequested(MAX_STEP_RETRIES, FIRST_RETRY_S * 2**context.retry_number) from error
    raise dg.Failure(error.message, metadata={"error": type(error).__name__}, allow_retries=False) from error


def record_quarantine(context: dg.AssetExecutionContext, counts: Mapping[str, int]) -> None:
    """Record how much is in quarantine, if that is not what was recorded last."""
    key = dg.AssetKey("quarantine")
    latest = context.instance.get_latest_materialization_event(key)
    shown = latest.asset_materialization.metadata if latest and latest.asset_materialization else None
    total = sum(counts.values())
    facts: dict[str, Any] = {"dagster/row_count": total, "by reason": dict(counts)}
    if shown is not None and {name: shown[name].value for name in facts if name in shown} == facts:
        return
    context.log_event(dg.AssetMaterialization(key, metadata=facts))
