from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from era_ingest.errors import ConfigurationError, StoreUnavailableError
from era_ingest.store.landing import BUILT_IN_FORMATS, is_gone, scan, scan_all, source_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from era_ingest.store.landing import LandingScan

NOBODY = 65534


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    """An empty landing folder."""
    root = tmp_path / "landing folder"
    root.mkdir()
    return root


@contextmanager
def _ordinary_user(folder: Path) -> Iterator[None]:
    """Be nobody for a while if the tests run as root, whom no permission stops."""
    if os.geteuid() != 0:
        yield
        return
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == 0 and parent != Path(parent.anchor):
            parent.chmod(parent.stat().st_mode | 0o055)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def _book(root: Path, name: str, *, chapters: bool = False) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "02_doctrine.json").write_text("[]")
    if chapters:
        (folder / "01_chapters.json").write_text("[]")
    return folder


def _names(found: LandingScan) -> list[tuple[str, str]]:
    return sorted((source.name, source.format) for source in found.sources)


def _reasons(found: LandingScan) -> list[tuple[str, str]]:
    return [(Path(defect.file).name, defect.reason) for defect in found.defects]


def test_folders_and_files_are_books(landing: Path) -> None:
    """A folder with doctrine, and files by their suffix, whatever its case."""
    _book(landing, "Beyond good, and evil", chapters=True)
    _book(landing, "crime")
    for name in ("One.json", "two.MD", "three.markdown", "four.txt", "five.epub"):
        (landing / name).write_text("x")
    found = scan(landing, {**BUILT_IN_FORMATS, "epub": "epub"})
    assert _names(found) == [
        ("Beyond good, and evil", "doctrine"),
        ("One", "json"),
        ("crime", "doctrine"),
        ("five", "epub"),
        ("four", "text"),
        ("three", "markdown"),
        ("two", "markdown"),
    ]
    assert not found.defects
    book = next(source for source in found.sources if source.name.startswith("Beyond"))
    assert [file.role for file in book.files] == ["doctrine", "chapters"]
    assert book.path == str(landing / book.name)
    assert book.root == str(landing)
    assert [source.slug for source in found.sources] == sorted(source.slug for source in found.sources)


def test_what_is_no_book_is_ignored(landing: Path) -> None:
    """Readme, licence and changelog, hidden and underscored names, formats that nobody reads."""
    for name in (
        "README.md",
        "readme.txt",
        "LICENSE.txt",
        "Changelog.md",
        ".x.json",
        "_x.json",
        "x.pdf",
        "x",
    ):
        (landing / name).write_text("x")
    (landing / ".git").mkdir()
    _book(landing, "Licensed to read")
    found = scan(landing)
    assert _names(found) == [("Licensed to read", "doctrine")]
    assert found.ignored == 9
    assert not found.defects


def test_a_folder_without_doctrine_is_a_defect(landing: Path) -> None:
    """It may be on its way: it is told, and its neighbours load."""
    (landing / "half").mkdir()
    (landing / "half" / "01_chapters.json").write_text("[]")
    (landing / "empty").mkdir()
    _book(landing, "whole")
    found = scan(landing)
    assert _names(found) == [("whole", "doctrine")]
    assert _reasons(found) == [("empty", "no_doctrine"), ("half", "no_doctrine")]


def test_of_two_books_of_one_name_the_folder_stands(landing: Path) -> None:
    """The others are defects that name what stands."""
    _book(landing, "crime")
    for name in ("crime.json", "crime.txt"):
        (landing / name).write_text("x")
    found = scan(landing)
    assert _names(found) == [("crime", "doctrine")]
    assert _reasons(found) == [("crime.json", "name_clash"), ("crime.txt", "name_clash")]
    assert str(landing / "crime") in found.defects[0].detail


def test_names_that_fold_alike_are_two_books(landing: Path) -> None:
    """Both load, under different slugs."""
    for name in ("Thus spoke", "thus-spoke", "Thus Spoke"):
        _book(landing, name)
    found = scan(landing)
    assert len({source.slug for source in found.sources}) == 3
    assert not found.defects


def test_a_name_that_is_no_unicode_is_shown(landing: Path) -> None:
    """The name is text, the path stays what the system calls it."""
    folder = os.path.join(os.fsencode(landing), b"caf\xe9")  # noqa: PTH118
    os.mkdir(folder)  # noqa: PTH102
    Path(os.fsdecode(folder), "02_doctrine.json").write_text("[]")
    (source,) = scan(landing).sources
    assert source.name == "caf\\xe9"
    assert Path(source.path).exists()
    source.name.encode()
    assert len(source.fingerprint) == 32


def test_links_may_not_leave_the_landing_folder(landing: Path, tmp_path: Path) -> None:
    """A folder, a file, or a file within a book; links inside stand, circles and dead ends are told."""
    outside = _book(tmp_path / "outside", "secret")
    (landing / "out").symlink_to(outside)
    (landing / "out.json").symlink_to(outside / "02_doctrine.json")
    inner = _book(landing, "inner")
    (inner / "01_chapters.json").symlink_to(outside / "02_doctrine.json")
    inside = _book(landing, "inside")
    (landing / "alias").symlink_to(inside)
    (landing / "dead.json").symlink_to(landing / "nowhere")
    (landing / "loop").symlink_to(landing / "loop")
    found = scan(landing)
    assert _names(found) == [("alias", "doctrine"), ("inside", "doctrine")]
    assert _reasons(found) == [
        ("dead.json", "broken_link"),
        ("01_chapters.json", "link_leaves_root"),
        ("loop", "broken_link"),
        ("out", "link_leaves_root"),
        ("out.json", "link_leaves_root"),
    ]


def test_the_landing_folder_itself_may_be_a_link(landing: Path, tmp_path: Path) -> None:
    """What lies in it is inside."""
    _book(landing, "crime")
    link = tmp_path / "link"
    link.symlink_to(landing)
    (source,) = scan(link).sources
    assert source.root == str(link)


def test_pipes_and_sockets_are_never_opened(landing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are defects; opening one would hang."""
    os.mkfifo(landing / "pipe.json")
    (landing / "folder.json").mkdir()
    monkeypatch.chdir(landing)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.json")
        assert _reasons(scan(landing)) == [
            ("folder.json", "no_doctrine"),
            ("pipe.json", "not_a_file"),
            ("socket.json", "not_a_file"),
        ]


def test_what_cannot_be_read_is_a_defect_and_not_gone(landing: Path) -> None:
    """A closed folder keeps its book: its neighbours load, and it does not count as removed."""
    _book(landing, "open")
    closed = _book(landing, "closed")
    closed.chmod(0)
    try:
        with _ordinary_user(landing):
            found = scan(landing)
            assert _names(found) == [("open", "doctrine")]
            assert _reasons(found) == [("02_doctrine.json", "unreadable")]
            assert not is_gone(str(closed), str(landing))
    finally:
        closed.chmod(0o755)


def test_a_landing_folder_that_cannot_be_listed_is_an_error(landing: Path) -> None:
    """Nothing of it counts as removed."""
    book = _book(landing, "crime")
    landing.chmod(0)
    try:
        with _ordinary_user(landing.parent):
            landing_is_closed = not os.access(landing, os.R_OK, effective_ids=True)
            assert landing_is_closed
            with pytest.raises(ConfigurationError, match="permissions"):
                scan(landing)
            assert not is_gone(str(book), str(landing))
    finally:
        landing.chmod(0o755)


def test_a_missing_landing_folder_is_an_error(tmp_path: Path) -> None:
    """The message says what to do."""
    with pytest.raises(ConfigurationError, match="ERA_LANDING_DIR"):
        scan(tmp_path / "nowhere")


def test_a_disk_that_does_not_answer_is_transient(landing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input/output error is none of the user's making."""

    def fail(_path: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("era_ingest.store.landing.os.scandir", fail)
    with pytest.raises(StoreUnavailableError, match="disk"):
        scan(landing)


def test_only_a_missing_path_is_gone(landing: Path) -> None:
    """Not a folder that lost its doctrine, not a folder whose root is away."""
    book = _book(landing, "crime")
    source = source_of(book)
    assert not is_gone(source.path, source.root)
    (book / "02_doctrine.json").unlink()
    assert not is_gone(source.path, source.root)
    book.rmdir()
    assert is_gone(source.path, source.root)
    landing.rmdir()
    assert not is_gone(source.path, source.root)


def test_a_book_may_be_named_itself(landing: Path, tmp_path: Path) -> None:
    """A book's folder, a file of any name, and a link to somewhere else, since a person named it."""
    book = _book(landing, "crime", chapters=True)
    readme = landing / "README.md"
    readme.write_text("text")
    (tmp_path / "link.md").symlink_to(readme)
    (tmp_path / "folder").symlink_to(book)
    assert source_of(book).name == "crime"
    assert source_of(book).root == str(landing)
    assert source_of(readme).format == "markdown"
    assert source_of(tmp_path / "link.md").name == "link"
    assert len(source_of(tmp_path / "folder").files) == 2


def test_a_file_that_no_reader_takes_is_an_error(landing: Path) -> None:
    """The message lists what is known."""
    (landing / "x.pdf").write_text("x")
    with pytest.raises(ConfigurationError, match=r"\.json, \.markdown, \.md, \.txt"):
        scan(landing / "x.pdf")
    with pytest.raises(ConfigurationError, match="not one book"):
        source_of(landing)


def test_several_paths_are_scanned_together(landing: Path, tmp_path: Path) -> None:
    """A book named twice is one; two of one name in two folders clash."""
    book = _book(landing, "crime")
    _book(tmp_path / "other", "crime")
    _book(tmp_path / "other", "punishment")
    found = scan_all([landing, book, tmp_path / "other"])
    assert _names(found) == [("crime", "doctrine"), ("punishment", "doctrine")]
    assert [defect.reason for defect in found.defects] == ["name_clash"]


def test_the_fingerprint_tells_change(landing: Path) -> None:
    """Size, time, inode or path; reading a file again without a change gives the same."""
    book = _book(landing, "crime")
    doctrine = book / "02_doctrine.json"
    seen = [source_of(book).fingerprint]
    assert source_of(book).fingerprint == seen[0]
    os.utime(doctrine, ns=(1, 1))
    seen.append(source_of(book).fingerprint)
    doctrine.write_text("[ ]")
    os.utime(doctrine, ns=(1, 1))
    seen.append(source_of(book).fingerprint)
    other = book / "new"
    other.write_text("[ ]")
    os.utime(other, ns=(1, 1))
    other.replace(doctrine)
    seen.append(source_of(book).fingerprint)
    (book / "01_chapters.json").write_text("[]")
    seen.append(source_of(book).fingerprint)
    assert len(set(seen)) == 5
    assert source_of(book).modified_ns == (book / "01_chapters.json").stat().st_mtime_ns
    assert source_of(book).size == 5


def test_no_file_is_opened(landing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan only lists and stats."""
    _book(landing, "crime", chapters=True)
    (landing / "x.json").write_text("[]")

    def fail(*_arguments: object) -> None:
        pytest.fail("a file was opened")

    monkeypatch.setattr("builtins.open", fail)
    monkeypatch.setattr("os.open", fail)
    assert len(scan(landing).sources) == 2
