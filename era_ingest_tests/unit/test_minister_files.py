"""Minister files on the disk: replaced whole, only where they differ, beside what belongs to others."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING

import orjson
import pytest

from era_ingest.core.minister import DOMAIN_FILES
from era_ingest.errors import InvalidNameError, StoreUnavailableError
from era_ingest.store import atomic
from era_ingest.store.minister_files import (
    DomainWriter,
    domain_digests,
    folders,
    read_combined,
    write_combined,
)
from era_ingest_tests.minister_kit import read_domain, write_domain

if TYPE_CHECKING:
    from pathlib import Path


def _built(marker: str) -> dict[str, bytes]:
    return {name: f'{{"marker": "{marker}"}}'.encode() for name in DOMAIN_FILES}


def test_first_write_makes_the_folder(tmp_path: Path) -> None:
    """The ministers' folder need not exist."""
    changes = write_domain(tmp_path / "data" / "ministers", "war", _built("a"))
    assert changes.written == tuple(f"war/{name}" for name in DOMAIN_FILES)
    assert read_domain(tmp_path / "data" / "ministers", "war") == _built("a")


def test_equal_bytes_are_not_written(tmp_path: Path) -> None:
    """Only files that differ are replaced."""
    write_domain(tmp_path, "war", _built("a"))
    other = _built("a") | {"rules.json": b"{}"}
    changes = write_domain(tmp_path, "war", other)
    assert changes.written == ("war/rules.json",)
    assert len(changes.unchanged) == 4


def test_files_go_and_the_folder_with_them(tmp_path: Path) -> None:
    """A domain that is gone leaves no empty folder."""
    write_domain(tmp_path, "war", _built("a"))
    changes = write_domain(tmp_path, "war", {})
    assert len(changes.removed) == 5
    assert list(tmp_path.iterdir()) == []


def test_files_of_others_stay(tmp_path: Path) -> None:
    """What we did not write is neither touched nor counted as a domain."""
    write_domain(tmp_path, "war", _built("a"))
    (tmp_path / "war" / "vector.index").write_text("theirs")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text").write_text("theirs")
    assert folders(tmp_path) == ["war"]
    write_domain(tmp_path, "war", {})
    assert (tmp_path / "war" / "vector.index").read_text() == "theirs"
    assert folders(tmp_path) == []


def test_missing_folder_has_no_domains(tmp_path: Path) -> None:
    """Reading before the first write finds nothing and makes nothing."""
    assert folders(tmp_path / "none") == []
    assert domain_digests(tmp_path / "none", "war") == {}
    assert read_combined(tmp_path / "none") is None


@pytest.mark.parametrize("domain", ["../war", "all", "War", "a/b", ""])
def test_name_that_is_no_domain_writes_nowhere(tmp_path: Path, domain: str) -> None:
    """A folder name cannot lead out of the ministers' folder."""
    with pytest.raises(InvalidNameError):
        write_domain(tmp_path / "ministers", domain, _built("a"))
    assert list(tmp_path.iterdir()) == []


def test_reader_never_meets_a_part_of_a_file(tmp_path: Path) -> None:
    """While files are replaced over and over, each read gives one version, whole."""
    large = {name: orjson.dumps({"marker": "x", "filler": "y" * 200_000}) for name in DOMAIN_FILES}
    versions = [_built("a"), large]
    write_domain(tmp_path, "war", versions[0])
    done = threading.Event()
    failures: list[Exception] = []

    def read() -> None:
        while not done.is_set():
            for name in DOMAIN_FILES:
                try:
                    assert orjson.loads((tmp_path / "war" / name).read_bytes())["marker"] in {"a", "x"}
                except Exception as failure:  # noqa: BLE001 - handed to the test
                    failures.append(failure)

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(60):
        write_domain(tmp_path, "war", versions[turn % 2])
    done.set()
    reader.join()
    assert not failures


def test_failure_while_writing_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up leaves the old files and no temporary ones."""
    write_domain(tmp_path, "war", _built("a"))
    real, calls = os.fsync, iter(range(100))

    def fsync(handle: int) -> None:
        if next(calls) == 3:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreUnavailableError, match=r"war cannot be written: No space left"):
        write_domain(tmp_path, "war", _built("b"))
    assert read_domain(tmp_path, "war") == _built("a")
    assert {path.name for path in (tmp_path / "war").iterdir()} == set(DOMAIN_FILES)


def test_place_that_is_no_folder_is_explained(tmp_path: Path) -> None:
    """A file where the folder should be is an error with a remedy, not a traceback."""
    (tmp_path / "war").write_text("a file")
    with pytest.raises(StoreUnavailableError, match="mend the permissions"):
        write_domain(tmp_path, "war", _built("a"))


def test_mode_of_a_replaced_file_is_kept(tmp_path: Path) -> None:
    """Who could read a file before can read it after."""
    write_combined(tmp_path, b"{}")
    path = tmp_path / "combined_vector.index"
    path.chmod(0o640)
    write_combined(tmp_path, b"[]")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert read_combined(tmp_path) == b"[]"


def test_leftovers_of_a_killed_writer_are_swept_up(tmp_path: Path) -> None:
    """They go with the next write; what another writer is at stays."""
    write_domain(tmp_path, "war", _built("a"))
    (tmp_path / "war" / f"{atomic.TEMPORARY_PREFIX}left{atomic.TEMPORARY_SUFFIX}").write_text("")
    living = atomic.prepare_bytes(tmp_path / "war" / "notes.txt", b"whole")
    write_domain(tmp_path, "war", _built("b"))
    assert [str(path) for path in (tmp_path / "war").glob(".era-*")] == [living.temporary]
    living.discard()


def test_pieces_that_are_not_published_leave_nothing(tmp_path: Path) -> None:
    """A build that breaks off half-way is not seen, and its temporary files go."""
    write_domain(tmp_path, "war", _built("a"))
    with DomainWriter(tmp_path, "war") as writer:
        writer.append({"rules.json": b"{"})
    assert read_domain(tmp_path, "war") == _built("a")
    assert {path.name for path in (tmp_path / "war").iterdir()} == set(DOMAIN_FILES)
