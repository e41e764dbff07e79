"""Jobs outlive everything: all programs of an installation are killed at once, again and again, and started anew.

The programs are the real ones, on an embedded database: ``era serve`` and ``era dev``.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from era_ingest.store.embedded import hold, status
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.dagster.corpus import build_doctrine
from era_ingest_tests.dev_kit import ROOT, Dev, family, free_port, kill_all, running_dev
from era_ingest_tests.faults.kit import Installation
from era_ingest_tests.service_kit import Served
from era_ingest_tests.webhook_server import running_webhook

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from era_ingest_tests.service_kit import Answer

PATIENCE_S = 400.0
LEAVE_S = 60.0
ENDED = {"succeeded", "partly", "failed", "cancelled"}
PARTLY = [{"chapter_index": 0, "domains": ["ethics"], "rules": ["Finish what was begun.", 17]}]


def post(served: Served, number: int) -> Answer | None:
    """Post a book under a key of its own; None: the connection broke. Every fifth book is good in part."""
    name = f"book-{number:03}"
    document: Any = (
        build_doctrine(name) if number % 5 else [{**PARTLY[0], "rules": [f"{name} finishes.", 17]}]
    )
    with suppress(OSError):
        return served.ask("POST", f"/v1/ingest?book={name}", document, headers={"Idempotency-Key": name})
    return None


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("posts", "room", "kills", "database"),
    [
        pytest.param(24, 2, 1, True, id="short"),
        pytest.param(100, 20, 6, False, id="programs", marks=pytest.mark.slow),
        pytest.param(100, 20, 6, True, id="database-too", marks=pytest.mark.slow),
    ],
)
def test_every_accepted_job_ends_under_its_id(
    tmp_path: Path, posts: int, room: int, kills: int, database: bool
) -> None:
    """As many are accepted as there is room for; whatever is killed, each ends as it should, its book loaded once."""
    rng = random.Random(posts + database)
    limits = {"ERA_EMBEDDER": "hashing", "ERA_SERVE_MAX_WAITING": str(room)}
    installation = Installation(tmp_path, None, limits)
    jobs = post_at_once(installation, posts, room)
    assert {path.stem for path in installation.landing.iterdir()} == {name_of(number) for number in jobs}
    for number in range(kills):
        dev = Dev(installation)
        dev.wait_for_service()
        wait_for_work(dev.served, jobs.values())
        time.sleep(rng.uniform(0.0, 3.0) if number else 0.0)  # all moments but the first are drawn
        assert kill_all(installation, database=database) >= 6
        dev.process.wait(LEAVE_S)
    with running_dev(installation) as dev:
        dev.wait_for_service()
        for job in jobs.values():
            assert have_ended(dev.served, [job]), story(dev, job)
        for number, job in jobs.items():
            ended = dev.served.ask("GET", f"/v1/jobs/{job}").json
            wanted = "succeeded" if number % 5 else "partly"
            assert (ended["state"], ended["progress"], ended["job_id"]) == (wanted, 100, job), story(dev, job)
            again = post(dev.served, number)
            assert again is not None
            assert (again.status, again.json["job_id"], again.json["repeated"]) == (202, job, True)
        assert len(dev.served.ask("GET", "/v1/jobs?limit=100").json["jobs"]) == len(jobs)
        check_tables(installation, jobs)
        dev.process.kill()  # what it started ends by itself
        assert Waiter().until(lambda: not family(installation), LEAVE_S), family(installation)
    assert Waiter().until(lambda: not status(installation.home).running, LEAVE_S)


def wait_for_work(served: Served, jobs: Collection[str]) -> None:
    """Wait until a worker began with one of the jobs that have not ended, or all have."""

    def is_at_work() -> bool:
        with suppress(OSError):
            found = [served.ask("GET", f"/v1/jobs/{job}") for job in jobs]
            bodies = [answer.json for answer in found if answer.status == 200]
            left = [body for body in bodies if body["state"] not in ENDED]
            return len(bodies) == len(jobs) and (not left or any(body["started_at"] for body in left))
        return False

    assert Waiter().until(is_at_work, PATIENCE_S)


def have_ended(served: Served, jobs: Collection[str]) -> bool:
    return Waiter().until(lambda: ENDED.issuperset(state_of(served, job) for job in jobs), PATIENCE_S)


def post_at_once(installation: Installation, posts: int, room: int) -> dict[int, str]:
    """Post many books at once to ``era serve``, kill it after the last answer; return the accepted jobs by number."""
    served = Served(free_port())
    command = [sys.executable, "-m", "era_ingest", "serve", "--port", str(served.port)]
    with (
        installation.log.open("ab") as log,
        subprocess.Popen(
            command, cwd=ROOT, env=installation.environment(), stdout=log, stderr=log
        ) as program,
        ThreadPoolExecutor(posts) as threads,
    ):
        try:
            assert Waiter().until(lambda: is_ready(served), PATIENCE_S), installation.log.read_text()[-3000:]
            answers = list(threads.map(lambda number: post(served, number), range(posts)))
        finally:
            program.kill()
    assert None not in answers
    told = {number: answer for number, answer in enumerate(answers) if answer is not None}
    accepted = {number: str(a.json["job_id"]) for number, a in told.items() if a.status == 202}
    refused = [answer for answer in told.values() if answer.status != 202]
    assert len(accepted) == room
    assert {(answer.status, answer.code) for answer in refused} == {(503, "queue_full")}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    return accepted


def is_ready(served: Served) -> bool:
    with suppress(OSError):
        return served.ask("GET", "/readyz").status == 200
    return False


def state_of(served: Served, job: str) -> str | None:
    """Return a job's state; None while nobody answers."""
    with suppress(OSError):
        answer = served.ask("GET", f"/v1/jobs/{job}")
        return str(answer.json["state"]) if answer.status == 200 else None
    return None


def story(dev: Dev, job: str) -> str:
    """Return what there is to know of a job that did not end as it should."""
    told = dev.served.ask("GET", f"/v1/jobs/{job}").body.decode()
    return f"{told}\n{dev.installation.log.read_text()[-6000:]}"


def name_of(number: int) -> str:
    return f"book-{number:03}"


def check_tables(installation: Installation, jobs: dict[int, str]) -> None:
    """The accepted books are there, each statement of them once, and nothing else."""
    with hold(installation.home) as lease, psycopg.connect(lease.url) as connection:
        rows = connection.execute(
            "select book, count(*), count(distinct id) from era.doctrine_embeddings_all group by 1"
        )
        found = {book: (count, distinct) for book, count, distinct in rows}
        sources = connection.execute("select book from era.doctrine_sources order by 1").fetchall()
    wanted = {name_of(number): (4, 4) if number % 5 else (1, 1) for number in jobs}
    assert found == wanted
    assert [book for (book,) in sources] == sorted(wanted)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_who_is_on_call_is_told_by_the_daemon(tmp_path: Path) -> None:
    """A job whose book vanished fails and is told, over a webhook that hangs at first; so is that no book came."""
    with running_webhook() as hook:
        late = {"ERA_ALERT_WEBHOOK": hook.url, "ERA_ALERT_FORMAT": "json", "ERA_ALERT_LATE_H": "0.02"}
        installation = Installation(tmp_path, None, {"ERA_EMBEDDER": "hashing", **late})
        hook.behaviour = "hang"
        with running_dev(installation) as dev:
            dev.wait_for_service()
            cursor = (
                "select count(*) from dagster.job_ticks where selector_id is not null and tick_body like %s"
            )
            assert Waiter().until(
                lambda: count(installation, cursor, "%what fails from now on is told%") > 0, PATIENCE_S
            )
            failing = post_and_remove(dev, installation, "vanishes")
            assert Waiter().until(lambda: hook.attempts > 0, PATIENCE_S)
            answer = dev.served.ask("POST", "/v1/ingest?book=stays", build_doctrine("stays"))
            loaded = str(answer.json["job_id"])
            assert Waiter().until(lambda: state_of(dev.served, loaded) == "succeeded", PATIENCE_S)
            hook.behaviour = 200
            hook.released.set()
            assert Waiter().until(lambda: kinds(hook.bodies) >= {"run_failed", "asset_late"}, PATIENCE_S), (
                hook.bodies
            )
            dev.served.ask("POST", "/v1/ingest?book=comes", build_doctrine("comes"))
            assert Waiter().until(lambda: "asset_fresh" in kinds(hook.bodies), PATIENCE_S), hook.bodies
    told = [body for body in hook.bodies if body["kind"] == "run_failed"]
    assert [body["job_id"] for body in told] == [failing]
    assert [body["kind"] for body in hook.bodies].count("asset_late") <= 2


def kinds(bodies: list[dict[str, Any]]) -> set[str]:
    return {str(body["kind"]) for body in bodies}


def count(installation: Installation, query: str, *values: str) -> int:
    with psycopg.connect(status(installation.home).url or "") as connection:
        row = connection.execute(query.encode(), values).fetchone()
        assert row is not None
        return int(row[0])


def post_and_remove(dev: Dev, installation: Installation, name: str) -> str:
    """Post a book and take its file away before its run gets there; return the job."""
    job = str(dev.served.ask("POST", f"/v1/ingest?book={name}", build_doctrine(name)).json["job_id"])
    (installation.landing / f"{name}.json").unlink()
    assert Waiter().until(lambda: state_of(dev.served, job) == "failed", PATIENCE_S)
    return job
