"""Doctrine JSON becomes a book: two files (doctrine, and the chapters' text beside it), or both in one."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from era_ingest.core.defects import DefectLog, excerpt
from era_ingest.core.items import ItemReader, ParseRules
from era_ingest.core.json_document import RawFile, parse_json
from era_ingest.core.json_walk import JsonList
from era_ingest.core.model import DOCTRINE_CATEGORIES, Entry
from era_ingest.core.names import BASE_DOMAIN
from era_ingest.core.open_book import IndexMap, OpenBook, OpenChapter
from era_ingest.core.text import clean_prose
from era_ingest.errors import MalformedDocumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from era_ingest.core.items import Path

DEFAULT_RULES = ParseRules()
_TEXT_KEYS = ("raw_text", "text")
_CATEGORY_KEYS = tuple((category, category.plural) for category in DOCTRINE_CATEGORIES)
_NO_DOMAINS = (BASE_DOMAIN,)


def parse_doctrine(
    name: str, doctrine: RawFile, chapters: RawFile | None, rules: ParseRules = DEFAULT_RULES
) -> OpenBook:
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
    found = _read_document(parse_json(doctrine, rules.limits), reader)
    if chapters is None:
        return OpenBook(name, found.title, _read_chapters(found, IndexMap(), reader), (reader,), log)
    text_reader = ItemReader(chapters.path, rules, log)
    texts = _Texts(_read_document(parse_json(chapters, rules.limits), text_reader), text_reader)
    merged = _merge(found, reader, texts)
    return OpenBook(name, found.title or texts.title, merged, (reader, text_reader), log)


def parse_book(name: str, file: RawFile, rules: ParseRules = DEFAULT_RULES) -> OpenBook:
    """Return the book that one JSON file holds: ``{"title", "chapters": [...]}``, doctrine and text together.

    Raises:
        MalformedDocumentError: The file is no JSON, or holds no list of chapters.
    """
    return build_book(name, parse_json(file, rules.limits), file.path, rules)


def build_book(name: str, document: object, file: str, rules: ParseRules = DEFAULT_RULES) -> OpenBook:
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
    found = _read_document(document, reader)
    return OpenBook(name, found.title, _read_chapters(found, IndexMap(), reader), (reader,), log)


class _Document(NamedTuple):
    """A document's title, its chapters as they stand there, and the path to them."""

    title: str | None
    items: list[object] | JsonList
    prefix: Path


def _read_document(document: object, reader: ItemReader) -> _Document:
    """Return the parts of a document."""
    if isinstance(document, list | JsonList):
        return _Document(None, document, ())
    if not isinstance(document, dict):
        _refuse(
            reader.file, "wrong_top_level", f"the top level is no list of chapters but {excerpt(document)}"
        )
    reader.note_repeated_keys(document, ())
    if "chapters" not in document:
        _refuse(reader.file, "no_chapters", f'no "chapters" in the object {excerpt(document)}')
    title = reader.title(document.get("title"), ("title",))
    items = document["chapters"]
    if not isinstance(items, list | JsonList):
        _refuse(reader.file, "chapters_not_list", f'"chapters" is no list but {excerpt(items)}', "/chapters")
    return _Document(title, items, ("chapters",))


@dataclass(frozen=True, slots=True)
class _Item:
    """A chapter as it stands in its file: its members, its index and the path to it."""

    members: dict[object, object]
    index: int
    path: Path


def _read_items(
    items: Iterable[object], prefix: Path, present: IndexMap, reader: ItemReader
) -> Iterator[_Item]:
    """Yield those chapters that are objects with an index of their own; note in ``present`` where each stands."""
    for position, item in enumerate(items):
        path = (*prefix, position)
        if not isinstance(item, dict):
            reader.refuse(path, "chapter_not_object", "A chapter is an object; found {}.", item)
            continue
        reader.note_repeated_keys(item, path)
        number = item.get("chapter_index")
        index = position + 1 if number is None else reader.index(number, (*path, "chapter_index"))
        if index is None:
            continue
        before = present.add(index, position)
        if before is None:
            yield _Item(item, index, path)
        else:
            detail = f"Chapter {index:,} stands at {before} already; refused."
            reader.refuse(path, "duplicate_chapter", detail)


def _read_chapters(document: _Document, present: IndexMap, reader: ItemReader) -> Iterator[OpenChapter]:
    """Yield the chapters of a document, in its order."""
    for item in _read_items(document.items, document.prefix, present, reader):
        yield _open_chapter(item, reader)


def _open_chapter(item: _Item, reader: ItemReader) -> OpenChapter:
    """Return one chapter; its entries are read when they are asked for."""
    members, path = item.members, item.path
    domains = members.get("domains")
    return OpenChapter(
        index=item.index,
        title=_read_title(members, path, reader),
        domains=_NO_DOMAINS if domains is None else reader.domains(domains, (*path, "domains")),
        entries=_read_entries(members, path, reader),
        text=_read_prose(members, path, reader),
    )


def _read_title(members: dict[object, object], path: Path, reader: ItemReader) -> str | None:
    title = members.get("chapter_title")
    return None if title is None else reader.title(title, (*path, "chapter_title"))


def _read_prose(members: dict[object, object], path: Path, reader: ItemReader) -> str:
    for key in _TEXT_KEYS:
        text = members.get(key)
        if text is not None:
            return reader.prose(text, (*path, key), clean_prose)
    return ""


def _read_entries(members: dict[object, object], path: Path, reader: ItemReader) -> Iterator[Entry]:
    """Yield a chapter's doctrine; of equal texts in one category the first."""
    for category, key in _CATEGORY_KEYS:
        items = members.get(key)
        if items is None:
            continue
        seen: set[str] = set()
        for entry in reader.entries(category, items, (*path, key)):
            if entry.text not in seen:
                seen.add(entry.text)
                yield entry


class _Texts:
    """The chapters' texts: found by index, decoded one at a time.

    Args:
        document: The file of texts.
        reader: Its reader.
    """

    def __init__(self, document: _Document, reader: ItemReader) -> None:
        assert isinstance(document.items, JsonList)  # it comes from a file
        self.reader = reader
        self.title = document.title
        self._items = document.items
        self._prefix = document.prefix
        self._places = array("q")
        self._positions = IndexMap()
        for _ in _read_items(self._note_places(), self._prefix, self._positions, reader):
            pass

    def read(self, index: int) -> OpenChapter | None:
        """Return the text of a chapter, as a chapter without doctrine; None where there is none."""
        position = self._positions.get(index)
        if position is None:
            return None
        members = self._items.at(self._places[position])
        path = (*self._prefix, position)
        return OpenChapter(
            index=index,
            title=_read_title(members, path, self.reader),
            domains=_NO_DOMAINS,
            entries=iter(()),
            text=_read_prose(members, path, self.reader),
        )

    def read_without(self, doctrine: IndexMap) -> Iterator[tuple[OpenChapter, Path]]:
        """Yield the chapters that have no doctrine, each with the path to it."""
        for index, position in self._positions.items():
            if doctrine.get(index) is None and (chapter := self.read(index)):
                yield chapter, (*self._prefix, position)

    def _note_places(self) -> Iterator[object]:
        for place, item in self._items.places():
            self._places.append(place)
            yield item


def _merge(document: _Document, reader: ItemReader, texts: _Texts) -> Iterator[OpenChapter]:
    """Lay the chapters' text to their doctrine; say where one lacks the other."""
    doctrine = IndexMap()
    for item in _read_items(document.items, document.prefix, doctrine, reader):
        chapter = _open_chapter(item, reader)
        text = texts.read(item.index)
        if text is not None:
            yield replace(chapter, title=chapter.title or text.title, text=text.text or chapter.text)
            continue
        yield chapter
        if not chapter.text:
            detail = f"Chapter {item.index:,} has doctrine but no text in {texts.reader.file}."
            reader.refuse(item.path, "chapter_without_text", detail)
    for chapter, path in texts.read_without(doctrine):
        detail = (
            f"Chapter {chapter.index:,} has text but no doctrine in {reader.file}; loaded as {BASE_DOMAIN!r}."
        )
        texts.reader.refuse(path, "chapter_without_doctrine", detail)
        yield chapter


def _refuse(file: str, reason: str, what: str, pointer: str = "") -> NoReturn:
    raise MalformedDocumentError(
        f"{file} is no book: {what}. A book is a list of chapters, each an object with chapter_index, "
        "domains, principles, rules, claims and warnings.",
        file=file,
        pointer=pointer,
        reason=reason,
    )
