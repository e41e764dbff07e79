"""A book that somebody hands in: is its name fit, is it a book, and where does it go?

What is handed in becomes a file of the landing folder, by the rules that hold for every book there.
"""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from era_ingest.core.model import Defect
from era_ingest.core.names import book_slug
from era_ingest.core.source import BookSource, SourceFile
from era_ingest.errors import (
    BookRefusedError,
    ConfigurationError,
    ConflictError,
    InvalidNameError,
    MalformedDocumentError,
    NotFoundError,
    StoreUnavailableError,
)
from era_ingest.pipelines.book_reading import open_book, parse_bytes
from era_ingest.pipelines.formats import known_formats
from era_ingest.store import landing
from era_ingest.store.atomic import write_bytes

if TYPE_CHECKING:
    from era_ingest.core.open_book import OpenBook
    from era_ingest.pipelines.book_reading import ReadOptions

MAX_NAME_BYTES = 200
"""Of a book's name; with a suffix, and a temporary name beside it, a file system takes 255."""


@dataclass(frozen=True, slots=True)
class PostedBook:
    """A book that was handed in and can be loaded.

    Attributes:
        name: The book's name.
        slug: Its partition key.
        suffix: Of its file, without the dot; ``""`` where it lies in the landing folder already.
        data: Its bytes; empty where it lies there already.
        defects: What of it will be refused while the rest is loaded.
    """

    name: str
    slug: str
    suffix: str
    data: bytes
    defects: tuple[Defect, ...] = ()

    @property
    def digest(self) -> bytes:
        """SHA-256 of all that was handed in."""
        digest = sha256()
        for part in (self.name.encode(), self.suffix.encode(), self.data):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.digest()


def check_name(name: str) -> str:
    """Return a book's name, if a file of the landing folder may be called so.

    Raises:
        InvalidNameError: It is empty, long, hidden, a path, or holds characters that cannot be seen.
    """
    reason = ""
    if not name or name != name.strip():
        reason = "empty or with blanks around it"
    elif len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        reason = f"longer than {MAX_NAME_BYTES} bytes"
    elif "/" in name or "\\" in name:
        reason = "a path"
    elif name.startswith((".", "_")):
        reason = "hidden: what begins with . or _ is no book"
    elif name.lower().startswith(landing.NO_BOOKS):
        reason = f"that of no book: {', '.join(landing.NO_BOOKS)} are left alone"
    elif any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in name):
        reason = "with control characters or line breaks"
    if reason:
        raise InvalidNameError(
            f"A book cannot have this name: it is {reason}.", name=name[:60], reason="book_name"
        )
    return name


def check_posted(root: Path, name: str, suffix: str, data: bytes, options: ReadOptions) -> PostedBook:
    """Return a book that was handed in, read as the pipeline will read it.

    Args:
        root: The landing folder.
        name: The book's name, not trusted.
        suffix: Of a built-in format: ``json``, ``md`` or ``txt``.
        data: The file's bytes.
        options: How books are read.

    Raises:
        InvalidNameError: See `check_name`.
        BookRefusedError: Nothing of it could be loaded.
        ConflictError: The landing folder has this book in another form.
    """
    check_name(name)
    _refuse_other_forms(root, name, suffix)
    file = SourceFile(f"{name}.{suffix}", "book", len(data), 0, 0)
    source = BookSource(name, book_slug(name), "", landing.BUILT_IN_FORMATS[suffix], (file,))
    try:
        defects = _check(parse_bytes(source, data, options))
    except MalformedDocumentError as error:
        raise _refusal(error) from error
    return PostedBook(name, source.slug, suffix, data, defects)


def check_landed(root: Path, name: str, options: ReadOptions) -> PostedBook:
    """Return a book that lies in the landing folder, read as the pipeline will read it.

    Raises:
        InvalidNameError: See `check_name`.
        NotFoundError: It does not lie there.
        BookRefusedError: Nothing of it could be loaded.
    """
    check_name(name)
    found = _places(root, name)
    if not found:
        raise NotFoundError(f"The landing folder has no book {name!r}: post it.")
    try:
        source = landing.source_of(found[0], known_formats())
        defects = _check(open_book(source, options)[0])
    except ConfigurationError as error:
        raise NotFoundError(
            f"The landing folder has no book {name!r} that can be taken: {error.message}"
        ) from error
    except MalformedDocumentError as error:
        raise _refusal(error) from error
    return PostedBook(name, source.slug, "", b"", defects)


def find_landed(root: Path, name: str) -> BookSource | None:
    """Return the book that lies in the landing folder under a name; None: there is none that can be taken."""
    found = _places(root, name)
    with suppress(ConfigurationError):
        return landing.source_of(found[0], known_formats()) if found else None
    return None


def place(root: Path, book: PostedBook) -> None:
    """Put a book into the landing folder in one step; one of the same name and form is replaced.

    Raises:
        StoreUnavailableError: The folder cannot be written, or its disk is full.
    """
    if not book.suffix:
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        write_bytes(root / f"{book.name}.{book.suffix}", book.data)
    except OSError as error:
        raise StoreUnavailableError(
            f"The book cannot be put into the landing folder: {error.strerror or error}. Free space, or mend its "
            "permissions."
        ) from error


def _places(root: Path, name: str) -> list[Path]:
    """Return where a book of a name lies, in the order in which forms win over one another."""
    folder = [root / name] if (root / name / landing.DOCTRINE_FILE).is_file() else []
    return folder + [path for suffix in known_formats() if (path := root / f"{name}.{suffix}").is_file()]


def _refuse_other_forms(root: Path, name: str, suffix: str) -> None:
    others = [path for path in _places(root, name) if path != root / f"{name}.{suffix}"]
    if others:
        raise ConflictError(
            f"The landing folder has the book {name!r} as {others[0].name} already: remove that, or post another name.",
            reason="other_form",
        )


def _check(book: OpenBook) -> tuple[Defect, ...]:
    """Read a book to its end; return its defects, if there is anything else to it.

    Raises:
        BookRefusedError: Every part of it is a defect.
        MalformedDocumentError: It is no book.
    """
    loadable = False
    for chapter in book:
        entries = sum(1 for _ in chapter.entries)
        loadable |= bool(entries or chapter.text)
    defects = tuple(replace(defect, file=Path(defect.file).name) for defect in book.defects)
    if defects and not loadable:
        raise BookRefusedError("Nothing of this book could be loaded.", defects=defects)
    return defects


def _refusal(error: MalformedDocumentError) -> BookRefusedError:
    detail = error.message.replace(error.file, Path(error.file).name)
    defect = Defect(Path(error.file).name, error.pointer, error.reason, detail)
    return BookRefusedError(detail, defects=(defect,))
