"""Books of doctrine, made up and read, for tests of the reader."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from era_ingest.core import doctrine
from era_ingest.core.items import ParseRules
from era_ingest.core.json_document import RawFile

if TYPE_CHECKING:
    from era_ingest.core.model import Book

GOOD = {"chapter_index": 7, "domains": ["risk"], "rules": ["A neighbour that must load."]}


def build_book(name: str, document: object, file: str) -> Book:
    return doctrine.build_book(name, document, file).whole()


def parse_book(name: str, file: RawFile, rules: ParseRules | None = None) -> Book:
    return doctrine.parse_book(name, file, rules or ParseRules()).whole()


def parse_doctrine(
    name: str, file: RawFile, chapters: RawFile | None, rules: ParseRules | None = None
) -> Book:
    return doctrine.parse_doctrine(name, file, chapters, rules or ParseRules()).whole()


def raw_file(value: object, path: str = "doctrine.json") -> RawFile:
    return RawFile(path, json.dumps(value).encode())


def book_of(*chapters: object, rules: ParseRules | None = None) -> Book:
    return parse_doctrine("A Book", raw_file(list(chapters)), None, rules or ParseRules())


def chapter_with(**members: Any) -> dict[str, Any]:
    return {"chapter_index": 1, **members}


def defects_in(book: Book) -> list[tuple[str, str]]:
    return [(defect.pointer, defect.reason) for defect in book.defects]
