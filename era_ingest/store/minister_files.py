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

from dataclasses import dataclass
from typing import TYPE_CHECKING

from era_ingest.core.minister import COMBINED_FILE, DOMAIN_FILES
from era_ingest.core.names import DomainName
from era_ingest.errors import InvalidNameError, StoreUnavailableError
from era_ingest.store.atomic import PendingFile, prepare_bytes, remove_file, sweep_temporaries, sync_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from era_ingest.core.minister import DomainFiles


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


def write_domain(root: Path, built: DomainFiles) -> FileChanges:
    """Make a domain's folder hold these files; those of ours that it should not hold are removed.

    Two writers of one domain must not run at once (the store's lock on the domain sees to that).

    Raises:
        InvalidNameError: The domain is no valid name.
        StoreUnavailableError: The disk is full, read-only or away; every file is whole, old or new.
    """
    domain = DomainName(built.domain).value
    return _write_files(root, root / domain, built.files, owned=DOMAIN_FILES, label=f"{domain}/")


def write_combined(root: Path, payload: bytes) -> FileChanges:
    """Write the combined index.

    Raises:
        StoreUnavailableError: The disk is full, read-only or away; the old file is whole.
    """
    return _write_files(root, root, {COMBINED_FILE: payload}, owned=(COMBINED_FILE,), label="")


def read_domain(root: Path, domain: str) -> dict[str, bytes]:
    """Return those of our files that a domain's folder holds, by name.

    Raises:
        StoreUnavailableError: The folder cannot be read.
    """
    return _read(root / DomainName(domain).value, DOMAIN_FILES)


def read_combined(root: Path) -> bytes | None:
    """Return the combined index; None where there is none.

    Raises:
        StoreUnavailableError: It cannot be read.
    """
    return _read(root, (COMBINED_FILE,)).get(COMBINED_FILE)


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


def _write_files(
    root: Path, folder: Path, files: Mapping[str, bytes], *, owned: tuple[str, ...], label: str
) -> FileChanges:
    try:
        present = _read(folder, owned)
        gone = [name for name in owned if name in present and name not in files]
        changed = [name for name in owned if name in files and present.get(name) != files[name]]
        if changed:
            folder.mkdir(parents=True, exist_ok=True)
            _publish([(folder / name, files[name]) for name in changed])
        for name in gone:
            remove_file(folder / name)
        if gone and not files and folder != root:
            _remove_if_empty(folder)
        elif changed or gone:
            sync_folder(folder)
    except OSError as error:
        raise _unavailable(folder, "written", error) from error
    return FileChanges(
        written=tuple(label + name for name in changed),
        removed=tuple(label + name for name in gone),
        unchanged=tuple(label + name for name in owned if name in files and name not in changed),
    )


def _publish(files: list[tuple[Path, bytes]]) -> None:
    """Write every file beside its place, then rename them all."""
    pending: list[PendingFile] = []
    try:
        for path, payload in files:
            pending.append(prepare_bytes(path, payload))
        for file in pending:
            file.publish()
    finally:
        for file in pending:
            file.discard()
    folder = files[0][0].parent
    sweep_temporaries(folder, files[-1][0].stat().st_mtime)


def _read(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    found = {}
    for name in names:
        try:
            found[name] = (folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise _unavailable(folder / name, "read", error) from error
    return found


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
