"""One book is read: bytes to typed values, and on to chunks. What a reader's process works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from era_ingest.core.chunking import PassageSizes, build_chunks
from era_ingest.core.defects import excerpt
from era_ingest.core.doctrine import build_book, parse_book, parse_doctrine
from era_ingest.core.items import ParseRules
from era_ingest.core.json_document import RawFile
from era_ingest.core.limits import InputLimits
from era_ingest.core.markdown import parse_markdown, parse_text
from era_ingest.core.names import DomainNames, show_name
from era_ingest.core.record import BookRecord, FileDigest
from era_ingest.errors import EraError, MalformedDocumentError
from era_ingest.pipelines.chunked import ChunkedBook
from era_ingest.pipelines.files import digest_file, read_file
from era_ingest.pipelines.formats import discover_readers, load_reader
from era_ingest.store.chunk_table import ChunkTableBuilder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from era_ingest.core.open_book import OpenBook
    from era_ingest.core.source import BookSource
    from era_ingest.settings import Settings


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What reading depends on, besides the files. Plain values: it goes to other processes.

    Attributes:
        processing: Fingerprint of the settings that shape chunks, for the books' records.
        passages: Lengths of passages; None: no passages.
        aliases: Synonyms of domains.
        limits: Bounds of what one book may hold.
        max_file_bytes: Larger files are refused unread.
        processes: Processes that read; 0: one a core.
        readers: Plugged-in readers, from suffix to ``module:callable``.
        timeout_s: Time for one book in a process of its own, seconds, besides 10 s a megabyte.
    """

    processing: str = ""
    passages: PassageSizes | None = field(default_factory=PassageSizes)
    aliases: Mapping[str, str] = field(default_factory=dict)
    limits: InputLimits = field(default_factory=InputLimits)
    max_file_bytes: int = 512 * 1024 * 1024
    processes: int = 0
    readers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 300.0

    @classmethod
    def from_settings(cls, settings: Settings, *, processing: str = "") -> ReadOptions:
        """Return the options that the settings say, with the readers that are installed.

        Raises:
            ConfigurationError: The domain aliases cannot be.
        """
        DomainNames.from_aliases(settings.domain_aliases)
        sizes = PassageSizes(
            settings.passage_min_chars, settings.passage_max_chars, settings.passage_overlap_chars
        )
        return cls(
            processing=processing,
            passages=sizes if settings.passages else None,
            aliases=settings.domain_aliases,
            max_file_bytes=settings.max_file_bytes,
            processes=settings.bounds.reader_processes,
            readers=discover_readers(),
        )


def open_book(source: BookSource, options: ReadOptions) -> tuple[OpenBook, tuple[FileDigest, ...]]:
    """Return a book that is ready to be read, and the digests of the bytes that it comes from.

    Raises:
        MalformedDocumentError: It is no book, or cannot be read just now.
        StoreUnavailableError: The disk does not answer.
    """
    rules = ParseRules(_domain_names(tuple(options.aliases.items())), options.limits)
    if source.format in options.readers:
        digest = digest_file(source.files[0], max_bytes=options.max_file_bytes)
        return _read_plugged(source, options, rules), (digest,)
    files = [read_file(file, max_bytes=options.max_file_bytes) for file in source.files]
    raw = [RawFile(show_name(file.digest.path), file.data) for file in files]
    digests = tuple(file.digest for file in files)
    del files
    return _parse(source, raw, rules), digests


def parse_bytes(source: BookSource, data: bytes, options: ReadOptions) -> OpenBook:
    """Return the book that bytes of a built-in format would be, if they lay where the source says.

    Raises:
        MalformedDocumentError: They are no book.
    """
    rules = ParseRules(_domain_names(tuple(options.aliases.items())), options.limits)
    return _parse(source, [RawFile(source.files[0].path, data)], rules)


def read_chunks(source: BookSource, options: ReadOptions) -> ChunkedBook:
    """Return a book as chunks; raises like `open_book`."""
    book, digests = open_book(source, options)
    builder = ChunkTableBuilder()
    chapters = 0
    for chapter in book:
        chapters += 1
        for chunk in build_chunks(book.name, chapter, options.passages):
            builder.add(chunk, title=chapter.title)
    record = BookRecord(
        name=book.name,
        slug=book.slug,
        title=book.title,
        root=source.root,
        format=source.format,
        files=digests,
        processing=options.processing,
        chapters=chapters,
        entries=builder.entries,
        passages=builder.passages,
        defects=book.defects,
        cleaning=book.cleaning,
    )
    return ChunkedBook(record, builder.finish(record))


def read_or_refuse(source: BookSource, options: ReadOptions) -> ChunkedBook | EraError:
    """Return a book as chunks, or the error that says why not: one book must not stop its neighbours."""
    try:
        return read_chunks(source, options)
    except EraError as error:
        return error
    except MemoryError:
        return refusal(source, "too_large", "does not fit into the memory; split it.")
    except Exception as error:  # noqa: BLE001 - the boundary of one book's task; it is recorded
        what = (
            f"cannot be read: {type(error).__name__}: {excerpt(str(error))}. This is a bug; please report it."
        )
        return refusal(source, "reader_failed", what)


def refusal(source: BookSource, reason: str, what: str) -> MalformedDocumentError:
    """Return the error that refuses a whole book."""
    shown = show_name(source.files[0].path)
    return MalformedDocumentError(f"{shown} {what}", file=shown, reason=reason)


def _parse(source: BookSource, raw: list[RawFile], rules: ParseRules) -> OpenBook:
    """Parse what was read of a built-in format."""
    if source.format == "doctrine":
        return parse_doctrine(source.name, raw[0], raw[1] if len(raw) > 1 else None, rules)
    parse = {"json": parse_book, "markdown": parse_markdown, "text": parse_text}.get(source.format)
    if parse is None:
        raise refusal(source, "no_reader", f"needs a reader for {source.format!r}, which is not installed.")
    return parse(source.name, raw[0], rules)


def _read_plugged(source: BookSource, options: ReadOptions, rules: ParseRules) -> OpenBook:
    """Let a plugged-in reader read; what it raises refuses this book."""
    path = source.files[0].path
    try:
        document = load_reader(source.format, options.readers)(Path(path))
    except EraError:
        raise
    except Exception as error:
        detail = f"{type(error).__name__}: {excerpt(str(error))}"
        raise refusal(
            source, "reader_failed", f"was refused by the reader for {source.format!r}: {detail}."
        ) from error
    return build_book(source.name, document, show_name(path), rules)


@lru_cache(maxsize=4)
def _domain_names(aliases: tuple[tuple[str, str], ...]) -> DomainNames:
    return DomainNames.from_aliases(dict(aliases))
