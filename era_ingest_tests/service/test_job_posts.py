"""Books handed in over HTTP: what is taken, what is refused, and what becomes of it; the test is the daemon."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from era_ingest_tests.dagster.corpus import build_doctrine, write_book
from era_ingest_tests.service.jobs_kit import execute, post, queued, status

if TYPE_CHECKING:
    import dagster as dg

    from era_ingest_tests.service_kit import Installation, Served

BROKEN_ITEM = [{"chapter_index": 0, "domains": ["ethics"], "rules": ["Finish what was begun.", 17]}]


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
