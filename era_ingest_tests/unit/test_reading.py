"""Files to chunks: bounded reads, formats, plug-ins, and processes that die."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import textwrap
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from era_ingest.core.chunking import PassageSizes
from era_ingest.errors import ConfigurationError, MalformedDocumentError, StoreUnavailableError
from era_ingest.pipelines import book_reading, formats, reading
from era_ingest.pipelines.chunked import ChunkedBook
from era_ingest.pipelines.files import digest_file, explain, read_file
from era_ingest.pipelines.reader_pool import ReaderPool
from era_ingest.pipelines.reading import ReadOptions, open_book, read_books, read_chunks, read_or_refuse
from era_ingest.settings import load_settings
from era_ingest.store.chunk_table import chunks_of
from era_ingest.store.landing import BUILT_IN_FORMATS, scan, source_of

if TYPE_CHECKING:
    from era_ingest.core.source import BookSource
    from era_ingest.errors import EraError

SAMPLES = Path(reading.__file__).parents[1] / "samples"
DOCUMENT = [
    {"chapter_index": 1, "domains": ["Risk"], "rules": ["Leave a margin."], "raw_text": "Text. " * 300}
]
PLUGIN = """
    import os, sys, time

    def read(path):
        text = path.read_text()
        print("noise on standard output")
        if text == "die":
            os._exit(7)
        if text == "hang":
            time.sleep(600)
        if text == "raise":
            raise ValueError("no such format")
        return {"title": text, "chapters": [{"chapter_index": 1, "rules": ["From a plug-in."]}]}

    def interrupt(path):
        raise KeyboardInterrupt
"""


def _write(folder: Path, name: str, document: object = DOCUMENT) -> BookSource:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return source_of(path, {**BUILT_IN_FORMATS, "odd": "odd"})


def _reason(outcome: object) -> str:
    assert isinstance(outcome, MalformedDocumentError)
    return outcome.reason


def _title(outcome: object) -> str | None:
    assert isinstance(outcome, ChunkedBook)
    return outcome.record.title


def _readers() -> list[psutil.Process]:
    """Return the reading processes that this one has started; other tests may have others at work."""
    return [child for child in psutil.Process().children() if "reader_worker" in " ".join(child.cmdline())]


async def _read_all(sources: list[BookSource], options: ReadOptions) -> list[ChunkedBook | EraError]:
    async with aclosing(read_books(sources, options)) as outcomes:
        found = [outcome async for outcome in outcomes]
    assert [source for source, _ in found] == sources
    return [outcome for _, outcome in found]


@pytest.fixture
def in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any two books are worth processes."""
    monkeypatch.setattr(reading, "MIN_PARALLEL_BOOKS", 2)
    monkeypatch.setattr(reading, "MIN_PARALLEL_BYTES", 0)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReadOptions:
    """Options with a plugged-in reader for ``.odd`` files."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "odd_reader_of_tests.py").write_text(textwrap.dedent(PLUGIN))
    monkeypatch.syspath_prepend(str(folder))
    return ReadOptions(readers={"odd": "odd_reader_of_tests:read"}, processes=2)


def test_the_samples_are_clean() -> None:
    """The corpus that ships loads whole, without a defect."""
    found = scan(SAMPLES)
    assert not found.defects
    books = [open_book(source, ReadOptions())[0].whole() for source in found.sources]
    assert {source.format for source in found.sources} == {"doctrine", "json", "markdown"}
    assert sum(len(book.chapters) for book in books) >= 15
    assert sum(book.entry_count for book in books) >= 100
    assert not [book.defects for book in books if book.defects]
    assert len({domain for book in books for chapter in book.chapters for domain in chapter.domains}) >= 8


def test_a_book_becomes_a_table_and_a_record(tmp_path: Path) -> None:
    """The record counts what the table holds, and digests the bytes that were read."""
    source = _write(tmp_path, "A Book.json", {"title": "T", "chapters": [{**DOCUMENT[0], "claims": [3]}]})
    book = read_chunks(source, ReadOptions(processing="p", passages=PassageSizes(100, 200)))
    record = book.record
    chunks = chunks_of(book.table)
    assert (record.name, record.title, record.format, record.root) == ("A Book", "T", "json", str(tmp_path))
    assert (record.chapters, record.entries, record.processing) == (1, 1, "p")
    assert record.passages == len(chunks) - 1 > 0
    assert [defect.reason for defect in record.defects] == ["unknown_item_shape"]
    (file,) = record.files
    assert file.sha256 == hashlib.sha256(Path(source.path).read_bytes()).hexdigest()
    assert (file.path, file.size, file.inode) == (source.path, source.size, source.files[0].inode)
    assert read_chunks(source, ReadOptions(passages=None)).record.passages == 0


def test_options_come_from_the_settings() -> None:
    """Sizes, aliases and bounds; aliases that cannot be are told before anything is read."""
    settings = load_settings(passage_min_chars=100, passage_max_chars=200, domain_aliases={"a": "b"})
    options = ReadOptions.from_settings(settings, processing="x")
    assert options.passages == PassageSizes(100, 200, 0)
    assert options.aliases == {"a": "b"}
    assert ReadOptions.from_settings(load_settings(passages="off")).passages is None
    with pytest.raises(ConfigurationError):
        ReadOptions.from_settings(load_settings(domain_aliases={"a": "all"}))


def test_a_file_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    """A sparse file of a terabyte costs nothing."""
    source = _write(tmp_path, "huge.json")
    os.truncate(source.path, 1 << 40)
    for read in (read_file, digest_file):
        with pytest.raises(MalformedDocumentError, match="ERA_MAX_FILE_BYTES") as caught:
            read(source.files[0], max_bytes=1 << 20)
        assert caught.value.reason == "too_large"


def test_a_file_that_grows_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size or time at the end is not what it was at the beginning."""
    source = _write(tmp_path, "growing.json")
    real = os.fstat
    calls: list[int] = []

    def grow_between(descriptor: int) -> os.stat_result:
        if calls:
            with Path(source.path).open("a") as stream:
                stream.write(" ")
        calls.append(descriptor)
        return real(descriptor)

    monkeypatch.setattr("era_ingest.pipelines.files.os.fstat", grow_between)
    for read in (read_file, digest_file):
        calls.clear()
        with pytest.raises(MalformedDocumentError) as caught:
            read(source.files[0], max_bytes=1 << 20)
        assert caught.value.reason == "growing"


def test_a_file_that_is_gone_or_no_file_is_refused(tmp_path: Path) -> None:
    """Vanished since the scan; replaced by a folder or a pipe, which nothing waits for."""
    source = _write(tmp_path, "x.json")
    os.unlink(source.path)  # noqa: PTH108
    assert _reason(read_or_refuse(source, ReadOptions())) == "vanished"
    os.mkfifo(source.path)
    assert _reason(read_or_refuse(source, ReadOptions())) == "not_a_file"
    os.unlink(source.path)  # noqa: PTH108
    os.mkdir(source.path)  # noqa: PTH102
    assert _reason(read_or_refuse(source, ReadOptions())) in {"not_a_file", "unreadable"}


def test_errors_of_the_system_are_told_apart() -> None:
    """No right to read is the file's; a disk that does not answer is transient."""
    assert _reason(explain("x", PermissionError(errno.EACCES, "Permission denied"))) == "unreadable"
    assert isinstance(explain("x", OSError(errno.EIO, "Input/output error")), StoreUnavailableError)


def test_formats_are_told_by_suffix(tmp_path: Path) -> None:
    """Markdown, plain text; a format whose reader is not installed any more is refused."""
    assert _title(read_or_refuse(_write(tmp_path, "a.md", "# T\n# A\nx\n# B\ny"), ReadOptions())) is None
    text = read_or_refuse(_write(tmp_path, "b.txt", "Chapter 1\n\nx\n\nChapter 2\n\ny"), ReadOptions())
    assert isinstance(text, ChunkedBook)
    assert text.record.chapters == 2
    assert _reason(read_or_refuse(_write(tmp_path, "c.odd", "x"), ReadOptions())) == "no_reader"


def test_a_plugged_in_reader_is_asked(tmp_path: Path, plugin: ReadOptions) -> None:
    """What it returns is parsed like a file; what it raises refuses its book."""
    assert _title(read_or_refuse(_write(tmp_path, "a.odd", "good"), plugin)) == "good"
    refused = read_or_refuse(_write(tmp_path, "b.odd", "raise"), plugin)
    assert _reason(refused) == "reader_failed"
    assert "ValueError: 'no such format'" in str(refused)
    broken = replace(plugin, readers={"odd": "odd_reader_of_tests:missing"})
    assert _reason(read_or_refuse(_write(tmp_path, "c.odd", "good"), broken)) == "reader_failed"


def test_entry_points_add_formats_and_replace_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that declares readers for ``.odd`` and ``.json`` adds only the first."""
    info = tmp_path / "odd-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[era_ingest.readers]\nodd = odd_reader:read\njson = odd_reader:read\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert formats.discover_readers()["odd"] == "odd_reader:read"
    assert formats.known_formats()["odd"] == "odd"
    assert formats.known_formats()["json"] == "json"


def test_no_error_of_one_book_stops_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug, or no memory, refuses the book with a reason."""
    source = _write(tmp_path, "a.json")
    for error, reason in ((ZeroDivisionError("bug"), "reader_failed"), (MemoryError(), "too_large")):

        def fail(*_arguments: Any, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(book_reading, "parse_book", fail)
        assert _reason(read_or_refuse(source, ReadOptions())) == reason


async def test_books_come_in_order_good_and_bad(tmp_path: Path) -> None:
    """One thread reads a few small books; each has its outcome."""
    documents: list[object] = [DOCUMENT, "[1, 2", DOCUMENT, '{"no": "book"}', "[]"]
    sources = [_write(tmp_path, f"{number}.json", document) for number, document in enumerate(documents)]
    outcomes = await _read_all(sources, ReadOptions())
    kinds = [outcome.reason if isinstance(outcome, MalformedDocumentError) else "" for outcome in outcomes]
    assert kinds == ["", "truncated", "", "no_chapters", ""]


@pytest.mark.usefixtures("in_processes")
async def test_processes_give_what_one_thread_gives(tmp_path: Path) -> None:
    """The same tables and records, the same errors, in the same order; and no process is left."""
    documents: list[object] = [DOCUMENT, "[1, 2", [{"chapter_index": 1, "rules": [None]}], DOCUMENT]
    sources = [_write(tmp_path, f"{number}.json", document) for number, document in enumerate(documents)]
    alone = await _read_all(sources, ReadOptions(processes=1))
    together = await _read_all(sources, ReadOptions(processes=2))
    for one, other in zip(alone, together, strict=True):
        if isinstance(one, ChunkedBook):
            assert isinstance(other, ChunkedBook)
            assert one.record == other.record
            assert one.table.equals(other.table, check_metadata=True)
        else:
            assert str(one) == str(other)
            assert _reason(one) == _reason(other)
    assert not _readers()


@pytest.mark.usefixtures("in_processes")
async def test_a_book_that_kills_its_process_costs_only_itself(tmp_path: Path, plugin: ReadOptions) -> None:
    """The process is replaced; a reader that prints does no harm."""
    texts = ["one", "die", "two", "die", "three", "four"]
    sources = [_write(tmp_path, f"{number}.odd", text) for number, text in enumerate(texts)]
    outcomes = await _read_all(sources, plugin)
    assert [_title(outcomes[at]) for at in (0, 2, 4, 5)] == ["one", "two", "three", "four"]
    assert _reason(outcomes[1]) == _reason(outcomes[3]) == "reader_died"
    assert "status 7" in str(outcomes[1])


def test_a_book_that_takes_too_long_is_given_up(tmp_path: Path, plugin: ReadOptions) -> None:
    """Its process is killed when its time is over."""
    source = _write(tmp_path, "a.odd", "hang")
    options = replace(plugin, timeout_s=0.1)
    with ReaderPool(options, fallback=lambda one: read_or_refuse(one, options)) as pool:
        assert _reason(pool.read(source)) == "reader_timeout"
        assert not _readers()


@pytest.mark.usefixtures("in_processes")
async def test_stopping_early_leaves_no_process(tmp_path: Path, plugin: ReadOptions) -> None:
    """Closing the stream kills the processes, also in the middle of a book."""
    sources = [_write(tmp_path, f"{number}.odd", text) for number, text in enumerate(["one", "hang", "hang"])]
    async with aclosing(read_books(sources, plugin)) as outcomes:
        first = await anext(outcomes)
        assert _title(first[1]) == "one"
        assert _readers()
    assert not _readers()


@pytest.mark.usefixtures("in_processes")
async def test_where_no_process_starts_this_one_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken interpreter path, or one that cannot import the package."""
    sources = [_write(tmp_path, f"{number}.json") for number in range(3)]
    for executable in ("/nowhere/python", "/bin/false"):
        monkeypatch.setattr("era_ingest.pipelines.reader_pool.sys.executable", executable)
        outcomes = await _read_all(sources, ReadOptions(processes=2))
        assert all(isinstance(outcome, ChunkedBook) for outcome in outcomes)


async def test_reading_ahead_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the consumer holds the first book, at most two more a worker are read, or their bytes' bound."""
    sources = [_write(tmp_path, f"{number}.json") for number in range(9)]
    begun: list[str] = []

    def note(source: BookSource, options: ReadOptions) -> ChunkedBook | EraError:
        begun.append(source.name)
        return read_chunks(source, options)

    monkeypatch.setattr(reading, "read_or_refuse", note)
    for bound, expected in ((1 << 30, 4), (1, 2)):
        begun.clear()
        monkeypatch.setattr(reading, "MAX_BYTES_IN_FLIGHT", bound)
        async with aclosing(read_books(sources, ReadOptions())) as outcomes:
            await anext(outcomes)
            assert len(begun) <= expected


def test_a_closed_pool_starts_nothing(tmp_path: Path) -> None:
    """A thread that comes late reads by itself."""
    source = _write(tmp_path, "a.json")
    options = ReadOptions()
    with ReaderPool(options, fallback=lambda one: read_or_refuse(one, options)) as pool:
        pass
    assert isinstance(pool.read(source), ChunkedBook)
    assert not _readers()


def test_few_or_small_books_are_not_worth_processes(tmp_path: Path) -> None:
    """The start of processes is paid only where there is enough to read."""
    source = _write(tmp_path, "a.json")
    large = replace(source, files=(replace(source.files[0], size=50_000_000),))
    assert reading._worker_count([source] * 100, ReadOptions(processes=8)) == 1
    assert reading._worker_count([large] * 3, ReadOptions(processes=8)) == 1
    assert reading._worker_count([large] * 6, ReadOptions(processes=8)) == 6
    assert reading._worker_count([large] * 6, ReadOptions(processes=1)) == 1
