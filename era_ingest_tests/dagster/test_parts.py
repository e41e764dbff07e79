"""The small parts of the orchestration: targets, asking again, progress, pictures, tables."""

from __future__ import annotations

import base64
import struct

import dagster as dg
import pytest

from era_ingest.core.limiter import LimiterState
from era_ingest.orchestration.asking import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    Asked,
    Last,
    decide,
    digest_of,
)
from era_ingest.orchestration.metadata import MAX_TABLE_ROWS, markdown_table, run_metadata
from era_ingest.orchestration.partitions import (
    BOOKS,
    MAX_LISTED_KEYS,
    MAX_RANGE_KEYS,
    Target,
    build_target,
    range_tags,
    register,
    unregister,
)
from era_ingest.orchestration.picture import draw_run
from era_ingest.orchestration.progress import Observer
from era_ingest.pipelines.report import BookReport, BookStatus, IngestReport, Progress, Sample

KEYS = [f"k{number:05}" for number in range(6000)]


def test_neighbours_are_a_range() -> None:
    """Contiguous keys are asked for by tags, whatever order they are wanted in."""
    assert build_target(KEYS, {KEYS[5], KEYS[4], KEYS[6]}) == Target(tags=range_tags(KEYS[4], KEYS[6]))
    assert build_target(KEYS, {KEYS[9]}) == Target(tags={"dagster/partition": KEYS[9]})


def test_new_keys_stand_at_the_end() -> None:
    """Keys that are about to be added continue the range."""
    assert build_target(KEYS[:3], [KEYS[2], "x", "y"]) == Target(tags=range_tags(KEYS[2], "y"))


def test_gaps_are_listed_and_many_are_looked_up() -> None:
    """With a gap, or too many for a range, the config lists the books; beyond that the run finds them itself."""
    assert build_target(KEYS, {KEYS[1], KEYS[3]}) == Target(listed=(KEYS[1], KEYS[3]))
    assert build_target(KEYS, KEYS[: MAX_RANGE_KEYS + 1]).listed == tuple(KEYS[: MAX_RANGE_KEYS + 1])
    assert build_target(KEYS, KEYS[: MAX_LISTED_KEYS + 1]) == Target(everything=True)


def test_a_target_needs_books() -> None:
    """Nothing is no target."""
    with pytest.raises(ValueError, match="at least one"):
        build_target(KEYS, [])


def test_partitions_come_and_go_once() -> None:
    """Keys are added in order without repeats, and only those that are there are deleted."""
    with dg.DagsterInstance.ephemeral() as instance:
        assert register(instance, BOOKS, ["b", "a", "b"]) == 2
        assert register(instance, BOOKS, ["a", "c"]) == 1
        assert instance.get_dynamic_partitions("books") == ["b", "a", "c"]
        assert unregister(instance, BOOKS, ["a", "nobody"]) == 1
        assert instance.get_dynamic_partitions("books") == ["b", "c"]


def test_something_new_is_asked_for_at_once() -> None:
    """Another digest starts at attempt 0."""
    answer = decide(Asked("old", 4, 99.0), "new", Last.FAILED, now=10.0)
    assert answer.ask
    assert answer.asked == Asked("new", 0, 10.0 + FIRST_PAUSE_S)


def test_what_is_at_work_or_done_is_not_asked_for() -> None:
    """One run at a time, and none for what a run has dealt with."""
    asked = Asked("same", 0, 0.0)
    assert not decide(asked, "other", Last.AT_WORK, now=10.0).ask
    assert not decide(asked, "same", Last.DONE, now=10.0).ask


def test_pauses_after_failures_grow_to_an_hour() -> None:
    """Each attempt has a key of its own; the pauses double and end at the bound."""
    asked, now, keys, pauses = Asked("same", 0, 0.0), 0.0, set(), []
    for _ in range(12):
        answer = decide(asked, "same", Last.FAILED, now)
        assert answer.ask
        keys.add(answer.asked.run_key)
        pauses.append(answer.asked.not_before - now)
        assert not decide(answer.asked, "same", Last.FAILED, now + 1).ask
        asked, now = answer.asked, answer.asked.not_before
    assert len(keys) == 12
    assert pauses == sorted(pauses)
    assert pauses[0] == 2 * FIRST_PAUSE_S
    assert pauses[-1] == LONGEST_PAUSE_S


def test_a_digest_knows_no_order() -> None:
    """The same things in another order are the same; run-together texts are not."""
    assert digest_of(["a", "b"]) == digest_of(["b", "a"])
    assert digest_of(["ab"]) != digest_of(["a", "b"])


def test_observations_thin_out() -> None:
    """A run of a day that reports five times a second is observed fewer than forty times."""
    now = 0.0
    seen: list[dg.AssetObservation] = []
    observer = Observer(seen.append, clock=lambda: now)
    limiter = LimiterState(limit=8.0, in_flight=3, rate_per_s=None, held_by="pipe")
    progress = Progress(1, 4, texts_done=10, texts_expected=40, seconds_left=30.0, limiter=limiter)
    while now < 86_400:
        now += 0.2
        observer(progress)
    assert 20 < len(seen) < 40
    assert seen[0].asset_key == dg.AssetKey("embeddings")
    assert seen[0].metadata["requests in flight"].value == 3


def test_the_picture_is_a_png() -> None:
    """Enough requests are drawn as an image that Markdown shows; too few are not."""
    samples = [Sample(at_s=n / 10, latency_s=0.1 + n % 3 / 10, in_flight=n % 8, limit=8.0) for n in range(50)]
    picture = draw_run(samples)
    assert picture is not None
    data = base64.b64decode(picture.split("base64,")[1].rstrip(")"))
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (720, 360)
    assert len(data) < 100_000
    assert draw_run(samples[:3]) is None


def test_tables_are_bounded_and_cannot_be_broken_out_of() -> None:
    """Names with pipes, tags and line feeds stay in their cell; many rows are counted, not shown."""
    table = markdown_table(("name", "n"), [("a|b\n<script>", 1234567)] + [("x", 1)] * 40)
    lines = table.splitlines()
    assert lines[2] == r"| a\|b &lt;script> | 1,234,567 |"
    assert table.endswith(f"and {41 - MAX_TABLE_ROWS} more")


def test_refused_books_stand_first() -> None:
    """Who looks at a run's table sees what went wrong at once."""
    good = BookReport("good", "Good", BookStatus.LOADED, entries=100)
    bad = BookReport("bad", "Bad", BookStatus.REFUSED, error="It is no JSON.")
    report = IngestReport(books=[good, bad], seconds=2.0)
    table = str(run_metadata(report)["run: books"].value)
    assert table.index("Bad") < table.index("Good")
    assert "It is no JSON." in table
