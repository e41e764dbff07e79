from __future__ import annotations

import pytest

from era_ingest.core.items import ParseRules
from era_ingest.core.json_document import RawFile
from era_ingest.core.limits import InputLimits
from era_ingest.core.model import Category, Entry
from era_ingest.core.names import DomainNames
from era_ingest_tests.unit.doctrine_kit import (
    GOOD,
    book_of,
    chapter_with,
    defects_in,
    parse_book,
    parse_doctrine,
)


def test_a_chapter_is_read_whole() -> None:
    """Title, domains, the four categories in order, cleaned; unknown keys are no matter."""
    book = book_of(
        chapter_with(
            chapter_title=" The\nTitle ",
            domains=["Risk", "decision-making", "risk"],
            principles=["One  thing."],
            rules=["Two."],
            claims=["Three."],
            warnings=["Four."],
            _meta={"any": "thing"},
        )
    )
    (chapter,) = book.chapters
    assert (book.name, book.slug[:7], book.title) == ("A Book", "a-book-", None)
    assert (chapter.title, chapter.domains, chapter.text) == ("The Title", ("decision_making", "risk"), "")
    assert chapter.entries == (
        Entry(Category.PRINCIPLE, "One thing."),
        Entry(Category.RULE, "Two."),
        Entry(Category.CLAIM, "Three."),
        Entry(Category.WARNING, "Four."),
    )
    assert not book.defects
    assert book.entry_count == 4


@pytest.mark.parametrize("key", ["text", "statement", "extraction", "rule", "generalized"])
def test_an_item_may_be_an_object(key: str) -> None:
    """The statement stands under one of five keys; a weight may stand beside it."""
    book = book_of(chapter_with(rules=[{key: "A statement.", "example": "ignored", "weight": 2}]))
    assert book.chapters[0].entries == (Entry(Category.RULE, "A statement.", 2.0),)
    assert not book.defects


def test_a_blank_statement_gives_way_to_the_next_key() -> None:
    """An empty ``text`` does not hide what stands under ``statement``."""
    book = book_of(chapter_with(rules=[{"text": " ", "statement": "The statement."}]))
    assert [entry.text for entry in book.chapters[0].entries] == ["The statement."]


@pytest.mark.parametrize(
    "item", [None, 3, 1.5, True, [], ["a list"], {}, {"text": 3}, {"claim": "of another category"}, [[[[]]]]]
)
def test_an_item_of_unknown_shape_is_a_defect(item: object) -> None:
    """It is named by its pointer, and its neighbours load."""
    book = book_of(chapter_with(rules=["Before.", item, "After."]))
    assert [entry.text for entry in book.chapters[0].entries] == ["Before.", "After."]
    assert defects_in(book) == [("/0/rules/1", "unknown_item_shape")]
    assert book.defects[0].file == "doctrine.json"


@pytest.mark.parametrize("text", ["", "  \n", "\0\0", "\ud800", "\u200b\xad"])
def test_a_text_of_which_nothing_is_left_is_a_defect(text: str) -> None:
    """Empty before or after cleaning."""
    book = book_of(chapter_with(claims=[text, "After."]), GOOD)
    assert defects_in(book) == [("/0/claims/0", "empty_text")]
    assert book.entry_count == 2


def test_nul_and_lone_surrogates_are_removed_and_counted() -> None:
    """The text loads without them."""
    book = book_of(chapter_with(claims=["a\0b\ud800c"]))
    assert book.chapters[0].entries[0].text == "abc"
    assert (book.cleaning.nul, book.cleaning.surrogates, book.cleaning.texts_changed) == (1, 1, 1)


def test_equal_texts_in_a_category_are_one_entry() -> None:
    """Cleaning decides what is equal; another category is another entry."""
    book = book_of(chapter_with(rules=["Same  text.", "Same text."], claims=["Same text."]))
    assert [entry.category for entry in book.chapters[0].entries] == [Category.RULE, Category.CLAIM]
    assert not book.defects


@pytest.mark.parametrize("value", ["one", {"text": "one"}, 3])
def test_a_category_that_is_no_list(value: object) -> None:
    """A lone text counts as a list of one; anything else is a defect."""
    book = book_of(chapter_with(rules=value), GOOD)
    if value == "one":
        assert book.chapters[0].entries == (Entry(Category.RULE, "one"),)
    else:
        assert defects_in(book) == [("/0/rules", "category_not_list")]
    assert book.chapters[1].entries


@pytest.mark.parametrize(
    "weight", ["NaN", "1e999", "-Infinity", "-1", "0", "1e-9", '"heavy"', "true", "[]", "9" * 5000]
)
def test_a_weight_that_is_none_is_one_and_a_defect(weight: str) -> None:
    """The entry loads with weight 1."""
    data = f'[{{"chapter_index": 1, "rules": [{{"text": "A rule.", "weight": {weight}}}]}}]'
    book = parse_doctrine("b", RawFile("f", data.encode()), None)
    assert book.chapters[0].entries == (Entry(Category.RULE, "A rule.", 1.0),)
    assert defects_in(book) == [("/0/rules/0/weight", "bad_weight")]


@pytest.mark.parametrize("weight", [None, 1, 0.25, "0.5"])
def test_a_weight_may_be_a_number_or_figures(weight: object) -> None:
    """Null is 1; a number in quotes is a number."""
    book = book_of(chapter_with(rules=[{"text": "A rule.", "weight": weight}]))
    assert book.chapters[0].entries[0].weight == float(weight or 1)  # type: ignore[arg-type]
    assert not book.defects


@pytest.mark.parametrize("domains", [None, [], {"domains": None}])
def test_a_chapter_without_domains_is_base(domains: object) -> None:
    """No domains, an empty list, no key at all."""
    book = book_of({"chapter_index": 1} if isinstance(domains, dict) else chapter_with(domains=domains))
    assert book.chapters[0].domains == ("base",)
    assert not book.defects


@pytest.mark.parametrize(
    ("domain", "reason"),
    [
        ({"name": "risk"}, "domain_not_text"),
        ("{'text': 'Decision Making', 'example': '...'}", "domain_not_text"),
        ('["risk"]', "domain_not_text"),
        (None, "domain_not_text"),
        (3, "domain_not_text"),
        ("../../x", "domain_path"),
        ("all", "domain_reserved"),
        ("All!", "domain_reserved"),
        ("", "domain_empty"),
        ("\0", "domain_empty"),
        ("x" * 5000, "domain_too_long"),
    ],
)
def test_a_domain_that_cannot_be_is_a_defect(domain: object, reason: str) -> None:
    """The other domains stand; where none is left the chapter is ``base``."""
    book = book_of(chapter_with(domains=[domain, "risk"]), {"chapter_index": 2, "domains": [domain]})
    assert [chapter.domains for chapter in book.chapters] == [("risk",), ("base",)]
    assert defects_in(book) == [("/0/domains/0", reason), ("/1/domains/0", reason)]


def test_domains_of_500_characters_and_of_other_scripts_load() -> None:
    """They are cut with a hash, and transliterated."""
    book = book_of(chapter_with(domains=["virtue " * 72, "Психология", " אחיות Justice"]))
    assert [len(domain) <= 43 for domain in book.chapters[0].domains] == [True] * 3
    assert book.chapters[0].domains[0] == "hyvt_justice"
    assert not book.defects


def test_domains_that_are_no_list() -> None:
    """One name counts as a list of one; an object is a defect; too many are cut off with a defect."""
    limits = ParseRules(limits=InputLimits(max_domains=2))
    book = book_of(
        chapter_with(domains="Risk"),
        {"chapter_index": 2, "domains": {"risk": 1}},
        {"chapter_index": 3, "domains": ["c", "b", "a"]},
        rules=limits,
    )
    assert [chapter.domains for chapter in book.chapters] == [("risk",), ("base",), ("b", "c")]
    assert defects_in(book) == [("/1/domains", "domains_not_list"), ("/2/domains", "too_many_domains")]


def test_aliases_fold_synonyms() -> None:
    """The alias map is asked for every domain."""
    rules = ParseRules(DomainNames.from_aliases({"Psych": "psychology"}))
    assert book_of(chapter_with(domains=["PSYCH", "psychology"]), rules=rules).chapters[0].domains == (
        "psychology",
    )


@pytest.mark.parametrize("index", [-1, 1.5, "x", True, [], 2**31, "9" * 5000])
def test_a_chapter_with_a_wrong_index_is_a_defect(index: object) -> None:
    """Its neighbours load."""
    book = book_of(chapter_with(chapter_index=index, rules=["Lost."]), GOOD)
    assert defects_in(book) == [("/0/chapter_index", "bad_chapter_index")]
    assert [chapter.index for chapter in book.chapters] == [7]


def test_an_index_may_be_figures_or_missing() -> None:
    """Figures in quotes and whole floats count; without an index the position does, from 1."""
    book = book_of({"chapter_index": "5"}, {"chapter_index": 6.0}, {}, {"chapter_index": 0})
    assert [chapter.index for chapter in book.chapters] == [0, 3, 5, 6]
    assert not book.defects


def test_the_second_of_two_chapters_with_one_index_is_a_defect() -> None:
    """The first stands, and so do the neighbours."""
    book = book_of(chapter_with(rules=["First."]), GOOD, chapter_with(rules=["Second."]))
    assert defects_in(book) == [("/2", "duplicate_chapter")]
    assert [entry.text for entry in book.chapters[0].entries] == ["First."]
    assert book.entry_count == 2


@pytest.mark.parametrize("chapter", [None, 3, "text", ["list"]])
def test_a_chapter_that_is_no_object_is_a_defect(chapter: object) -> None:
    """Its neighbours load."""
    book = book_of(chapter, GOOD)
    assert defects_in(book) == [("/0", "chapter_not_object")]
    assert book.entry_count == 1


@pytest.mark.parametrize("title", [3, {"a": 1}, "x" * 3000])
def test_a_title_that_is_none_is_a_defect(title: object) -> None:
    """The chapter loads without a title."""
    book = book_of(chapter_with(chapter_title=title, rules=["A rule."]))
    assert book.chapters[0].title is None
    assert book.entry_count == 1
    assert defects_in(book) == [("/0/chapter_title", "bad_title")]


def test_what_a_repeated_key_held_before_is_a_defect() -> None:
    """The last value counts, at every level of a book; what it replaced is shown."""
    data = (
        b'{"title": "Old", "title": "New", "chapters": ['
        b'{"chapter_index": 1, "rules": ["Lost."], "rules": [{"text": "a", "text": "b"}]}]}'
    )
    book = parse_book("b", RawFile("f", data))
    assert book.title == "New"
    assert [entry.text for entry in book.chapters[0].entries] == ["b"]
    assert defects_in(book) == [
        ("/title", "duplicate_key"),
        ("/chapters/0/rules", "duplicate_key"),
        ("/chapters/0/rules/0/text", "duplicate_key"),
    ]
    assert "Lost." in book.defects[1].detail
