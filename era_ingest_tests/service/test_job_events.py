"""Jobs as streams of server-sent events; the test is the daemon."""

from __future__ import annotations

import json
import threading
import time
from http.client import HTTPConnection
from typing import TYPE_CHECKING

from era_ingest.service.server import SHUTDOWN_S
from era_ingest_tests.service.jobs_kit import execute, post

if TYPE_CHECKING:
    import dagster as dg

    from era_ingest_tests.service_kit import Answer, Installation, Served


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
