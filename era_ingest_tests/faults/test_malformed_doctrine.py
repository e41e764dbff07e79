"""Doctrine that goes wrong in eighty ways: refused with place and reason, or read; neighbours are loaded."""

from __future__ import annotations

import shutil
import time
from itertools import cycle, islice
from typing import TYPE_CHECKING

import pytest

from era_ingest.core.reasons import REASONS
from era_ingest.core.text import clean_line
from era_ingest.errors import EraError, MalformedDocumentError
from era_ingest.pipelines.reading import ReadOptions, read_or_refuse
from era_ingest.store.landing import scan
from era_ingest_tests.faults.mutators import MUTATORS, Case, mutate, read_samples
from era_ingest_tests.faults.scale import seeded, short_and_long

if TYPE_CHECKING:
    from pathlib import Path

    from era_ingest.core.model import Defect
    from era_ingest.core.source import BookSource

SECONDS_A_BOOK = 0.5
SECONDS_A_MEGABYTE = 1.0
"""CPU time that a book may take: so much at least, and so much a megabyte."""


def _check_place(file: str, pointer: str, reason: str, detail: str, path: Path) -> None:
    """A refusal names the file, a place in it, a reason that is explained, and one sentence."""
    assert str(path) in file
    assert pointer == "" or pointer.startswith("/")
    assert reason in REASONS, (reason, detail)
    assert detail
    assert len(detail) < 1000
    detail.encode()
    pointer.encode()


def _check_defects(defects: tuple[Defect, ...], path: Path) -> None:
    for defect in defects:
        _check_place(defect.file, defect.pointer, defect.reason, defect.detail, path)


def _check_case(source: BookSource, case: Case, path: Path) -> None:
    """A book is read or refused in time, and what was not harmed is in it."""
    started = time.process_time()
    outcome = read_or_refuse(source, ReadOptions())
    taken = time.process_time() - started
    assert taken <= SECONDS_A_BOOK + SECONDS_A_MEGABYTE * source.size / 1e6
    if isinstance(outcome, EraError):
        assert isinstance(outcome, MalformedDocumentError)
        assert outcome.reason != "reader_failed", outcome.message
        assert case.all_harmed, outcome.message
        _check_place(outcome.file, outcome.pointer, outcome.reason, outcome.message, path)
        return
    _check_defects(outcome.record.defects, path)
    if not case.all_harmed:
        wanted = {clean_line(text).text for text in case.original - case.harmed}
        found = set(outcome.table.column("text").to_pylist())
        assert wanted - {""} <= found


def test_there_are_forty_ways_and_more() -> None:
    """Entries, chapters, files of texts, and bytes."""
    assert len(MUTATORS) >= 40


@pytest.mark.parametrize("count", short_and_long(2_000, 100_000))
def test_whatever_goes_wrong_is_told_and_its_neighbours_are_read(count: int, tmp_path: Path) -> None:
    """Each way in turn, alone and with others: no crash, no lost neighbour, no reader's bug, in time."""
    samples = read_samples()
    landing = tmp_path / "landing"
    with seeded() as rng:
        for number, name in enumerate(islice(cycle(MUTATORS), count)):
            case = mutate(rng, samples, name)
            landing.mkdir()
            path = case.write(landing, f"book {number}")
            found = scan(landing)
            try:
                assert len(found.sources) == 1
                _check_case(found.sources[0], case, path)
            except AssertionError as error:
                error.add_note(f"{name}: {case.data[:2000]!r}")
                raise
            shutil.rmtree(landing)
