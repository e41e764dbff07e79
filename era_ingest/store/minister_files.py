"""Minister files on the disk: a domain's folder, and the combined index beside the folders.

Each file is replaced by renaming a whole new one over it: a reader that opens a path gets the old bytes or
the new ones, never a part, and no path is ever missing in between. All new files of a domain are on the
disk before the first is renamed, so a full disk leaves the domain as it was, and the renames follow each
other within microseconds, ``doctrine.json`` last. Exchanging the whole folder would not give readers more:
those that open the five files by their paths one after another can fall on both sides of any exchange. Who
needs the whole domain of one moment reads ``doctrine.json``, which holds all four lists.

Files that are not ours stay untouched, in the folder too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from era_ingest.core.minister import COMBINED_FILE, DOMAIN_FILES
from era_ingest.core.names import DomainName
from era_ingest.errors import InvalidNameError, StoreUnavailableError
from era_ingest.store.atomic import GrowingFile, remove_file, sweep_temporaries, sync_folder, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from era_ingest.core.minister import Pieces


@dataclass(frozen=True, slots=True)
class FileChanges:
    """What writing a folder came to; names relative to the ministers' folder.

    Attributes:
        written: Files that are new or changed.
        removed: Files that are gone.
        unchanged: Files that held their bytes already and were left alone.
    """

    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()

    def __add__(self, other: FileChanges) -> FileChanges:
        return FileChanges(
            self.written + other.written, self.removed + other.removed, self.unchanged + other.unchanged
        )


class DomainWriter:
    """Makes a domain's folder hold the files that are written piece by piece; a context manager.

    Nothing is seen of them before ``publish``; leaving without it leaves the folder as it was. Two writers of one
    domain must not run at once (the store's lock on the domain sees to that).

    Args:
        root: The ministers' folder; made where there is none.
        domain: The domain's name.

    Raises:
        InvalidNameError: It is no valid name.
    """

    def __init__(self, root: Path, domain: str) -> None:
        self._domain = DomainName(domain).value
        self._folder = root / self._domain
        self._growing: dict[str, GrowingFile] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for growing in self._growing.values():
            growing.discard()

    def append(self, pieces: Pieces) -> None:
        """Write on, and begin the files that are new.

        Raises:
            StoreUnavailableError: The disk is full, read-only or away.
        """
        try:
            for name, piece in pieces.items():
                if name not in self._growing:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    self._growing[name] = GrowingFile(self._folder / name)
                self._growing[name].append(piece)
        except OSError as error:
            raise _unavailable(self._folder, "written", error) from error

    def publish(self) -> FileChanges:
        """Put those files into place that differ; remove those of ours that were not written.

        Raises:
            StoreUnavailableError: The disk is full, read-only or away; every file is whole, old or new.
        """
        try:
            return self._publish()
        except OSError as error:
            raise _unavailable(self._folder, "written", error) from error

    def _publish(self) -> FileChanges:
        written = [name for name in DOMAIN_FILES if name in self._growing]
        changed = [name for name in written if not self._growing[name].equals(self._folder / name)]
        gone = [
            name for name in DOMAIN_FILES if name not in self._growing and (self._folder / name).is_file()
        ]
        if changed:
            pending = [self._growing[name].finish() for name in changed]
            for file in pending:
                file.publish()
            sweep_temporaries(self._folder, (self._folder / changed[-1]).stat().st_mtime)
        for name in gone:
            remove_file(self._folder / name)
        if gone and not written:
            _remove_if_empty(self._folder)
        elif changed or gone:
            sync_folder(self._folder)
        return FileChanges(
            written=self._labelled(changed),
            removed=self._labelled(gone),
            unchanged=self._labelled(name for name in written if name not in changed),
        )

    def _labelled(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(f"{self._domain}/{name}" for name in names)


def write_combined(root: Path, payload: bytes) -> FileChanges:
    """Write the combined index.

    Raises:
        StoreUnavailableError: The disk is full, read-only or away; the old file is whole.
    """
    try:
        if read_combined(root) == payload:
            return FileChanges(unchanged=(COMBINED_FILE,))
        root.mkdir(parents=True, exist_ok=True)
        write_bytes(root / COMBINED_FILE, payload)
        sweep_temporaries(root, (root / COMBINED_FILE).stat().st_mtime)
    except OSError as error:
        raise _unavailable(root, "written", error) from error
    return FileChanges(written=(COMBINED_FILE,))


def read_combined(root: Path) -> bytes | None:
    """Return the combined index; None where there is none.

    Raises:
        StoreUnavailableError: It cannot be read.
    """
    try:
        return (root / COMBINED_FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unavailable(root / COMBINED_FILE, "read", error) from error


def domain_digests(root: Path, domain: str) -> dict[str, bytes]:
    """Return the SHA-256 of those of our files that a domain's folder holds, by name.

    Raises:
        StoreUnavailableError: The folder cannot be read.
    """
    found = {}
    for name in DOMAIN_FILES:
        path = root / DomainName(domain).value / name
        try:
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").digest()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise _unavailable(path, "read", error) from error
    return found


def folders(root: Path) -> list[str]:
    """Return the domains whose folders hold files of ours, sorted."""
    try:
        return sorted(
            item.name
            for item in root.iterdir()
            if _is_domain(item.name) and any((item / name).is_file() for name in DOMAIN_FILES)
        )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unavailable(root, "read", error) from error


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder unless somebody else keeps something in it."""
    sweep_temporaries(folder, float("inf"))
    if not any(folder.iterdir()):
        folder.rmdir()


def _is_domain(name: str) -> bool:
    try:
        DomainName(name)
    except InvalidNameError:
        return False
    return True


def _unavailable(path: Path, action: str, error: OSError) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"{path} cannot be {action}: {error.strerror or error}. Make room or mend the permissions; "
        "what was there before is whole."
    )
