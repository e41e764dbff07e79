from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

import pytest

from era_ingest.core import doctrine
from era_ingest.core.defects import MAX_EXCERPT_CHARS
from era_ingest.core.items import ParseRules
from era_ingest.core.json_document import RawFile
from era_ingest.core.limits import InputLimits
from era_ingest.core.model import Book, Category, Entry
from era_ingest.core.names import DomainNames
from era_ingest.errors import MalformedDocumentError

GOOD = {"chapter_index": 7, "domains": ["risk"], "rules": ["A neighbour that must load."]}


def build_book(name: str, document: object, file: str) -> Book:
    return doctrine.build_book(name, document, file).whole()


def parse_book(name: str, file: RawFile, rules: ParseRules | None = None) -> Book:
    return doctrine.parse_book(name, file, rules or ParseRules()).whole()


def parse_doctrine(
    name: str, file: RawFile, chapters: RawFile | None, rules: ParseRules | None = None
) -> Book:
    return doctrine.parse_doctrine(name, file, chapters, rules or ParseRules()).whole()


def _raw(value: object, path: str = "doctrine.json") -> RawFile:
    return RawFile(path, json.dumps(value).encode())


def _book(*chapters: object, rules: ParseRules | None = None) -> Book:
    return parse_doctrine("A Book", _raw(list(chapters)), None, rules or ParseRules())


def _chapter(**members: Any) -> dict[str, Any]:
    return {"chapter_index": 1, **members}


def _defects(book: Book) -> list[tuple[str, str]]:
    return [(defect.pointer, defect.reason) for defect in book.defects]


def test_a_chapter_is_read_whole() -> None:
    """Title, domains, the four categories in order, cleaned; unknown keys are no matter."""
    book = _book(
        _chapter(
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
    book = _book(_chapter(rules=[{key: "A statement.", "example": "ignored", "weight": 2}]))
    assert book.chapters[0].entries == (Entry(Category.RULE, "A statement.", 2.0),)
    assert not book.defects


def test_a_blank_statement_gives_way_to_the_next_key() -> None:
    """An empty ``text`` does not hide what stands under ``statement``."""
    book = _book(_chapter(rules=[{"text": " ", "statement": "The statement."}]))
    assert [entry.text for entry in book.chapters[0].entries] == ["The statement."]


@pytest.mark.parametrize(
    "item", [None, 3, 1.5, True, [], ["a list"], {}, {"text": 3}, {"claim": "of another category"}, [[[[]]]]]
)
def test_an_item_of_unknown_shape_is_a_defect(item: object) -> None:
    """It is named by its pointer, and its neighbours load."""
    book = _book(_chapter(rules=["Before.", item, "After."]))
    assert [entry.text for entry in book.chapters[0].entries] == ["Before.", "After."]
    assert _defects(book) == [("/0/rules/1", "unknown_item_shape")]
    assert book.defects[0].file == "doctrine.json"


@pytest.mark.parametrize("text", ["", "  \n", "\0\0", "\ud800", "\u200b\xad"])
def test_a_text_of_which_nothing_is_left_is_a_defect(text: str) -> None:
    """Empty before or after cleaning."""
    book = _book(_chapter(claims=[text, "After."]), GOOD)
    assert _defects(book) == [("/0/claims/0", "empty_text")]
    assert book.entry_count == 2


def test_nul_and_lone_surrogates_are_removed_and_counted() -> None:
    """The text loads without them."""
    book = _book(_chapter(claims=["a\0b\ud800c"]))
    assert book.chapters[0].entries[0].text == "abc"
    assert (book.cleaning.nul, book.cleaning.surrogates, book.cleaning.texts_changed) == (1, 1, 1)


def test_equal_texts_in_a_category_are_one_entry() -> None:
    """Cleaning decides what is equal; another category is another entry."""
    book = _book(_chapter(rules=["Same  text.", "Same text."], claims=["Same text."]))
    assert [entry.category for entry in book.chapters[0].entries] == [Category.RULE, Category.CLAIM]
    assert not book.defects


@pytest.mark.parametrize("value", ["one", {"text": "one"}, 3])
def test_a_category_that_is_no_list(value: object) -> None:
    """A lone text counts as a list of one; anything else is a defect."""
    book = _book(_chapter(rules=value), GOOD)
    if value == "one":
        assert book.chapters[0].entries == (Entry(Category.RULE, "one"),)
    else:
        assert _defects(book) == [("/0/rules", "category_not_list")]
    assert book.chapters[1].entries


@pytest.mark.parametrize(
    "weight", ["NaN", "1e999", "-Infinity", "-1", "0", "1e-9", '"heavy"', "true", "[]", "9" * 5000]
)
def test_a_weight_that_is_none_is_one_and_a_defect(weight: str) -> None:
    """The entry loads with weight 1."""
    data = f'[{{"chapter_index": 1, "rules": [{{"text": "A rule.", "weight": {weight}}}]}}]'
    book = parse_doctrine("b", RawFile("f", data.encode()), None)
    assert book.chapters[0].entries == (Entry(Category.RULE, "A rule.", 1.0),)
    assert _defects(book) == [("/0/rules/0/weight", "bad_weight")]


@pytest.mark.parametrize("weight", [None, 1, 0.25, "0.5"])
def test_a_weight_may_be_a_number_or_figures(weight: object) -> None:
    """Null is 1; a number in quotes is a number."""
    book = _book(_chapter(rules=[{"text": "A rule.", "weight": weight}]))
    assert book.chapters[0].entries[0].weight == float(weight or 1)  # type: ignore[arg-type]
    assert not book.defects


@pytest.mark.parametrize("domains", [None, [], {"domains": None}])
def test_a_chapter_without_domains_is_base(domains: object) -> None:
    """No domains, an empty list, no key at all."""
    book = _book({"chapter_index": 1} if isinstance(domains, dict) else _chapter(domains=domains))
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
    book = _book(_chapter(domains=[domain, "risk"]), {"chapter_index": 2, "domains": [domain]})
    assert [chapter.domains for chapter in book.chapters] == [("risk",), ("base",)]
    assert _defects(book) == [("/0/domains/0", reason), ("/1/domains/0", reason)]


def test_domains_of_500_characters_and_of_other_scripts_load() -> None:
    """They are cut with a hash, and transliterated."""
    book = _book(_chapter(domains=["virtue " * 72, "Психология", " אחיות Justice"]))
    assert [len(domain) <= 43 for domain in book.chapters[0].domains] == [True] * 3
    assert book.chapters[0].domains[0] == "hyvt_justice"
    assert not book.defects


def test_domains_that_are_no_list() -> None:
    """One name counts as a list of one; an object is a defect; too many are cut off with a defect."""
    limits = ParseRules(limits=InputLimits(max_domains=2))
    book = _book(
        _chapter(domains="Risk"),
        {"chapter_index": 2, "domains": {"risk": 1}},
        {"chapter_index": 3, "domains": ["c", "b", "a"]},
        rules=limits,
    )
    assert [chapter.domains for chapter in book.chapters] == [("risk",), ("base",), ("b", "c")]
    assert _defects(book) == [("/1/domains", "domains_not_list"), ("/2/domains", "too_many_domains")]


def test_aliases_fold_synonyms() -> None:
    """The alias map is asked for every domain."""
    rules = ParseRules(DomainNames.from_aliases({"Psych": "psychology"}))
    assert _book(_chapter(domains=["PSYCH", "psychology"]), rules=rules).chapters[0].domains == (
        "psychology",
    )


@pytest.mark.parametrize("index", [-1, 1.5, "x", True, [], 2**31, "9" * 5000])
def test_a_chapter_with_a_wrong_index_is_a_defect(index: object) -> None:
    """Its neighbours load."""
    book = _book(_chapter(chapter_index=index, rules=["Lost."]), GOOD)
    assert _defects(book) == [("/0/chapter_index", "bad_chapter_index")]
    assert [chapter.index for chapter in book.chapters] == [7]


def test_an_index_may_be_figures_or_missing() -> None:
    """Figures in quotes and whole floats count; without an index the position does, from 1."""
    book = _book({"chapter_index": "5"}, {"chapter_index": 6.0}, {}, {"chapter_index": 0})
    assert [chapter.index for chapter in book.chapters] == [0, 3, 5, 6]
    assert not book.defects


def test_the_second_of_two_chapters_with_one_index_is_a_defect() -> None:
    """The first stands, and so do the neighbours."""
    book = _book(_chapter(rules=["First."]), GOOD, _chapter(rules=["Second."]))
    assert _defects(book) == [("/2", "duplicate_chapter")]
    assert [entry.text for entry in book.chapters[0].entries] == ["First."]
    assert book.entry_count == 2


@pytest.mark.parametrize("chapter", [None, 3, "text", ["list"]])
def test_a_chapter_that_is_no_object_is_a_defect(chapter: object) -> None:
    """Its neighbours load."""
    book = _book(chapter, GOOD)
    assert _defects(book) == [("/0", "chapter_not_object")]
    assert book.entry_count == 1


@pytest.mark.parametrize("title", [3, {"a": 1}, "x" * 3000])
def test_a_title_that_is_none_is_a_defect(title: object) -> None:
    """The chapter loads without a title."""
    book = _book(_chapter(chapter_title=title, rules=["A rule."]))
    assert book.chapters[0].title is None
    assert book.entry_count == 1
    assert _defects(book) == [("/0/chapter_title", "bad_title")]


def test_what_a_repeated_key_held_before_is_a_defect() -> None:
    """The last value counts, at every level of a book; what it replaced is shown."""
    data = (
        b'{"title": "Old", "title": "New", "chapters": ['
        b'{"chapter_index": 1, "rules": ["Lost."], "rules": [{"text": "a", "text": "b"}]}]}'
    )
    book = parse_book("b", RawFile("f", data))
    assert book.title == "New"
    assert [entry.text for entry in book.chapters[0].entries] == ["b"]
    assert _defects(book) == [
        ("/title", "duplicate_key"),
        ("/chapters/0/rules", "duplicate_key"),
        ("/chapters/0/rules/0/text", "duplicate_key"),
    ]
    assert "Lost." in book.defects[1].detail


@pytest.mark.parametrize(
    ("document", "reason", "pointer"),
    [
        ("text", "wrong_top_level", ""),
        (3, "wrong_top_level", ""),
        (None, "wrong_top_level", ""),
        ({"title": "x"}, "no_chapters", ""),
        ({}, "no_chapters", ""),
        ({"chapters": {"1": {}}}, "chapters_not_list", "/chapters"),
    ],
)
def test_a_document_that_is_no_book_is_refused(document: object, reason: str, pointer: str) -> None:
    """The error says what a book is."""
    raw = _raw(document)
    for parse in (
        partial(parse_book, "b", raw),
        partial(parse_doctrine, "b", raw, None),
        partial(parse_doctrine, "b", _raw([]), raw),
    ):
        with pytest.raises(MalformedDocumentError, match="A book is a list of chapters") as caught:
            parse()
        assert (caught.value.reason, caught.value.pointer) == (reason, pointer)


def test_both_forms_are_taken_in_either_place() -> None:
    """A list of chapters as ``<book>.json``, and an object as ``02_doctrine.json``."""
    assert parse_book("b", _raw([GOOD])).entry_count == 1
    book = parse_doctrine(
        "b", _raw({"title": "T", "chapters": [GOOD]}), _raw([{**GOOD, "raw_text": "Text."}])
    )
    assert (book.title, book.entry_count, book.chapters[0].text) == ("T", 1, "Text.")


def test_text_and_doctrine_meet_by_index() -> None:
    """Order does not matter; the doctrine's title comes first; 01_chapters' own domains are not looked at."""
    doctrine = _raw(
        [_chapter(chapter_index=2, rules=["Two."]), _chapter(chapter_title="One", domains=["risk"])]
    )
    chapters = _raw(
        [
            {"chapter_index": 1, "chapter_title": "Other", "raw_text": "Text of\none.", "domains": 3},
            {"chapter_index": 2, "chapter_title": "Two", "raw_text": "Text of two."},
        ],
        "chapters.json",
    )
    book = parse_doctrine("b", doctrine, chapters)
    assert [(one.index, one.title, one.text, one.domains) for one in book.chapters] == [
        (1, "One", "Text of one.", ("risk",)),
        (2, "Two", "Text of two.", ("base",)),
    ]
    assert not book.defects


def test_chapters_of_two_files_that_do_not_match_are_defects() -> None:
    """Text alone becomes a chapter of ``base``, doctrine alone loads too; each is told in its own file."""
    doctrine = _raw([_chapter(rules=["Both."]), _chapter(chapter_index=2, rules=["Doctrine alone."])])
    chapters = _raw(
        [_chapter(raw_text="Both."), _chapter(chapter_index=3, raw_text="Text alone.")], "chapters.json"
    )
    book = parse_doctrine("b", doctrine, chapters)
    assert [(one.index, one.entries != (), one.text, one.domains) for one in book.chapters] == [
        (1, True, "Both.", ("base",)),
        (2, True, "", ("base",)),
        (3, False, "Text alone.", ("base",)),
    ]
    assert [(defect.file, defect.pointer, defect.reason) for defect in book.defects] == [
        ("doctrine.json", "/1", "chapter_without_text"),
        ("chapters.json", "/1", "chapter_without_doctrine"),
    ]


def test_doctrine_without_a_file_of_texts_is_no_defect() -> None:
    """The texts are optional as a whole."""
    assert not _book(GOOD).defects


def test_a_chapters_text_that_is_no_text_is_a_defect() -> None:
    """Its doctrine loads."""
    book = _book(_chapter(raw_text=["a", "b"], rules=["A rule."]))
    assert _defects(book) == [("/0/raw_text", "text_not_string")]
    assert book.entry_count == 1


def test_texts_over_the_limit_are_defects() -> None:
    """An entry, a chapter's text; the limits are injected here, and stated in InputLimits."""
    rules = ParseRules(limits=InputLimits(max_entry_chars=10, max_chapter_chars=20))
    book = _book(
        _chapter(rules=["x" * 11, "x" * 10], raw_text="y" * 21), GOOD | {"rules": ["short"]}, rules=rules
    )
    assert sorted(_defects(book)) == [("/0/raw_text", "text_too_long"), ("/0/rules/0", "text_too_long")]
    assert [entry.text for entry in book.chapters[0].entries] == ["x" * 10]
    assert book.chapters[0].text == ""
    assert book.entry_count == 2


def test_one_huge_string_is_refused_in_bounded_time() -> None:
    """Twenty megabytes in one entry cost their decoding, and an excerpt is kept."""
    data = b'[{"chapter_index": 1, "rules": ["' + b"a\\u0000" * 3_000_000 + b'", "After."]}]'
    started = time.process_time()
    book = parse_doctrine("b", RawFile("f", data), None)
    assert time.process_time() - started < len(data) / 1e6
    assert _defects(book) == [("/0/rules/0", "text_too_long")]
    assert len(book.defects[0].detail) < 300
    assert book.entry_count == 1


def test_the_list_of_defects_is_bounded() -> None:
    """The last defect says how many more there were."""
    rules = ParseRules(limits=InputLimits(max_defects=3))
    book = _book(_chapter(rules=[None] * 10, claims=["A claim."]), rules=rules)
    assert len(book.defects) == 4
    assert book.defects[-1].reason == "too_many_defects"
    assert book.defects[-1].detail.startswith("7 more")
    assert book.entry_count == 1


@pytest.mark.parametrize(
    "found", ["x" * 10_000, {"k" * 9_000: "v" * 9_000}, [[[[[["deep"]]]]]] * 9, list(range(9999))]
)
def test_excerpts_are_bounded(found: object) -> None:
    """Whatever was found, a defect's sentence stays a sentence."""
    book = _book(_chapter(chapter_title=found, domains=[found], rules=[[found]]))
    assert len(book.defects) >= 2
    assert all(len(defect.detail) < MAX_EXCERPT_CHARS + 120 for defect in book.defects)


def test_what_a_reader_returns_is_not_trusted() -> None:
    """Values that no JSON holds are defects like any other."""
    document = {"chapters": [_chapter(rules=[b"bytes", object(), 10**5000, "A rule."], domains=("risk",))]}
    book = build_book("b", document, "book.epub")
    assert [reason for _, reason in _defects(book)] == ["domains_not_list", *["unknown_item_shape"] * 3]
    assert book.entry_count == 1


def test_pointers_are_escaped() -> None:
    """RFC 6901: ``~`` and ``/`` in a key."""
    data = b'{"chapters": [{"chapter_index": 1, "a/b~c": 1, "a/b~c": 2}]}'
    assert _defects(parse_book("b", RawFile("f", data))) == [("/chapters/0/a~1b~0c", "duplicate_key")]
