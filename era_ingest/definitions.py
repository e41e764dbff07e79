"""The whole graph on one page. Start here: ``dagster dev -m era_ingest.definitions`` or ``era dev``.

landing_catalog ── books ── chunks ── embeddings ── vector_tables ──┬── minister_files
                     │                                             └── domain_index
                     └── quarantine
partitions:          └──────────── a book each ───────────────┘        a domain each
"""

from __future__ import annotations

import dagster as dg

from era_ingest.orchestration.alerting import alert_sensor, with_freshness
from era_ingest.orchestration.assets.domains import domain_index, minister_files
from era_ingest.orchestration.assets.ingest import load_books
from era_ingest.orchestration.assets.landing import QUARANTINE, landing_catalog
from era_ingest.orchestration.io import ParquetIOManager
from era_ingest.orchestration.jobs import ingest_job, landing_job, ministers_job
from era_ingest.orchestration.resources import EraResource
from era_ingest.orchestration.run_logs import run_logger, use_for_runs
from era_ingest.orchestration.schedules import nightly_backfill
from era_ingest.orchestration.sensors import landing_sensor, ministers_sensor
from era_ingest.orchestration.warm import use_warm_workers
from era_ingest.settings import load_settings

use_for_runs()
use_warm_workers()
defs = dg.Definitions(
    assets=[
        landing_catalog,
        with_freshness(load_books, load_settings().alert_late_h),
        QUARANTINE,
        minister_files,
        domain_index,
    ],
    jobs=[ingest_job, ministers_job, landing_job],
    sensors=[landing_sensor, ministers_sensor, alert_sensor],
    schedules=[nightly_backfill],
    resources={"era": EraResource(), "io_manager": ParquetIOManager()},
    executor=dg.in_process_executor,
    loggers={"console": run_logger},
)
