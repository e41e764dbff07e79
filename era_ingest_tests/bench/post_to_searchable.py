"""Time from the post of a book until a search finds it, with its parts: ``era dev`` on an embedded server.

``python -m era_ingest_tests.bench.post_to_searchable [BOOKS]`` takes a minute and prints, for each part, median and
greatest over the books, posted one after another to an idle installation (``ERA_EMBEDDER=hashing``). The parts are
between what Dagster's own record says of the run:

    answered   the post, until its 202
    queued     until the run stood in Dagster's queue
    dequeued   until the daemon took it from there
    spawned    until the worker, a new process, had imported what it needs
    started    until it began with the run
    loaded     until the book's rows were committed and recorded
    ended      until the run's end (not waited for by a search)
    searchable from the post until a search over HTTP found it, asked every 50 ms
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg

from era_ingest.orchestration.instance import open_instance
from era_ingest.settings import load_settings
from era_ingest.store.embedded.waiting import Waiter
from era_ingest_tests.dagster.corpus import build_doctrine
from era_ingest_tests.dev_kit import Dev, running_dev
from era_ingest_tests.faults.kit import Installation

BOOKS = 7
PATIENCE_S = 120.0
_KINDS = {
    "queued": dg.DagsterEventType.RUN_ENQUEUED,
    "dequeued": dg.DagsterEventType.RUN_STARTING,
    "spawned": dg.DagsterEventType.ENGINE_EVENT,
    "started": dg.DagsterEventType.RUN_START,
    "loaded": dg.DagsterEventType.ASSET_MATERIALIZATION,
    "ended": dg.DagsterEventType.RUN_SUCCESS,
}


def measure(dev: Dev, instance: dg.DagsterInstance, name: str) -> dict[str, float]:
    """Post one book; return the seconds of each part."""
    posted = time.time()
    answer = dev.served.ask("POST", f"/v1/ingest?book={name}", build_doctrine(name))
    assert answer.status == 202, answer.body
    at = {"answered": time.time()}
    question = {"text": f"{name} holds that patience outlasts haste", "book": name, "k": 1}

    def is_found() -> bool:
        reply = dev.served.ask("POST", "/v1/search", question)
        return reply.status == 200 and bool(reply.json["results"])

    assert Waiter(sleep=lambda _: time.sleep(0.05)).until(is_found, PATIENCE_S)
    searchable = time.time() - posted
    run_id = answer.json["job_id"]
    is_over = lambda: instance.get_run_by_id(run_id).is_finished  # type: ignore[union-attr]  # noqa: E731
    assert Waiter().until(is_over, PATIENCE_S)
    for entry in instance.all_logs(run_id):
        for part, kind in _KINDS.items():
            event = entry.dagster_event
            if event is None or event.event_type is not kind:
                continue
            if part != "spawned" or (event.message or "").startswith("Started process for run"):
                at[part] = max(at.get(part, 0.0), entry.timestamp)
    parts, before = {}, posted
    for part in ("answered", *_KINDS):
        parts[part], before = at[part] - before, at[part]
    return {**parts, "searchable": searchable}


def main() -> None:
    """Print one line a part."""
    books = int(sys.argv[1]) if len(sys.argv) > 1 else BOOKS
    with tempfile.TemporaryDirectory() as folder:
        installation = Installation(Path(folder), None, {"ERA_EMBEDDER": "hashing"})
        with running_dev(installation) as dev:
            dev.wait_for_service()
            assert Waiter().until(dev.daemon_beats, PATIENCE_S)
            os.environ.pop("DAGSTER_HOME", None)
            with open_instance(load_settings(home=installation.home)) as instance:
                measure(dev, instance, "warm-up")
                found = [measure(dev, instance, f"book-{number}") for number in range(books)]
    for part in found[0]:
        seconds = [parts[part] for parts in found]
        sys.stdout.write(f"{part:10} {statistics.median(seconds):7.2f} s   greatest {max(seconds):7.2f} s\n")


if __name__ == "__main__":
    main()
