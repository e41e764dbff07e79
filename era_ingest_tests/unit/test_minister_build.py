"""Minister files: their format, and that they follow from their rows alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import orjson
import pytest

from era_ingest.core.minister import (
    DOMAIN_FILES,
    DomainEncoder,
    DomainStatistics,
    MinisterEntry,
    build_combined,
    format_time,
)
from era_ingest.core.model import Category
from era_ingest_tests.minister_kit import build_domain

UPDATED = datetime(2026, 3, 4, 5, 6, 7, 890_000, tzinfo=UTC)


def _entry(number: int, category: Category = Category.RULE, **changes: Any) -> MinisterEntry:
    values: dict[str, Any] = {
        "id": str(UUID(int=number)),
        "text": f"Statement {number}",
        "book": "Book",
        "chapter": number,
        "category": category,
        "weight": 1.0,
        "embedding_id": str(UUID(int=number)),
    }
    return MinisterEntry(**(values | changes))


def test_category_file_has_the_format_of_the_contract() -> None:
    """Keys, their order and their values are what readers rely on."""
    files = build_domain(
        "war", [_entry(1, weight=0.5), _entry(2, embedding_id=None)], last_updated=UPDATED
    ).files
    content = orjson.loads(files["rules.json"])
    assert list(content) == ["domain", "category", "entries", "meta"]
    assert content["domain"] == "war"
    assert content["category"] == "rules"
    assert content["entries"] == [
        {
            "id": "00000000-0000-0000-0000-000000000001",
            "text": "Statement 1",
            "source": {"book": "Book", "chapter": 1},
            "weight": 0.5,
            "embedding_id": "00000000-0000-0000-0000-000000000001",
        },
        {
            "id": "00000000-0000-0000-0000-000000000002",
            "text": "Statement 2",
            "source": {"book": "Book", "chapter": 2},
            "weight": 1.0,
            "embedding_id": None,
        },
    ]
    assert content["meta"] == {
        "total_entries": 2,
        "last_updated": "2026-03-04T05:06:07Z",
        "aggregated_from": [{"book": "Book", "chapter": 1}, {"book": "Book", "chapter": 2}],
    }


def test_every_file_is_there_even_without_entries_of_its_category() -> None:
    """A reader that opens all four categories finds all four."""
    files = build_domain("war", [_entry(1)], last_updated=None).files
    assert tuple(files) == DOMAIN_FILES
    claims = orjson.loads(files["claims.json"])
    assert claims["entries"] == []
    assert claims["meta"] == {"total_entries": 0, "last_updated": None, "aggregated_from": []}


def test_summary_holds_the_four_lists_of_the_category_files() -> None:
    """The summary alone is the whole domain of one moment."""
    entries = [_entry(n, category) for n, category in enumerate(list(Category)[:4])]
    files = build_domain("war", entries, last_updated=UPDATED).files
    summary = orjson.loads(files["doctrine.json"])
    for name in ("principles", "rules", "claims", "warnings"):
        assert summary[name] == orjson.loads(files[f"{name}.json"])["entries"]
    assert len(summary["aggregated_from"]) == 4
    assert summary["meta"]["total_entries"] == 4


def test_domain_without_entries_has_no_files() -> None:
    """Nothing is written for a domain that nobody speaks of."""
    built = build_domain("war", [], last_updated=UPDATED)
    assert built.files == {}
    assert built.statistics.total_entries == 0


def test_statistics_count_entries_books_and_chapters() -> None:
    """Two chapters of one book and one of another are three chapters of two books."""
    entries = [_entry(1), _entry(2), _entry(2, Category.CLAIM, id=str(UUID(int=9)), embedding_id=None)]
    entries.append(_entry(1, book="Other", id=str(UUID(int=8))))
    assert build_domain("war", entries, last_updated=UPDATED).statistics == DomainStatistics(
        total_entries=4,
        principles=0,
        rules=3,
        claims=1,
        warnings=0,
        embedded_entries=3,
        total_books=2,
        total_chapters=3,
        last_updated="2026-03-04T05:06:07Z",
    )


def test_entries_out_of_order_are_refused() -> None:
    """Rows that the database sorted otherwise would make a file that is no JSON."""
    encoder = DomainEncoder("war", last_updated=None)
    encoder.add([_entry(1, Category.CLAIM)])
    with pytest.raises(ValueError, match="rule comes after claim"):
        encoder.add([_entry(2, Category.RULE)])


def test_combined_index_sums_up_and_leaves_out_empty_domains() -> None:
    """Domains come sorted with their counts, and the metadata sums over them."""
    war = build_domain("war", [_entry(1), _entry(2)], last_updated=UPDATED).statistics
    peace = build_domain("peace", [_entry(1)], last_updated=UPDATED + timedelta(days=1)).statistics
    empty = build_domain("love", [], last_updated=None).statistics
    content = orjson.loads(
        build_combined({"war": war, "love": empty, "peace": peace}, model="m/8", dimensions=8)
    )
    assert list(content) == ["domain", "combined", "domains_included", "domain_statistics", "metadata"]
    assert (content["domain"], content["combined"]) == ("all", True)
    assert content["domains_included"] == ["peace", "war"]
    assert content["domain_statistics"]["war"]["total_entries"] == 2
    assert content["metadata"]["total_entries"] == 3
    assert content["metadata"]["last_updated"] == "2026-03-05T05:06:07Z"


def test_combined_index_of_nothing_is_whole() -> None:
    """An installation without entries has an index that says so."""
    content = orjson.loads(build_combined({}, model=None, dimensions=None))
    assert content["domains_included"] == []
    assert content["metadata"]["last_updated"] is None


def test_times_are_in_utc_with_whole_seconds() -> None:
    """A time of another zone is shown in UTC; fractions are cut."""
    assert (
        format_time(datetime(2026, 1, 1, 1, 0, 0, 999_999, timezone(timedelta(hours=2))))
        == "2025-12-31T23:00:00Z"
    )
    assert format_time(None) is None
