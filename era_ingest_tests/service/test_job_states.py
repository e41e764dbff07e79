"""How a job stands, over retries, cancelling, crashes and restarts; the test is the daemon."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import dagster as dg
import psycopg
import pytest
from dagster._core.events import AssetObservationData
from dagster._core.run_coordinator import QueuedRunCoordinator

from era_ingest.definitions import defs
from era_ingest.orchestration.partitions import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from era_ingest.orchestration.progress import build_observation
from era_ingest.orchestration.resources import EraResource
from era_ingest.orchestration.run_queue import open_run_queue
from era_ingest.orchestration.sensors import landing_sensor
from era_ingest.pipelines.jobs import Ticket
from era_ingest.pipelines.report import Progress
from era_ingest.settings import load_settings
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.dagster.corpus import build_doctrine, write_book
from era_ingest_tests.service.jobs_kit import execute, post, queued, request_retry, status

if TYPE_CHECKING:
    from era_ingest_tests.service_kit import Installation, Served


def test_a_queued_job_is_cancelled(served: Served, instance: dg.DagsterInstance) -> None:
    """Its run leaves the queue; what was never there cannot be cancelled."""
    job_id = post(served, "unwanted").json["job_id"]
    assert served.ask("DELETE", f"/v1/jobs/{job_id}").json["state"] == "cancelled"
    run = instance.get_run_by_id(job_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.CANCELED
    for method in ("GET", "DELETE"):
        unknown = served.ask(method, "/v1/jobs/00000000-0000-0000-0000-000000000000")
        assert (unknown.status, unknown.code) == (404, "not_found")
        assert served.ask(method, "/v1/jobs/..%2f..%2fetc").code in {"not_found", "invalid_request"}


def test_a_job_is_followed_over_its_retries_and_over_a_restart(
    installation: Installation, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed run tells why; while another is due the job waits; the retry ends it, under the same id."""
    with installation.serve() as served:
        job_id = post(served, "unlucky").json["job_id"]
        monkeypatch.setenv("ERA_EMBEDDER", "openai")
        monkeypatch.setenv("ERA_EMBED_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("ERA_EMBED_API_KEY", "sk-secret")
        monkeypatch.setenv("ERA_EMBED_MAX_TOKENS", "1")
        assert not execute(instance, job_id)
        failed = status(served, job_id)
        assert failed["state"] == "failed"
        assert "Traceback" not in failed["error"]
        assert "ERA_EMBED_MAX_TOKENS" in failed["error"]
    instance.add_run_tags(job_id, {"dagster/will_retry": "true"})
    for name in ("ERA_EMBED_URL", "ERA_EMBED_API_KEY", "ERA_EMBED_MAX_TOKENS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("ERA_EMBEDDER", "hashing")
    with installation.serve() as served:
        assert status(served, job_id)["state"] == "queued"
        retry_id = request_retry(instance, job_id)
        assert status(served, job_id)["attempts"] == 2
        assert execute(instance, retry_id)
        done = status(served, job_id)
        assert (done["state"], done["attempts"], done["run_id"]) == ("succeeded", 2, retry_id)
        assert done["error"] is None


def test_progress_never_goes_back(served: Served, instance: dg.DagsterInstance) -> None:
    """Neither where the estimate of what is to do grows, nor when a run failed and the next one begins anew."""
    job_id = post(served, "large").json["job_id"]
    run = queued(instance, job_id)
    steps = [dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name)]
    steps += [
        observation(run, Progress(0, 1, texts_done=40, texts_expected=expected)) for expected in (80, 160)
    ]
    told = []
    for step in steps:
        instance.report_dagster_event(step, job_id)
        told.append(status(served, job_id))
    assert [one["progress"] for one in told] == [0, 50, 50]
    assert {one["state"] for one in told} == {"running"}
    embeddings = told[-1]["stages"][2]
    assert (embeddings["name"], embeddings["done"], embeddings["total"]) == ("embeddings", 40, 160)
    assert embeddings["started_at"] == told[-1]["started_at"]
    instance.report_run_failed(run)
    instance.add_run_tags(job_id, {"dagster/will_retry": "true"})
    assert (status(served, job_id)["state"], status(served, job_id)["progress"]) == ("queued", 50)
    retry_id = request_retry(instance, job_id)
    assert status(served, job_id)["progress"] == 50
    assert execute(instance, retry_id)
    assert status(served, job_id)["progress"] == 100


def observation(run: dg.DagsterRun, progress: Progress) -> dg.DagsterEvent:
    """Return the event that a run writes of how far it is."""
    data = AssetObservationData(build_observation(progress))
    return dg.DagsterEvent(
        dg.DagsterEventType.ASSET_OBSERVATION.value, run.job_name, event_specific_data=data
    )


def test_a_failure_is_none_before_it_is_known_whether_it_is_tried_again(
    served: Served, instance: dg.DagsterInstance
) -> None:
    """Dagster notes the failure first and its decision after: whoever looks between sees a job that waits."""
    job_id = post(served, "killed").json["job_id"]
    run = queued(instance, job_id)
    instance.report_run_failed(run)
    assert status(served, job_id)["state"] == "queued"  # it is to be tried again
    with psycopg.connect(os.environ["ERA_DATABASE_URL"]) as connection:
        tag = (job_id, "dagster/will_retry")
        connection.execute("delete from dagster.run_tags where run_id = %s and key = %s", tag)
        body = connection.execute("select run_body from dagster.runs where run_id = %s", (job_id,)).fetchone()
        assert body is not None
        undecided = json.loads(body[0])
        del undecided["tags"]["dagster/will_retry"]
        connection.execute(
            "update dagster.runs set run_body = %s where run_id = %s", (json.dumps(undecided), job_id)
        )
    assert status(served, job_id)["state"] == "queued"
    instance.add_run_tags(job_id, {"dagster/will_retry": "false"})
    assert status(served, job_id)["state"] == "failed"


def test_a_posted_book_is_left_to_its_job(
    served: Served, instance: dg.DagsterInstance, installation: Installation
) -> None:
    """The landing sensor asks for no run of it while its job waits or works, nor once that was cancelled."""
    loaded, cancelled = (post(served, name).json["job_id"] for name in ("loaded", "cancelled"))
    for job_id in (loaded, cancelled):
        queued(instance, job_id)
    write_book(installation.landing, "laid-down")
    assert wanted(instance) == {"laid-down"}
    assert execute(instance, loaded)
    assert served.ask("DELETE", f"/v1/jobs/{cancelled}").json["state"] == "cancelled"
    assert wanted(instance) == {"laid-down"}
    with (installation.landing / "cancelled.json").open("w") as file:
        json.dump(build_doctrine("cancelled", chapters=3), file)
    assert wanted(instance) == {"cancelled", "laid-down"}


def wanted(instance: dg.DagsterInstance) -> set[str]:
    """Return the books for which the landing sensor would ask a run now."""
    with dg.build_sensor_context(
        instance=instance, sensor_name=landing_sensor.name, resources={"era": EraResource()}
    ) as context:
        result = landing_sensor(context)
    assert isinstance(result, dg.SensorResult), result
    assert result.run_requests is not None
    (request,) = result.run_requests
    listed = request.run_config["ops"]["load_books"]["config"]["books"]
    if listed:
        return set(listed)
    if key := request.tags.get(PARTITION_TAG):
        return {key}
    added = [r.partition_keys for r in result.dynamic_partitions_requests or []]
    keys = [*instance.get_dynamic_partitions("books"), *(key for keys in added for key in keys)]
    first, last = (keys.index(request.tags[tag]) for tag in (RANGE_START_TAG, RANGE_END_TAG))
    return set(keys[first : last + 1])


def test_jobs_are_listed_by_state_and_book_page_by_page(served: Served) -> None:
    """The latest first; every job on exactly one page."""
    ids = [post(served, f"book-{number % 2}").json["job_id"] for number in range(5)]
    served.ask("DELETE", f"/v1/jobs/{ids[1]}")
    seen: list[str] = []
    url: str | None = "/v1/jobs?limit=2"
    while url:
        listed = served.ask("GET", url).json
        seen += [job["job_id"] for job in listed["jobs"]]
        url = listed["next"]
    assert seen == ids[::-1]
    first = served.ask("GET", "/v1/jobs?limit=2").json
    post(served, "arrives-between-two-pages")
    rest = served.ask("GET", first["next"].replace("limit=2", "limit=100")).json
    assert [job["job_id"] for job in (*first["jobs"], *rest["jobs"])] == ids[::-1]

    def listing(query: str) -> list[str]:
        return [job["job_id"] for job in served.ask("GET", f"/v1/jobs?{query}").json["jobs"]]

    assert listing("state=cancelled") == [ids[1]]
    assert listing("state=queued&limit=1&book=book-0") == [ids[4]]
    assert listing("book=book-1&state=queued") == [ids[3]]
    assert listing("book=%27;drop%20table%20era.jobs;--%00") == []
    assert len(listing("limit=100")) == 6
    assert served.ask("GET", "/v1/jobs?state=done").code == "invalid_request"
    assert served.ask("GET", "/v1/jobs?limit=1000").code == "invalid_request"


def test_what_a_crash_left_behind_is_completed_or_forgotten(
    installation: Installation, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job whose run was not made, or made and not queued, is queued; one whose book was not placed is forgotten."""
    key = {"Idempotency-Key": "k"}
    with installation.serve() as served:
        jobs = {name: post(served, name).json["job_id"] for name in ("unmade", "unqueued")}
        lost = post(served, "lost", **key).json["job_id"]
        for job_id in (*jobs.values(), lost):
            queued(instance, job_id)
    for job_id in (*jobs.values(), lost):
        instance.delete_run(job_id)
    with psycopg.connect(installation.url) as connection:
        connection.execute(
            "update era.jobs set requested_at = null, accepted_at = now() - interval '2 minutes'"
        )
        connection.execute("update era.jobs set placed_at = null where id = %s", (lost,))
    with open_run_queue(load_settings(), defs) as queue, monkeypatch.context() as patch:
        patch.setattr(QueuedRunCoordinator, "submit_run", killed)
        with pytest.raises(KeyboardInterrupt):
            queue.request(Ticket(jobs["unqueued"], "unqueued", 0))
    with installation.serve() as served:
        for job_id in jobs.values():
            queued(instance, job_id)
            assert status(served, job_id)["state"] == "queued"
        left = "select count(*) from era.jobs where requested_at is null"
        assert Waiter().until(lambda: installation.count(left) == 0, 20)
        assert served.ask("GET", f"/v1/jobs/{lost}").code == "not_found"
        assert post(served, "lost", **key).json["repeated"] is False


def killed(*_: object, **__: object) -> None:
    """Stand in for what a crash kept from happening."""
    raise KeyboardInterrupt
