"""Jobs over HTTP: the real service, database and Dagster instance; the test is the daemon."""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg
import pytest
from dagster._core.events import AssetObservationData
from dagster._core.execution.api import execute_run
from dagster._core.run_coordinator import QueuedRunCoordinator

from era_ingest.definitions import defs
from era_ingest.orchestration.instance import open_instance
from era_ingest.orchestration.jobs import JOB_TAG
from era_ingest.orchestration.partitions import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from era_ingest.orchestration.progress import build_observation
from era_ingest.orchestration.resources import EraResource
from era_ingest.orchestration.run_queue import open_run_queue
from era_ingest.orchestration.sensors import landing_sensor
from era_ingest.pipelines.jobs import Ticket
from era_ingest.pipelines.report import Progress
from era_ingest.service.server import SHUTDOWN_S
from era_ingest.settings import load_settings
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.dagster.corpus import build_doctrine, write_book

if TYPE_CHECKING:
    from collections.abc import Iterator

    from era_ingest_tests.service_kit import Answer, Installation, Served

BROKEN_ITEM = [{"chapter_index": 0, "domains": ["ethics"], "rules": ["Finish what was begun.", 17]}]


@pytest.fixture
def served(installation: Installation) -> Iterator[Served]:
    """A service without tokens."""
    with installation.serve() as opened:
        yield opened


@pytest.fixture
def instance(installation: Installation) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance that the service uses, as the daemon has it open."""
    with open_instance(load_settings(), capture_prints=False) as opened:
        yield opened


def post(served: Served, book: str, document: Any = None, **headers: str) -> Answer:
    """Hand in a book; None: made up from its name."""
    body = build_doctrine(book) if document is None else document
    return served.ask("POST", f"/v1/ingest?book={book}", body, headers=headers)


def execute(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Execute a run of the queue as a worker of the daemon would; return whether it succeeded."""
    run = queued(instance, run_id)
    starting = dg.DagsterEvent(dg.DagsterEventType.RUN_STARTING.value, run.job_name)
    instance.report_dagster_event(starting, run_id)
    started = instance.get_run_by_id(run_id)
    assert started is not None
    job = dg.reconstructable(ingest_job_for_workers)
    return execute_run(job, started, instance, raise_on_error=False).success


def queued(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    """Wait until a run stands in the queue; return it."""
    in_queue = dg.RunsFilter(run_ids=[run_id], statuses=[dg.DagsterRunStatus.QUEUED])
    assert Waiter().until(lambda: instance.get_runs_count(in_queue) == 1, 20)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


def ingest_job_for_workers() -> dg.JobDefinition:
    return defs.resolve_job_def("ingest")


def status(served: Served, job_id: str) -> dict[str, Any]:
    answer = served.ask("GET", f"/v1/jobs/{job_id}")
    assert answer.status == 200
    return dict(answer.json)


def test_a_book_is_accepted_loaded_and_searchable(
    served: Served, instance: dg.DagsterInstance, installation: Installation
) -> None:
    """202 with where to look; the file lies in the landing folder as it was sent; the job ends as succeeded."""
    document = build_doctrine("patience")
    answer = post(served, "patience", document)
    assert answer.status == 202
    accepted = answer.json
    job_id = accepted["job_id"]
    assert answer.headers["location"] == accepted["status_url"] == f"/v1/jobs/{job_id}"
    assert json.loads((installation.landing / "patience.json").read_text()) == document
    waiting = status(served, job_id)
    assert (waiting["state"], waiting["progress"], waiting["started_at"]) == ("queued", 0, None)
    assert execute(instance, job_id)
    done = status(served, job_id)
    assert (done["state"], done["progress"], done["quarantined"], done["error"]) == (
        "succeeded",
        100,
        0,
        None,
    )
    assert all(stage["seconds"] is not None for stage in done["stages"])
    assert {stage["name"]: (stage["done"], stage["total"]) for stage in done["stages"]} == {
        "books": (1, 1),
        "chunks": (1, 1),
        "embeddings": (4, 4),
        "vector_tables": (1, 1),
    }
    assert done["seconds"] > 0
    assert done["ended_at"] > done["started_at"]
    hit = served.ask("POST", "/v1/search", {"text": "patience outlasts haste", "k": 1}).json["results"][0]
    assert hit["book"] == "patience"
    assert hit["source"]["file"] == "patience.json"
    assert hit["source"]["run_id"] == job_id
    cancelled = served.ask("DELETE", f"/v1/jobs/{job_id}")
    assert (cancelled.status, cancelled.code) == (409, "ended")


def test_what_is_wrong_with_a_book_is_told_at_once_with_its_place(served: Served) -> None:
    """A book of which nothing can be loaded is refused by pointers; one that has good parts is taken with a warning."""
    refused = post(
        served, "bad", [{"chapter_index": 0, "domains": [], "rules": [17, {"x": 1}]}, "no chapter"]
    )
    assert (refused.status, refused.code) == (422, "book_refused")
    assert [error["pointer"] for error in refused.json["errors"]] == ["/0/rules/0", "/0/rules/1", "/1"]
    assert all(error["reason"] and error["detail"] for error in refused.json["errors"])
    for raw, reason in (
        (b'[{"chapter_index": 0', "truncated"),
        (b"{}", "no_chapters"),
        (b'"x"', "wrong_top_level"),
    ):
        answer = served.ask("POST", "/v1/ingest?book=bad", raw=raw)
        assert (answer.status, answer.code) == (422, "book_refused")
        assert [error["reason"] for error in answer.json["errors"]] == [reason]
    deep = served.ask("POST", "/v1/ingest?book=bad", raw=b"[" * 1_000)
    assert (deep.status, deep.code) == (422, "too_deep")
    assert post(served, "partly", BROKEN_ITEM).json["defects"][0]["pointer"] == "/0/rules/1"


def test_a_job_of_which_something_is_quarantined_ends_as_partly(
    served: Served, instance: dg.DagsterInstance
) -> None:
    """The same again, when nothing changed."""
    for _ in range(2):
        job_id = post(served, "partly", BROKEN_ITEM).json["job_id"]
        assert execute(instance, job_id)
        done = status(served, job_id)
        assert (done["state"], done["progress"], done["quarantined"]) == ("partly", 100, 1)


def test_no_name_leaves_the_landing_folder(served: Served, installation: Installation) -> None:
    """Paths, hidden names, line breaks and NULs are refused, posted or named; nothing is written."""
    paths = ["../evil", "a/b", "..", "a\\b", "%2e%2e%2fevil", "C:\\evil/x", "/etc/passwd"]
    unseen = [
        "a%00b",
        "a%0d%0aX-Evil:%201",
        "a%e2%80%a8b",
        ".hidden",
        "_private",
        "",
        "%20",
        "README",
        "x" * 300,
    ]
    for name in paths + unseen:
        for document in (build_doctrine("x"), None):
            answer = served.ask("POST", f"/v1/ingest?book={name}", document)
            assert answer.status == 422
            assert answer.code in {"unprocessable", "invalid_request"}
    assert not installation.landing.exists()
    assert installation.count("select count(*) from era.jobs") == 0


def test_a_book_comes_as_multipart_or_markdown_or_lies_there_already(
    served: Served, instance: dg.DagsterInstance, installation: Installation
) -> None:
    """A file is named by itself unless a name is given; a book of the landing folder by its name alone."""
    boundary = {"Content-Type": "multipart/form-data; boundary=xx"}
    head = b'--xx\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n'
    part = head + b"# One\n\nFinish it.\r\n--xx--\r\n"
    assert served.ask("POST", "/v1/ingest", raw=part % b"notes.md", headers=boundary).json["book"] == "notes"
    assert (installation.landing / "notes.md").read_bytes() == b"# One\n\nFinish it."
    assert (
        served.ask("POST", "/v1/ingest", raw=part % b"../../evil.md", headers=boundary).json["book"] == "evil"
    )
    assert {path.name for path in installation.landing.iterdir()} == {"notes.md", "evil.md"}
    for name, refusal in ((b"evil.exe", 415), (b"", 422), (b"..md", 422), (b".x.md", 422)):
        assert served.ask("POST", "/v1/ingest", raw=part % name, headers=boundary).status == refusal
    assert served.ask("POST", "/v1/ingest", raw=b"--yy--", headers=boundary).status in {400, 422}
    text = {"Content-Type": "text/plain; charset=utf-8"}
    assert served.ask("POST", "/v1/ingest?book=plain", raw=b"Finish it.", headers=text).status == 202
    write_book(installation.landing, "landed")
    landed = served.ask("POST", "/v1/ingest?book=landed").json
    assert execute(instance, landed["job_id"])
    assert status(served, landed["job_id"])["state"] == "succeeded"
    assert served.ask("POST", "/v1/ingest?book=nowhere").code == "not_found"
    assert served.ask("POST", "/v1/ingest").code == "unprocessable"
    other = post(served, "landed")
    assert (other.status, other.code) == (409, "other_form")
    assert (
        served.ask("POST", "/v1/ingest?book=x", raw=b"x", headers={"Content-Type": "image/png"}).status == 415
    )


def test_an_idempotency_key_makes_one_job_of_many_posts(
    served: Served, installation: Installation, instance: dg.DagsterInstance
) -> None:
    """Posted again, or at once by many, it is the same job; with another body it is a conflict."""
    key = {"Idempotency-Key": "order-66"}
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: post(served, "once", **key), range(8)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["job_id"] for answer in answers}) == 1
    assert sorted(answer.json["repeated"] for answer in answers) == [False] + [True] * 7
    changed = post(served, "once", build_doctrine("another"), **key)
    assert (changed.status, changed.code) == (409, "key_reused")
    assert installation.count("select count(*) from era.jobs") == 1
    queued(instance, answers[0].json["job_id"])
    assert installation.count("select count(*) from dagster.runs") == 1


def test_no_more_jobs_wait_than_may_however_many_are_posted_at_once(
    installation: Installation, instance: dg.DagsterInstance
) -> None:
    """Sixty at once through two services with room for seven: seven are accepted, the others come again later."""
    with (
        installation.serve(serve_max_waiting=7) as one,
        installation.serve(serve_max_waiting=7) as two,
        ThreadPoolExecutor(20) as threads,
    ):
        answers = list(threads.map(lambda n: post((one, two)[n % 2], f"book-{n}"), range(60)))
    accepted = [answer.json["job_id"] for answer in answers if answer.status == 202]
    refused = [answer for answer in answers if answer.status != 202]
    assert len(accepted) == 7
    assert {(answer.status, answer.code) for answer in refused} == {(503, "queue_full")}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    for job_id in accepted:
        queued(instance, job_id)
    assert installation.count("select count(*) from dagster.runs where status = 'QUEUED'") == 7
    assert installation.count("select count(*) from era.jobs where requested_at is not null") == 7
    assert len(list(installation.landing.iterdir())) == 7
    with installation.serve() as again:
        assert {job["state"] for job in again.ask("GET", "/v1/jobs").json["jobs"]} == {"queued"}


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


def observation(run: dg.DagsterRun, progress: Progress) -> dg.DagsterEvent:
    """Return the event that a run writes of how far it is."""
    data = AssetObservationData(build_observation(progress))
    return dg.DagsterEvent(
        dg.DagsterEventType.ASSET_OBSERVATION.value, run.job_name, event_specific_data=data
    )


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


def request_retry(instance: dg.DagsterInstance, run_id: str) -> str:
    """Put a retry of a failed run into the queue, with the tags that the daemon gives it."""
    parent = instance.get_run_by_id(run_id)
    assert parent is not None
    tags = {name: value for name, value in parent.tags.items() if name != "dagster/will_retry"}
    retry = instance.create_run_for_job(
        defs.resolve_job_def("ingest"),
        run_config=dict(parent.run_config),
        tags={**tags, "dagster/parent_run_id": run_id, "dagster/root_run_id": run_id},
        parent_run_id=run_id,
        root_run_id=run_id,
        remote_job_origin=parent.remote_job_origin,
        job_code_origin=parent.job_code_origin,
        status=dg.DagsterRunStatus.NOT_STARTED,
    )
    assert retry.tags[JOB_TAG] == run_id
    instance.add_run_tags(run_id, {"dagster/auto_retry_run_id": retry.run_id})
    instance.submit_run(retry.run_id, workspace=None)  # type: ignore[arg-type]
    return retry.run_id


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


def test_events_tell_each_change_and_end_with_the_job(served: Served, instance: dg.DagsterInstance) -> None:
    """The first event comes at once, the last is the job's end."""
    job_id = post(served, "followed").json["job_id"]
    seen: list[Answer] = []
    follower = threading.Thread(target=lambda: seen.append(served.ask("GET", f"/v1/jobs/{job_id}/events")))
    follower.start()
    assert execute(instance, job_id)
    follower.join(30)
    assert seen[0].headers["content-type"].startswith("text/event-stream")
    events = [
        json.loads(line[6:]) for line in seen[0].body.decode().splitlines() if line.startswith("data: ")
    ]
    assert [event["state"] for event in events][-1] == "succeeded"
    assert len({json.dumps({**e, "seconds": 0, "seconds_left": 0}) for e in events}) == len(events)
    assert served.ask("GET", "/v1/jobs/00000000-0000-0000-0000-000000000000/events").code == "not_found"


def test_a_follower_who_comes_back_is_told_what_changed(served: Served, instance: dg.DagsterInstance) -> None:
    """By the id of the event that was seen last: nothing twice, and nothing more once the end was seen."""
    job_id = post(served, "followed").json["job_id"]
    url = f"/v1/jobs/{job_id}/events"
    connection = HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request("GET", url)
    stream = connection.getresponse()
    seen = [stream.readline() for _ in range(3)][1]
    assert seen.startswith(b"id: ")
    connection.close()
    assert execute(instance, job_id)
    resumed = served.ask("GET", url, headers={"Last-Event-ID": seen[4:].decode().strip()})
    assert b'"state":"queued"' not in resumed.body
    last = [line for line in resumed.body.splitlines() if line.startswith(b"id: ")][-1]
    again = served.ask("GET", url, headers={"Last-Event-ID": last[4:].decode()})
    assert (again.status, again.body) == (204, b"")
    assert b'"state":"succeeded"' in served.ask("GET", url).body


def test_a_stream_ends_with_the_service(installation: Installation) -> None:
    """Whoever follows a job that waits sees the stream end in order, and does not hold the service up."""
    with installation.serve() as served:
        job_id = post(served, "waiting").json["job_id"]
        connection = HTTPConnection("127.0.0.1", served.port, timeout=60)
        connection.request("GET", f"/v1/jobs/{job_id}/events")
        stream = connection.getresponse()
        assert stream.readline() == b"event: job\n"
        told_at = time.monotonic()
    assert b'"state":"queued"' in stream.read()
    assert time.monotonic() - told_at < SHUTDOWN_S
    connection.close()


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
