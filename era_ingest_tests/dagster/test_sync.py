"""What the UI calls unsynced or never materialized: only what is."""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from era_ingest.definitions import defs
from era_ingest.orchestration.assets.landing import landing_catalog
from era_ingest.orchestration.resources import EraResource
from era_ingest.orchestration.sensors import landing_sensor, ministers_sensor
from era_ingest_tests.dagster.corpus import write_book
from era_ingest_tests.dagster.house import House, the_request

ASSETS = ("books", "chunks", "embeddings", "vector_tables", "minister_files", "domain_index")


def unsynced(instance: dg.DagsterInstance) -> list[tuple[str, str, list[str]]]:
    """Return the partitions that are materialized and not up to date in Dagster's eyes, and why."""
    graph = defs.get_repository_def().asset_graph
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return [
        (name, partition, [cause.reason for cause in resolver.get_stale_causes(key, partition)])
        for name in ASSETS
        for key in [dg.AssetKey(name)]
        for partition in sorted(instance.get_materialized_partitions(key))
        if resolver.get_status(key, partition) is not StaleStatus.FRESH
    ]


def test_what_was_loaded_is_in_sync_and_stays_so(house: House) -> None:
    """After the sensors' runs, after another book, and after the catalogue is made by hand."""
    for book in ("first", "second"):
        write_book(house.landing, book)
        tick = house.tick(landing_sensor)
        assert house.run("ingest", the_request(tick)).success
        assert isinstance(tick, dg.SensorResult)
        (catalog,) = tick.asset_events
        assert isinstance(catalog, dg.AssetMaterialization)
        house.instance.report_runless_asset_event(catalog)
        assert house.run("ministers", the_request(house.tick(ministers_sensor))).success
        assert unsynced(house.instance) == []
    latest = house.instance.get_latest_materialization_event(dg.AssetKey("landing_catalog"))
    assert latest is not None
    assert latest.asset_materialization is not None
    assert latest.asset_materialization.metadata["dagster/row_count"].value == 2
    assert latest.asset_materialization.metadata["partitions added"].value == 1
    assert dg.materialize(
        [landing_catalog], instance=house.instance, resources={"era": EraResource()}
    ).success
    assert unsynced(house.instance) == []


def test_an_empty_quarantine_says_so(house: House) -> None:
    """The first run records that nothing was refused; later ones have nothing to add."""
    for book in ("first", "second"):
        write_book(house.landing, book)
        assert house.load_what_arrived().success
    records = house.instance.fetch_materializations(dg.AssetKey("quarantine"), limit=10).records
    assert [
        record.asset_materialization.metadata["dagster/row_count"].value
        for record in records
        if record.asset_materialization
    ] == [0]


def test_a_domain_of_passages_only_is_complete_without_files(house: House) -> None:
    """Plain text has no doctrine: its domain's row of the UI is whole, and no file is written."""
    (house.landing / "notes.md").write_text("# One\n\n" + "Finish what was begun, and begin again. " * 30)
    write_book(house.landing, "first")
    assert house.load_what_arrived().success
    assert house.run("ministers", the_request(house.tick(ministers_sensor))).success
    domains = set(house.instance.get_dynamic_partitions("domains"))
    assert domains == {"base", "ethics"}
    for asset in ("minister_files", "domain_index"):
        assert house.instance.get_materialized_partitions(dg.AssetKey(asset)) == domains
    assert not (house.ministers / "base").exists()
    assert unsynced(house.instance) == []
