"""Minister files are a function of the set of entries."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
from hypothesis import given
from hypothesis import strategies as st

from era_ingest.core.minister import MinisterEntry
from era_ingest.core.model import DOCTRINE_CATEGORIES
from era_ingest_tests.minister_kit import build_domain

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
_ENTRIES = st.lists(
    st.builds(
        MinisterEntry,
        id=st.uuids().map(str),
        text=_TEXTS,
        book=st.sampled_from(["A", "B", "Ä’s, book"]),
        chapter=st.integers(0, 3),
        category=st.sampled_from(DOCTRINE_CATEGORIES),
        weight=st.floats(0.001, 1000),
        embedding_id=st.none() | st.uuids().map(str),
    ),
    max_size=12,
    unique_by=lambda entry: entry.id,
)
_TIMES = st.none() | st.integers(0, 4 * 10**9).map(lambda second: datetime.fromtimestamp(second, UTC))


@given(_ENTRIES, _TIMES, st.integers(1, 5))
def test_how_the_rows_are_cut_does_not_matter(
    entries: list[MinisterEntry], updated: datetime | None, batch: int
) -> None:
    """The same entries, so many at a time or all at once, give the same bytes."""
    whole = build_domain("war", entries, last_updated=updated, batch=100)
    assert build_domain("war", entries, last_updated=updated, batch=batch) == whole


@given(_ENTRIES, _TIMES)
def test_the_bytes_are_those_of_one_indented_dump(
    entries: list[MinisterEntry], updated: datetime | None
) -> None:
    """What was put together from pieces is what a JSON library writes at once."""
    for payload in build_domain("war", entries, last_updated=updated).files.values():
        whole = orjson.dumps(orjson.loads(payload), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        assert payload == whole


@given(_ENTRIES, _TIMES)
def test_every_entry_stands_in_one_category_file_and_in_the_summary(
    entries: list[MinisterEntry], updated: datetime | None
) -> None:
    """Nothing is lost, doubled or changed on the way to the files, whatever the texts hold."""
    files = build_domain("war", entries, last_updated=updated).files
    if not entries:
        assert files == {}
        return
    summary = orjson.loads(files["doctrine.json"])
    for category in DOCTRINE_CATEGORIES:
        found = orjson.loads(files[f"{category.plural}.json"])
        wanted = {entry.id: entry for entry in entries if entry.category is category}
        assert len(found["entries"]) == found["meta"]["total_entries"] == len(wanted)
        for item in found["entries"]:
            entry = wanted[item["id"]]
            assert (item["text"], item["weight"]) == (entry.text, entry.weight)
            assert item["source"] == {"book": entry.book, "chapter": entry.chapter}
        assert summary[category.plural] == found["entries"]
