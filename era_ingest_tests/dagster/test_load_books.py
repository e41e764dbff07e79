"""What a run of ``load_books`` records, whatever the pipelines do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest

from era_ingest.core.audit import error, warning
from era_ingest.errors import StoreUnavailableError
from era_ingest.orchestration import book_recording
from era_ingest.orchestration.assets.ingest import load_books
from era_ingest.orchestration.jobs import books_config, ingest_job
from era_ingest.orchestration.partitions import BOOKS, Target, range_tags
from era_ingest.pipelines.report import BookStatus, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from era_ingest_tests.dagster.conftest import FakeEra

NAMES = [f"book-{number:03}" for number in range(60)]


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance in memory that knows sixty books."""
    with dg.DagsterInstance.ephemeral() as ephemeral:
        ephemeral.add_dynamic_partitions("books", NAMES)
        yield ephemeral


def execute(
    era: FakeEra,
    instance: dg.DagsterInstance,
    *,
    tags: Mapping[str, str] | None = None,
    config: dict[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    definitions = dg.Definitions(assets=[load_books], jobs=[ingest_job], resources={"era": era})
    return definitions.resolve_job_def("ingest").execute_in_process(
        instance=instance,
        tags=dict(tags or {}),
        run_config={**(config or {}), "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )


def materialized(instance: dg.DagsterInstance, stage: Stage, run_id: str) -> list[str]:
    """Return the partitions that a run recorded for an asset, in order."""
    logs = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    events = [entry.get_dagster_event() for entry in logs]
    return [str(event.partition) for event in events if event.asset_key == dg.AssetKey(stage.value)]


@pytest.mark.parametrize("stage", list(Stage))
def test_a_range_is_one_run_with_one_materialization_a_book(
    era: FakeEra, instance: dg.DagsterInstance, stage: Stage
) -> None:
    """Each book of the range is recorded once an asset, with metadata of its own; the last carries the run's."""
    result = execute(era, instance, tags=range_tags(NAMES[0], NAMES[9]))
    assert result.success
    assert len(era.works) == 1
    assert era.works[0].slugs == tuple(NAMES[:10])
    assert materialized(instance, stage, result.run_id) == NAMES[:10]
    latest = instance.get_latest_materialization_event(dg.AssetKey(stage.value))
    assert latest is not None
    assert latest.asset_materialization is not None
    metadata = latest.asset_materialization.metadata
    assert metadata["book"].value == NAMES[9].title()
    assert metadata["run: requests"].value == 3
    assert NAMES[3].title() in str(metadata["run: books"].value)


def test_one_partition(era: FakeEra, instance: dg.DagsterInstance) -> None:
    """The UI's button on one partition loads that book."""
    result = execute(era, instance, tags={"dagster/partition": NAMES[7]})
    assert result.success
    assert materialized(instance, Stage.BOOKS, result.run_id) == [NAMES[7]]


def test_books_with_gaps_are_listed(era: FakeEra, instance: dg.DagsterInstance) -> None:
    """A run without partition tags takes its books from its config, and records each as its partition."""
    wanted = tuple(NAMES[20:30:3])
    result = execute(era, instance, config=books_config(Target(listed=wanted)))
    assert result.success, result.get_run_failure_event()
    assert materialized(instance, Stage.VECTOR_TABLES, result.run_id) == list(wanted)
    assert all(check.passed for check in result.get_asset_check_evaluations())


def test_a_refused_book_takes_no_other_down(era: FakeEra, instance: dg.DagsterInstance) -> None:
    """Its neighbours are recorded, it is not, and the warning check says so; the run is a success."""
    era.statuses = {NAMES[31]: BookStatus.REFUSED}
    era.findings = (warning("quarantine", NAMES[31], "1 refused"),)
    result = execute(era, instance, tags=range_tags(NAMES[30], NAMES[32]))
    assert result.success
    assert materialized(instance, Stage.BOOKS, result.run_id) == [NAMES[30], NAMES[32]]
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert [(check.check_name, check.severity) for check in failed] == [
        ("quarantine_empty", dg.AssetCheckSeverity.WARN)
    ]


def test_a_run_of_refused_books_only_fails(era: FakeEra, instance: dg.DagsterInstance) -> None:
    """Who clicks on a broken book is told so, with the reason."""
    era.statuses = {NAMES[33]: BookStatus.REFUSED}
    result = execute(era, instance, tags={"dagster/partition": NAMES[33]})
    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "It is no JSON." in str(failure.step_failure_data.error_display_string)


def test_unchanged_books_are_recorded_where_they_were_asked_for(
    era: FakeEra, instance: dg.DagsterInstance
) -> None:
    """A backfill over finished books completes: it waits for an event of each."""
    era.statuses = dict.fromkeys(NAMES[:5], BookStatus.UNCHANGED)
    result = execute(era, instance, tags=range_tags(NAMES[0], NAMES[4]))
    assert materialized(instance, Stage.CHUNKS, result.run_id) == NAMES[:5]


def test_unchanged_books_of_a_list_cost_nothing(era: FakeEra, instance: dg.DagsterInstance) -> None:
    """A listed book that is unchanged and known gets no event; an unknown one gets its first."""
    first, second = NAMES[40], NAMES[42]
    execute(era, instance, config=books_config(Target(listed=(first,))))
    era.statuses = {first: BookStatus.UNCHANGED, second: BookStatus.UNCHANGED}
    result = execute(era, instance, config=books_config(Target(listed=(first, second))))
    assert materialized(instance, Stage.CHUNKS, result.run_id) == [second]


def test_books_are_recorded_while_the_run_goes_on(
    era: FakeEra, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished books have their materialization before the run is over, each once; the last comes at the end."""
    monkeypatch.setattr(book_recording, "PAUSE_S", 0.0)
    before = set(instance.get_materialized_partitions(dg.AssetKey("chunks")))
    seen: list[int] = []

    def look() -> None:
        seen.append(len(set(instance.get_materialized_partitions(dg.AssetKey("chunks"))) - before))

    era.while_loading = look
    result = execute(era, instance, config=books_config(Target(listed=("x1", "x2", "x3", "x4"))))
    assert seen == [0, 0, 1, 2]
    assert materialized(instance, Stage.CHUNKS, result.run_id) == ["x1", "x2", "x3", "x4"]


def test_an_early_stop_keeps_what_was_finished(era: FakeEra, instance: dg.DagsterInstance) -> None:
    """Books that were loaded before the database went away are recorded; the run fails with the remedy."""
    era.statuses = {NAMES[45]: BookStatus.PENDING}
    era.error = StoreUnavailableError("The disk is full: make room.")
    result = execute(era, instance, tags=range_tags(NAMES[44], NAMES[45]))
    assert not result.success
    assert materialized(instance, Stage.VECTOR_TABLES, result.run_id) == [NAMES[44]]
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "make room" in str(failure.step_failure_data.error_display_string)


def test_wrong_rows_block(era: FakeEra, instance: dg.DagsterInstance) -> None:
    """A zero vector fails its check, and the run with it."""
    era.findings = (error("zero_vector", NAMES[46], "1 row with a zero vector"),)
    result = execute(era, instance, tags={"dagster/partition": NAMES[46]})
    assert not result.success
    failed = [check.check_name for check in result.get_asset_check_evaluations() if not check.passed]
    assert failed == ["vectors_sound"]


def test_removed_books_lose_their_partition(era: FakeEra, instance: dg.DagsterInstance) -> None:
    """A removal deletes the partition key, and needs no other book in the run."""
    instance.add_dynamic_partitions("books", ["gone"])
    result = execute(era, instance, config=books_config(None, removed=["gone"]))
    assert result.success, result.get_run_failure_event()
    assert "gone" not in instance.get_dynamic_partitions("books")


def test_a_run_without_books_says_what_to_do(era: FakeEra, instance: dg.DagsterInstance) -> None:
    """A run that names no books fails, and names the ways to do so."""
    result = execute(era, instance)
    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "Choose partitions" in str(failure.step_failure_data.error_display_string)
    assert era.works == []


def test_new_books_and_domains_become_partitions(era: FakeEra, instance: dg.DagsterInstance) -> None:
    """A listed book that Dagster has never heard of gets its partition, and so does a domain that changed."""
    execute(era, instance, config=books_config(Target(listed=("brand-new",))))
    assert "brand-new" in instance.get_dynamic_partitions("books")
    assert "ethics" in instance.get_dynamic_partitions("domains")


def test_the_quarantine_is_recorded_when_it_changes(era: FakeEra, instance: dg.DagsterInstance) -> None:
    """Its size is an event of the asset ``quarantine``, once for the same size."""
    era.quarantine = {"item: unknown_item_shape": 4}
    runs = [execute(era, instance, tags={"dagster/partition": NAMES[50]}) for _ in range(2)]
    recorded = [
        [event for event in run.all_events if event.asset_key == dg.AssetKey("quarantine")] for run in runs
    ]
    assert [len(events) for events in recorded] == [1, 0]


def test_assets_on_top_run_in_the_same_run(era: FakeEra, instance: dg.DagsterInstance) -> None:
    """A user's own asset on ``chunks`` is not skipped when it is materialized together with it."""
    seen: list[str] = []

    @dg.multi_asset(
        specs=[dg.AssetSpec("lengths", deps=["chunks"])],
        partitions_def=BOOKS,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def lengths(context) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001 - Dagster reads annotations
        seen.extend(context.partition_keys)

    job = dg.define_asset_job("both", selection=["*lengths"])
    definitions = dg.Definitions(assets=[load_books, lengths], jobs=[job], resources={"era": era})
    result = definitions.resolve_job_def("both").execute_in_process(
        instance=instance, tags=range_tags(NAMES[55], NAMES[57])
    )
    assert result.success
    assert seen == NAMES[55:58]
    assert sorted(materialized(instance, Stage.CHUNKS, result.run_id)) == NAMES[55:58]


def test_recording_many_books_takes_few_writes(
    era: FakeEra, quiet_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty books of four assets, 200 events, reach PostgreSQL in four batches beside a run's usual events."""
    storage = quiet_instance.event_log_storage
    writes: list[int] = []
    single, many = storage.store_event, storage.store_event_batch

    def count_single(event: dg.EventLogEntry) -> None:
        writes.append(1)
        single(event)

    def count_many(events: Sequence[dg.EventLogEntry]) -> None:
        writes.append(len(events))
        many(events)

    monkeypatch.setattr(storage, "store_event", count_single)
    monkeypatch.setattr(storage, "store_event_batch", count_many)
    result = execute(era, quiet_instance, config=books_config(Target(listed=tuple(NAMES[:50]))))
    assert result.success
    assert materialized(quiet_instance, Stage.EMBEDDINGS, result.run_id) == NAMES[:50]
    assert writes.count(50) == 4
    assert len(writes) < 40
