"""The sensors and the schedule on a real database and real files, tick by tick."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING

import dagster as dg

from era_ingest.definitions import defs
from era_ingest.orchestration import asking, sensors
from era_ingest.orchestration.asking import Asked
from era_ingest.orchestration.partitions import RANGE_END_TAG, RANGE_START_TAG
from era_ingest.orchestration.resources import EraResource
from era_ingest.orchestration.schedules import nightly_backfill
from era_ingest.orchestration.sensors import landing_sensor, ministers_sensor
from era_ingest_tests.dagster.corpus import write_book
from era_ingest_tests.dagster.house import House, the_reason, the_request

if TYPE_CHECKING:
    import pytest


def test_a_burst_is_one_run(house: House) -> None:
    """Fifty books that arrive together are one run over one range of new partitions, and load."""
    for number in range(50):
        write_book(house.landing, f"book-{number:02}")
    request = the_request(house.tick(landing_sensor))
    assert request.tags[RANGE_START_TAG] == "book-00"
    assert request.tags[RANGE_END_TAG] == "book-49"
    assert len(house.instance.get_dynamic_partitions("books")) == 50
    result = house.run("ingest", request)
    assert result.success
    assert house.count("select count(*) from era.doctrine_sources") == 50
    assert "nothing new" in the_reason(house.tick(landing_sensor))


def test_changed_new_renamed_and_removed_books_share_a_run(house: House) -> None:
    """Only what must change changes: the renamed book is not embedded again, the removed one is gone everywhere."""
    for name in ("stays", "changes", "moves", "goes"):
        write_book(house.landing, name)
    assert house.load_what_arrived().success
    embedded = house.count("select count(*) from era.embeddings")
    write_book(house.landing, "changes", chapters=3)
    (house.landing / "moves").rename(house.landing / "moved")
    shutil.rmtree(house.landing / "goes")
    write_book(house.landing, "arrives")
    request = the_request(house.tick(landing_sensor))
    config = request.run_config["ops"]["load_books"]["config"]
    assert set(config["removed"]) == {"goes", "moves"}
    assert set(config["books"]) == {"arrives", "changes", "moved"}
    assert house.run("ingest", request).success
    assert set(house.instance.get_dynamic_partitions("books")) == {"stays", "changes", "moved", "arrives"}
    assert house.count("select count(*) from era.doctrine_sources") == 4
    # two entries of the third chapter of `changes`, four of `arrives`, none of `moved`
    assert house.count("select count(*) from era.embeddings") - embedded == 6
    assert "nothing new" in the_reason(house.tick(landing_sensor))


def test_a_book_that_is_still_written_is_waited_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh book is not taken before it has been quiet for ERA_SETTLE_S."""
    monkeypatch.setenv("ERA_SETTLE_S", "3600")
    write_book(house.landing, "fresh")
    assert "1 still being written" in the_reason(house.tick(landing_sensor))


def test_bad_input_never_stops_the_sensor(house: House) -> None:
    """A broken book is taken once, refused, and not asked for again; its neighbour loads."""
    write_book(house.landing, "good")
    broken = write_book(house.landing, "broken")
    (broken / "02_doctrine.json").write_text("{ no json", encoding="utf-8")
    (house.landing / "empty-folder").mkdir()
    result = house.load_what_arrived()
    assert result.success
    assert house.count("select count(*) from era.doctrine_sources") == 1
    assert house.count("select count(*) from era.quarantine where book = 'broken'") == 1
    reason = the_reason(house.tick(landing_sensor))
    assert "nothing new" in reason
    assert "empty-folder" in reason


def test_an_emptied_folder_removes_nothing(house: House) -> None:
    """A volume that is not mounted looks like a folder without books: they stay, and the reason says how to go on."""
    for name in ("one", "two"):
        write_book(house.landing, name)
    assert house.load_what_arrived().success
    house.landing.rename(house.landing.with_name("away"))
    house.landing.mkdir()
    for _ in range(2):
        reason = the_reason(house.tick(landing_sensor))
        assert "2 of 2 books are gone" in reason
        assert "era ingest --allow-removals" in reason
    assert house.count("select count(*) from era.doctrine_sources") == 2
    house.landing.rmdir()
    house.landing.with_name("away").rename(house.landing)
    assert "nothing new" in the_reason(house.tick(landing_sensor))


def test_most_of_many_books_are_not_removed_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven of twenty are kept, ten go; with ERA_MAX_REMOVED_SHARE=1 nothing is asked; new books load meanwhile."""
    for number in range(20):
        write_book(house.landing, f"book-{number:02}")
    assert house.load_what_arrived().success
    for number in range(11):
        shutil.rmtree(house.landing / f"book-{number:02}")
    assert "11 of 20 books are gone" in the_reason(house.tick(landing_sensor))
    write_book(house.landing, "arrives")
    assert house.load_what_arrived().success
    assert house.count("select count(*) from era.doctrine_sources") == 21
    write_book(house.landing, "book-00")
    assert house.load_what_arrived().success
    assert house.count("select count(*) from era.doctrine_sources") == 11
    shutil.rmtree(house.landing)
    house.landing.mkdir()
    monkeypatch.setenv("ERA_MAX_REMOVED_SHARE", "1")
    assert house.load_what_arrived().success
    assert house.count("select count(*) from era.doctrine_sources") == 0


def test_a_book_that_comes_back_while_its_removal_is_under_way_is_loaded_again(house: House) -> None:
    """The run takes it out, since it was asked to; the next tick sees it as new."""
    for name in ("stays", "flickers"):
        write_book(house.landing, name)
    assert house.load_what_arrived().success
    away = (house.landing / "flickers").rename(house.landing.parent / "away")
    request = the_request(house.tick(landing_sensor))
    away.rename(house.landing / "flickers")
    assert "nothing new" in the_reason(house.tick(landing_sensor))
    assert house.run("ingest", request).success
    assert house.count("select count(*) from era.doctrine_sources") == 1
    assert house.load_what_arrived().success
    assert house.count("select count(*) from era.doctrine_sources") == 2


def test_a_missing_landing_folder_is_a_reason_to_skip(house: House) -> None:
    """Before the folder is made, the sensor says so."""
    house.landing.rmdir()
    assert "no landing folder" in the_reason(house.tick(landing_sensor))


def test_no_second_run_while_one_is_at_work(house: House) -> None:
    """A book that arrives while the run before is still queued waits for its end."""
    write_book(house.landing, "first")
    request = the_request(house.tick(landing_sensor))
    house.instance.create_run_for_job(
        defs.resolve_job_def("ingest"),
        run_config=request.run_config,
        tags=request.tags,
        status=dg.DagsterRunStatus.STARTED,
    )
    write_book(house.landing, "second")
    assert "still at work" in the_reason(house.tick(landing_sensor))


def test_a_run_that_nobody_will_start_is_not_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon was killed before it put its run into the queue, and was away for over a day."""
    write_book(house.landing, "book")
    request = the_request(house.tick(landing_sensor))
    house.instance.create_run_for_job(
        defs.resolve_job_def("ingest"),
        run_config=request.run_config,
        tags=request.tags,
        status=dg.DagsterRunStatus.NOT_STARTED,
    )
    assert "still at work" in the_reason(house.tick(landing_sensor))
    later = time.time() + asking.LOST_AFTER.total_seconds() + 60.0
    monkeypatch.setattr(sensors, "time", SimpleNamespace(time=lambda: later))
    again = the_request(house.tick(landing_sensor))
    assert again.run_key != request.run_key
    assert house.run("ingest", again).success


def test_a_failed_run_is_asked_for_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure the same books are asked for with another run key, but not at once."""
    write_book(house.landing, "unlucky")
    request = the_request(house.tick(landing_sensor))
    monkeypatch.setenv("ERA_EMBEDDER", "openai")
    monkeypatch.setenv("ERA_EMBED_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ERA_EMBED_RETRY_BUDGET_S", "0")
    assert not house.run("ingest", request).success
    monkeypatch.setenv("ERA_EMBEDDER", "hashing")
    assert "asked again in" in the_reason(house.tick(landing_sensor))
    asked = Asked.from_cursor(house.cursors["landing_sensor"])
    house.cursors["landing_sensor"] = Asked(asked.digest, asked.attempt, not_before=0.0).to_cursor()
    again = the_request(house.tick(landing_sensor))
    assert again.run_key != request.run_key
    assert house.run("ingest", again).success


def test_ministers_follow_in_one_run(house: House) -> None:
    """Domains that changed are built in one run; then there is nothing to do; a dead domain's partition goes."""
    write_book(house.landing, "one", domains=("Ethics", "War"))
    write_book(house.landing, "two", domains=("Ethics",))
    assert house.load_what_arrived().success
    request = the_request(house.tick(ministers_sensor))
    result = house.run("ministers", request)
    assert result.success, [event.message for event in result.all_events if event.is_failure]
    assert {path.name for path in house.ministers.iterdir() if path.is_dir()} == {"ethics", "war"}
    assert set(house.instance.get_dynamic_partitions("domains")) == {"ethics", "war"}
    assert house.instance.get_materialized_partitions(dg.AssetKey("minister_files")) == {"ethics", "war"}
    assert house.instance.get_materialized_partitions(dg.AssetKey("domain_index")) == {"ethics", "war"}
    assert "up to date" in the_reason(house.tick(ministers_sensor))
    shutil.rmtree(house.landing / "one")
    assert house.load_what_arrived().success
    assert house.run("ministers", the_request(house.tick(ministers_sensor))).success
    assert {path.name for path in house.ministers.iterdir() if path.is_dir()} == {"ethics"}
    house.tick(ministers_sensor)
    assert house.instance.get_dynamic_partitions("domains") == ["ethics"]


def test_the_schedule_backfills_what_is_missing(house: House) -> None:
    """The nightly run loads what nobody loaded, and there is none where nothing is missing."""
    write_book(house.landing, "overlooked")
    with dg.build_schedule_context(
        instance=house.instance,
        scheduled_execution_time=datetime(2030, 1, 1, 3, tzinfo=UTC),
        resources={"era": EraResource()},
    ) as context:
        request = nightly_backfill(context)
        assert isinstance(request, dg.RunRequest)
        assert house.run("ingest", request).success
        assert house.count("select count(*) from era.doctrine_sources") == 1
        assert isinstance(nightly_backfill(context), dg.SkipReason)


def test_the_schedule_notices_another_model(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Books that another model embedded are stale."""
    write_book(house.landing, "book")
    assert house.load_what_arrived().success
    monkeypatch.setenv("ERA_EMBED_DIMENSIONS", "256")
    with dg.build_schedule_context(
        instance=house.instance,
        scheduled_execution_time=datetime(2030, 1, 1, 3, tzinfo=UTC),
        resources={"era": EraResource()},
    ) as context:
        assert isinstance(nightly_backfill(context), dg.RunRequest)


def test_a_cursor_of_somebody_else_is_no_obstacle() -> None:
    """A cursor that was edited by hand counts as none."""
    assert Asked.from_cursor("{oops") == Asked()
    assert Asked.from_cursor('{"digest": "x"}') == Asked()
    assert asking.Asked.from_cursor(Asked("d", 2, 3.0).to_cursor()) == Asked("d", 2, 3.0)
