"""The landing folder: which books lie in it, as their names, sizes and times say, without reading one.

A folder with ``02_doctrine.json`` is a book, and so is a file with a suffix that some reader takes. What
looks like a book and cannot be one is a defect. A book that cannot be seen just now is a defect too, never
gone: `is_gone` alone says that.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from era_ingest.core.model import Defect
from era_ingest.core.names import book_slug, show_name
from era_ingest.core.source import BookSource, SourceFile
from era_ingest.errors import ConfigurationError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

DOCTRINE_FILE = "02_doctrine.json"
CHAPTERS_FILE = "01_chapters.json"
BUILT_IN_FORMATS: Mapping[str, str] = {
    "json": "json",
    "md": "markdown",
    "markdown": "markdown",
    "txt": "text",
}
"""From a file's suffix, lower case and without the dot, to a source's format."""
NO_BOOKS = ("readme", "license", "changelog")
"""How the names of files begin that lie in a folder of books without being one, in lower case."""
_RANKS = {"doctrine": 0, "json": 1, "markdown": 3, "text": 4}
_OTHER_RANK = 2


@dataclass(frozen=True, slots=True)
class LandingScan:
    """What lies in a landing folder.

    Attributes:
        sources: One a book, ordered by slug; slugs are unique.
        defects: What looks like a book and cannot be taken, ordered by path.
        ignored: Number of files that no reader takes, and hidden ones.
    """

    sources: tuple[BookSource, ...]
    defects: tuple[Defect, ...]
    ignored: int = 0


def scan(root: Path, formats: Mapping[str, str] = BUILT_IN_FORMATS) -> LandingScan:
    """Return the books of a landing folder, or the one book that the path itself is.

    Takes two system calls a book; nothing is read. Of two books of one name the folder comes first, then
    JSON, then other formats, Markdown, text; the others are defects.

    Args:
        root: A landing folder, a book's folder, or a book's file.
        formats: From suffix to format; see `BUILT_IN_FORMATS`.

    Raises:
        ConfigurationError: The path is missing, may not be read, or is a file that no reader takes.
        StoreUnavailableError: The disk does not answer.
    """
    return scan_all((root,), formats)


def scan_all(roots: Iterable[Path], formats: Mapping[str, str] = BUILT_IN_FORMATS) -> LandingScan:
    """Return the books of several paths together; names are unique over all of them.

    Raises:
        ConfigurationError: See `scan`.
        StoreUnavailableError: See `scan`.
    """
    scanner = _Scanner(formats)
    for root in roots:
        scanner.add_path(os.path.abspath(root))
    return scanner.result()


def source_of(path: Path, formats: Mapping[str, str] = BUILT_IN_FORMATS) -> BookSource:
    """Return the one book that a path is.

    Raises:
        ConfigurationError: The path is no book, or several.
        StoreUnavailableError: The disk does not answer.
    """
    found = scan(path, formats)
    if len(found.sources) != 1 or found.defects:
        why = found.defects[0].detail if found.defects else f"it holds {len(found.sources)} books."
        raise ConfigurationError(f"{path} is not one book: {why}")
    return found.sources[0]


def is_gone(source_path: str, root: str) -> bool:
    """Say whether a book was taken away: its root can be listed, and its own path does not exist.

    A folder that cannot be read, a disk that does not answer, or a book folder that only lost its doctrine
    are no removal.

    Args:
        source_path: See `BookSource.path`.
        root: The landing folder that the book was found under.
    """
    try:
        with os.scandir(root):
            pass
    except OSError:
        return False
    try:
        os.lstat(source_path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


class _Refusal(Exception):  # noqa: N818 - never leaves this module
    """A path that cannot be taken."""

    def __init__(self, path: str, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.defect = Defect(show_name(path), "", reason, detail)


class _Scanner:
    """Gathers the books of one or more paths."""

    def __init__(self, formats: Mapping[str, str]) -> None:
        self._formats = formats
        self._found: dict[str, list[BookSource]] = {}
        self._defects: list[Defect] = []
        self._ignored = 0

    def add_path(self, path: str) -> None:
        """Add a landing folder, a book's folder, or a book's file that somebody named."""
        try:
            if not stat.S_ISDIR(os.stat(path).st_mode):
                self._add_named_file(path)
            elif os.path.lexists(f"{path}/{DOCTRINE_FILE}"):
                self._add(lambda: _folder_source(os.path.dirname(path), path))
            else:
                self._add_landing(path)
        except OSError as error:
            raise _explain_root(path, error) from error

    def result(self) -> LandingScan:
        """Return what was gathered; of several books of one name the first by rank."""
        sources = []
        for slug in sorted(self._found):
            namesakes = self._found[slug]
            kept = namesakes[0] if len(namesakes) == 1 else min(namesakes, key=_rank)
            sources.append(kept)
            self._defects += [_clash(kept, other) for other in namesakes if other.path != kept.path]
        defects = sorted(self._defects, key=lambda defect: (defect.file, defect.reason))
        return LandingScan(tuple(sources), tuple(defects), self._ignored)

    def _add_named_file(self, path: str) -> None:
        suffix = _suffix(path)
        if suffix not in self._formats:
            known = ", ".join(f".{known}" for known in sorted(self._formats))
            raise ConfigurationError(f"{show_name(path)}: no reader takes this format; known are {known}.")
        self._add(lambda: _file_source(os.path.dirname(path), path, self._formats[suffix], named=True))

    def _add_landing(self, root: str) -> None:
        with os.scandir(root) as listing:
            for entry in listing:
                self._add_item(root, entry)

    def _add_item(self, root: str, entry: os.DirEntry[str]) -> None:
        name, path = entry.name, entry.path
        suffix = _suffix(name)
        try:
            if name.startswith((".", "_")):
                self._ignored += 1
                return
            if entry.is_symlink():
                _refuse_link(root, path)
            if entry.is_dir():
                self._add(lambda: _folder_source(root, path))
            elif suffix in self._formats and not name.lower().startswith(NO_BOOKS):
                self._add(lambda: _file_source(root, path, self._formats[suffix]))
            else:
                self._ignored += 1
        except _Refusal as refusal:
            self._defects.append(refusal.defect)
        except OSError as error:
            self._defects.append(_unreadable(path, error).defect)

    def _add(self, build: Callable[[], BookSource]) -> None:
        try:
            source = build()
        except _Refusal as refusal:
            self._defects.append(refusal.defect)
        else:
            self._found.setdefault(source.slug, []).append(source)


def _clash(kept: BookSource, other: BookSource) -> Defect:
    detail = f"The book {kept.name!r} is {show_name(kept.path)} already: rename or remove one of them."
    return Defect(show_name(other.path), "", "name_clash", detail)


def _folder_source(root: str, path: str) -> BookSource:
    """Return the book that a folder is: its doctrine, and the chapters' text if that is there."""
    doctrine = _stat_file(root, f"{path}/{DOCTRINE_FILE}", "doctrine")
    if doctrine is None:
        raise _Refusal(path, "no_doctrine", _without_doctrine(path))
    chapters = _stat_file(root, f"{path}/{CHAPTERS_FILE}", "chapters")
    files = (doctrine,) if chapters is None else (doctrine, chapters)
    name = show_name(os.path.basename(path))
    return BookSource(name, book_slug(name), root, "doctrine", files)


def _without_doctrine(path: str) -> str:
    """Say what a folder without doctrine holds."""
    try:
        with os.scandir(path) as listing:
            count = sum(1 for _ in listing)
    except OSError as error:
        raise _unreadable(path, error) from error
    return f"The folder has no {DOCTRINE_FILE} ({count:,} other items); it is no book, or not whole yet."


def _file_source(root: str, path: str, book_format: str, *, named: bool = False) -> BookSource:
    """Return the book that a file is; one that somebody named may be a link to anywhere."""
    file = _stat_file(os.path.realpath(path) if named else root, path, "book")
    if file is None:
        raise _Refusal(path, "vanished", "The file was there a moment ago; it will be looked for again.")
    name = show_name(os.path.splitext(os.path.basename(path))[0])
    return BookSource(name, book_slug(name), root, book_format, (file,))


def _stat_file(root: str, path: str, role: str) -> SourceFile | None:
    """Return what is known of a file without opening it; None where there is none.

    Raises:
        _Refusal: It is no plain file, may not be seen, or is a link that leaves the root and its own folder.
    """
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            _refuse_link(root, path)
            found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise _Refusal(path, "not_a_file", "It is no plain file.")
    return SourceFile(path, role, found.st_size, found.st_mtime_ns, found.st_ino)


def _refuse_link(root: str, path: str) -> None:
    """Refuse a link that leads out of the landing folder (or of the book's own), to nowhere, or in a circle.

    Raises:
        _Refusal: It does.
    """
    target = os.path.realpath(path)
    allowed = (os.path.realpath(root), os.path.realpath(os.path.dirname(path)))
    if all(os.path.commonpath((folder, target)) != folder for folder in allowed):
        raise _Refusal(
            path, "link_leaves_root", "The link leads out of the landing folder: copy the book there."
        )
    if not os.path.exists(target):
        raise _Refusal(path, "broken_link", "The link leads nowhere.")


def _unreadable(path: str, error: OSError) -> _Refusal:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return _Refusal(path, "unreadable", f"It cannot be read: {reason}. What was loaded of it stays.")


def _explain_root(path: str, error: OSError) -> ConfigurationError | StoreUnavailableError:
    shown = show_name(path)
    if isinstance(error, FileNotFoundError):
        return ConfigurationError(
            f"{shown} does not exist: create it, name another path, or set ERA_LANDING_DIR."
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG}:
        return ConfigurationError(
            f"{shown} cannot be read: {os.strerror(error.errno)}. Mend its permissions."
        )
    return StoreUnavailableError(f"{shown} does not answer: {error.strerror or error}. Is the disk there?")


def _rank(source: BookSource) -> tuple[int, str]:
    return _RANKS.get(source.format, _OTHER_RANK), source.path


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1][1:].lower()
