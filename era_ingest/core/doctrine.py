"""Doctrine JSON becomes a book: two files (doctrine, and the chapters' text beside it), or both in one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from era_ingest.core.defects import DefectLog, excerpt
from era_ingest.core.items import ItemReader, ParseRules, sum_cleaning
from era_ingest.core.json_document import RawFile, parse_json
from era_ingest.core.model import DOCTRINE_CATEGORIES, Book, Chapter, Entry
from era_ingest.core.names import BASE_DOMAIN, book_slug
from era_ingest.core.text import clean_prose
from era_ingest.errors import MalformedDocumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from era_ingest.core.items import Path

DEFAULT_RULES = ParseRules()
_TEXT_KEYS = ("raw_text", "text")


def parse_doctrine(
    name: str, doctrine: RawFile, chapters: RawFile | None, rules: ParseRules = DEFAULT_RULES
) -> Book:
    """Return the book that a doctrine file, and the chapters' text beside it, make together.

    Chapters meet by index. Text without doctrine becomes a chapter of the domain ``base`` and a defect;
    doctrine without text is a defect only where there is a file of texts.

    Args:
        name: The book's name.
        doctrine: ``02_doctrine.json``: a list of chapters, or an object with that list under ``chapters``.
        chapters: ``01_chapters.json``, likewise; None where the book has none.
        rules: Domains and bounds.

    Raises:
        MalformedDocumentError: One of the files is no JSON, or holds no list of chapters.
    """
    log = DefectLog(rules.limits.max_defects)
    reader = ItemReader(doctrine.path, rules, log)
    title, found = _read_document(parse_json(doctrine, rules.limits), reader)
    if chapters is None:
        return _build_book(name, title, found, (reader,), log)
    text_reader = ItemReader(chapters.path, rules, log)
    text_title, texts = _read_document(parse_json(chapters, rules.limits), text_reader, only_text=True)
    merged = _merge(found, texts, reader, text_reader)
    return _build_book(name, title or text_title, merged, (reader, text_reader), log)


def parse_book(name: str, file: RawFile, rules: ParseRules = DEFAULT_RULES) -> Book:
    """Return the book that one JSON file holds: ``{"title", "chapters": [...]}``, doctrine and text together.

    Raises:
        MalformedDocumentError: The file is no JSON, or holds no list of chapters.
    """
    return build_book(name, parse_json(file, rules.limits), file.path, rules)


def build_book(name: str, document: object, file: str, rules: ParseRules = DEFAULT_RULES) -> Book:
    """Return the book that a document in the shape of the one-file form holds, wherever it came from.

    Args:
        name: The book's name.
        document: What JSON would give: dicts, lists, strings, numbers; not trusted.
        file: The path that defects name.
        rules: Domains and bounds.

    Raises:
        MalformedDocumentError: ``reason`` is ``wrong_top_level``, ``no_chapters`` or ``chapters_not_list``.
    """
    log = DefectLog(rules.limits.max_defects)
    reader = ItemReader(file, rules, log)
    title, found = _read_document(document, reader)
    return _build_book(name, title, found, (reader,), log)


class _Found(NamedTuple):
    """A chapter, and where it stands in its file."""

    chapter: Chapter
    path: Path


def _read_document(
    document: object, reader: ItemReader, *, only_text: bool = False
) -> tuple[str | None, dict[int, _Found]]:
    """Return a document's title and its chapters by index, in the order of the file."""
    title = None
    items: object = document
    prefix: Path = ()
    if isinstance(document, dict):
        reader.note_repeated_keys(document, ())
        if "chapters" not in document:
            _refuse(reader.file, "no_chapters", f'no "chapters" in the object {excerpt(document)}')
        title = reader.title(document.get("title"), ("title",))
        items, prefix = document["chapters"], ("chapters",)
        if not isinstance(items, list):
            _refuse(
                reader.file, "chapters_not_list", f'"chapters" is no list but {excerpt(items)}', "/chapters"
            )
    elif not isinstance(document, list):
        _refuse(
            reader.file, "wrong_top_level", f"the top level is no list of chapters but {excerpt(document)}"
        )
    found: dict[int, _Found] = {}
    for position, item in enumerate(items):  # type: ignore[arg-type, var-annotated]
        path = (*prefix, position)
        chapter = _read_chapter(item, path, position, reader, only_text=only_text)
        if chapter is None:
            continue
        if chapter.index in found:
            detail = f"Chapter {chapter.index:,} stands at {found[chapter.index].path[-1]} already; refused."
            reader.refuse(path, "duplicate_chapter", detail)
            continue
        found[chapter.index] = _Found(chapter, path)
    return title, found


def _read_chapter(
    item: object, path: Path, position: int, reader: ItemReader, *, only_text: bool
) -> Chapter | None:
    """Return one chapter; with ``only_text`` neither its domains nor its doctrine are looked at."""
    if not isinstance(item, dict):
        reader.refuse(path, "chapter_not_object", f"A chapter is an object; found {excerpt(item)}.")
        return None
    reader.note_repeated_keys(item, path)
    index = reader.index(item.get("chapter_index"), (*path, "chapter_index"), position=position)
    if index is None:
        return None
    text_key = next((key for key in _TEXT_KEYS if item.get(key) is not None), _TEXT_KEYS[0])
    return Chapter(
        index=index,
        title=reader.title(item.get("chapter_title"), (*path, "chapter_title")),
        domains=reader.domains(None if only_text else item.get("domains"), (*path, "domains")),
        entries=() if only_text else tuple(_read_entries(item, path, reader)),
        text=reader.prose(item.get(text_key), (*path, text_key), clean_prose),
    )


def _read_entries(item: dict[object, object], path: Path, reader: ItemReader) -> Iterator[Entry]:
    """Yield a chapter's doctrine; of equal texts in one category the first."""
    for category in DOCTRINE_CATEGORIES:
        seen: set[str] = set()
        for entry in reader.entries(category, item.get(category.plural), (*path, category.plural)):
            if entry.text not in seen:
                seen.add(entry.text)
                yield entry


def _merge(
    doctrine: dict[int, _Found], texts: dict[int, _Found], reader: ItemReader, text_reader: ItemReader
) -> dict[int, _Found]:
    """Lay the chapters' text to their doctrine; say where one lacks the other."""
    merged: dict[int, _Found] = {}
    for index, (chapter, path) in doctrine.items():
        merged[index] = _Found(chapter, path)
        if index in texts:
            text = texts[index].chapter
            whole = replace(chapter, title=chapter.title or text.title, text=text.text or chapter.text)
            merged[index] = _Found(whole, path)
        elif not chapter.text:
            detail = f"Chapter {index:,} has doctrine but no text in {text_reader.file}."
            reader.refuse(path, "chapter_without_text", detail)
    for index, (chapter, path) in texts.items():
        if index not in doctrine:
            detail = (
                f"Chapter {index:,} has text but no doctrine in {reader.file}; loaded as {BASE_DOMAIN!r}."
            )
            text_reader.refuse(path, "chapter_without_doctrine", detail)
            merged[index] = _Found(chapter, path)
    return merged


def _build_book(
    name: str, title: str | None, found: dict[int, _Found], readers: tuple[ItemReader, ...], log: DefectLog
) -> Book:
    return Book(
        name=name,
        slug=book_slug(name),
        title=title,
        chapters=tuple(found[index].chapter for index in sorted(found)),
        defects=log.listing(),
        cleaning=sum_cleaning(readers),
    )


def _refuse(file: str, reason: str, what: str, pointer: str = "") -> NoReturn:
    raise MalformedDocumentError(
        f"{file} is no book: {what}. A book is a list of chapters, each an object with chapter_index, "
        "domains, principles, rules, claims and warnings.",
        file=file,
        pointer=pointer,
        reason=reason,
    )
