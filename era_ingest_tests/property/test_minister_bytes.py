"""Minister files are a function of the set of entries."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson
from hypothesis import given
from hypothesis import strategies as st

from era_ingest.core.minister import MinisterEntry, build_domain
from era_ingest.core.model import DOCTRINE_CATEGORIES

if TYPE_CHECKING:
    import random

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
_ENTRIES = st.lists(
    st.builds(
        MinisterEntry,
        id=st.uuids(),
        text=_TEXTS,
        book=st.sampled_from(["A", "B", "Ä’s, book"]),
        chapter=st.integers(0, 3),
        category=st.sampled_from(DOCTRINE_CATEGORIES),
        weight=st.floats(0.001, 1000),
        embedding_id=st.none() | st.uuids(),
    ),
    max_size=12,
    unique_by=lambda entry: entry.id,
)
_TIMES = st.none() | st.integers(0, 4 * 10**9).map(lambda second: datetime.fromtimestamp(second, UTC))


@given(_ENTRIES, _TIMES, st.randoms(use_true_random=False))
def test_order_of_the_rows_does_not_matter(
    entries: list[MinisterEntry], updated: datetime | None, shuffle: random.Random
) -> None:
    """The same entries in any order give the same bytes."""
    shuffled = list(entries)
    shuffle.shuffle(shuffled)
    assert build_domain("war", entries, last_updated=updated) == build_domain(
        "war", shuffled, last_updated=updated
    )


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
        wanted = {str(entry.id): entry for entry in entries if entry.category is category}
        assert len(found["entries"]) == found["meta"]["total_entries"] == len(wanted)
        for item in found["entries"]:
            entry = wanted[item["id"]]
            assert (item["text"], item["weight"]) == (entry.text, entry.weight)
            assert item["source"] == {"book": entry.book, "chapter": entry.chapter}
        assert summary[category.plural] == found["entries"]
