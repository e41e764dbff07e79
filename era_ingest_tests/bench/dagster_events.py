"""What one Dagster event costs on an embedded server: our storage beside the stock one.

``python era_ingest_tests/bench/dagster_events.py`` takes half a minute and prints milliseconds an event of a
run that materializes 100 partitions (210 events), the best of three.
"""

import logging
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import dagster as dg
from dagster._core.instance import InstanceRef

from era_ingest.orchestration.instance import open_instance
from era_ingest.orchestration.storage import sqlalchemy_url
from era_ingest.settings import load_settings
from era_ingest.store.embedded import hold

PARTITIONS = 100
_SPAN = {"dagster/asset_partition_range_start": "0", "dagster/asset_partition_range_end": str(PARTITIONS - 1)}

warnings.simplefilter("ignore")


@dg.asset(
    partitions_def=dg.StaticPartitionsDefinition([str(key) for key in range(PARTITIONS)]),
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def numbers(context: dg.AssetExecutionContext) -> None:
    """One number a partition."""
    for key in context.partition_keys:
        context.add_asset_metadata({"n": 1}, partition_key=key)


def cost_ms(instance: dg.DagsterInstance) -> float:
    """Return milliseconds an event, the best of three runs."""
    costs = []
    for _ in range(3):
        start = time.perf_counter()
        result = dg.materialize([numbers], instance=instance, tags=_SPAN)
        costs.append((time.perf_counter() - start) / len(instance.all_logs(result.run_id)))
    return min(costs) * 1000


def main() -> None:
    """Print one line a storage."""
    logging.disable(logging.CRITICAL)
    os.environ.pop("DAGSTER_HOME", None)
    with tempfile.TemporaryDirectory() as folder, hold(Path(folder)) as lease:
        with open_instance(load_settings(home=Path(folder), database_url=lease.url)) as instance:
            sys.stdout.write(f"ours   {cost_ms(instance):6.1f} ms an event\n")
        os.environ["DAGSTER_EVENT_BATCH_SIZE"] = "0"  # Dagster's own default
        overrides = {
            "storage": {"postgres": {"postgres_url": sqlalchemy_url(lease.url)}},
            "telemetry": {"enabled": False},
        }
        with dg.DagsterInstance.from_ref(InstanceRef.from_dir(folder, overrides=overrides)) as instance:
            sys.stdout.write(f"stock  {cost_ms(instance):6.1f} ms an event\n")


if __name__ == "__main__":
    main()
