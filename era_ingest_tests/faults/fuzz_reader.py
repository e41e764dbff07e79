"""Coverage-guided fuzzing of the readers: whatever the bytes are, the outcome is a strict book or one error.

    python -m era_ingest_tests.faults.fuzz_reader -runs=100000 -seed=1 [folder of inputs]

The first byte chooses the reader, and where a chapters' file begins that is read beside the doctrine. Arguments are
libFuzzer's; it ends with a status other than 0 at the first input that breaks the promise, and keeps that input.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import atheris

with atheris.instrument_imports(include=["era_ingest.core"]):
    from era_ingest.core.chunking import PassageSizes, build_chunks
    from era_ingest.core.doctrine import parse_book, parse_doctrine
    from era_ingest.core.items import ParseRules
    from era_ingest.core.json_document import RawFile
    from era_ingest.core.limits import InputLimits
    from era_ingest.core.markdown import parse_markdown, parse_text
    from era_ingest.core.reasons import REASONS
    from era_ingest.core.text import clean_line, clean_prose
    from era_ingest.errors import MalformedDocumentError

if TYPE_CHECKING:
    from uuid import UUID

    from era_ingest.core.model import Book
    from era_ingest.core.open_book import OpenBook

RULES = ParseRules(limits=InputLimits(max_defects=20, max_headings=50, max_entries=50))
SIZES = PassageSizes(20, 40)


def try_bytes(data: bytes) -> None:
    """Read bytes as a book; raise if the outcome is neither a strict book nor an explained refusal."""
    try:
        book = _parse(data[:1], data[1:]).whole()
    except MalformedDocumentError as error:
        assert error.reason in REASONS, error.reason  # noqa: PT017 - no test, but what it looks for
        error.message.encode()
        return
    _check(book)


def _parse(choice: bytes, data: bytes) -> OpenBook:
    kind = choice[0] % 4 if choice else 0
    if kind == 0:
        return parse_book("book", RawFile("f", data), RULES)
    if kind == 1:
        middle = len(data) * choice[0] // 256
        return parse_doctrine("book", RawFile("d", data[:middle]), RawFile("c", data[middle:]), RULES)
    return (parse_markdown if kind == 2 else parse_text)("book", RawFile("f", data), RULES)


def _check(book: Book) -> None:
    indexes = [chapter.index for chapter in book.chapters]
    assert indexes == sorted(set(indexes))
    ids: set[UUID] = set()
    for chapter in book.chapters:
        assert chapter.domains == tuple(sorted(set(chapter.domains)))
        assert clean_prose(chapter.text).text == chapter.text
        for entry in chapter.entries:
            assert entry.text
            assert clean_line(entry.text).text == entry.text
            assert 0 < entry.weight < float("inf")
        chunks = list(build_chunks(book.name, chapter, SIZES))
        assert all(chunk.text.strip() == chunk.text != "" for chunk in chunks)
        before = len(ids)
        ids |= {chunk.id for chunk in chunks}
        assert len(ids) == before + len(chunks)
    for defect in book.defects:
        assert defect.reason in REASONS, defect.reason
        (defect.pointer + defect.detail).encode()


if __name__ == "__main__":
    atheris.Setup(sys.argv, try_bytes)
    atheris.Fuzz()
