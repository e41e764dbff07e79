"""Names that people wrote become names that files, partitions and SQL can carry.

Three kinds, each decided here and nowhere else:

* **book slug**: partition key and path segment of a book; two names never share one.
* **domain**: the folded form of a subject; two spellings of one subject do share one.
* **identifier**: a name that may stand in SQL, as itself, never quoted into safety.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, NoReturn

from anyascii import anyascii

from era_ingest.errors import ConfigurationError, InvalidNameError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SLUG_BYTES = 80
MAX_DOMAIN_BYTES = 43
MAX_IDENTIFIER_BYTES = 63
"""PostgreSQL cuts longer names silently (NAMEDATALEN - 1)."""
MAX_RAW_DOMAIN_CHARS = 4096
"""A longer "domain" is no name but a text that lost its way."""

BASE_DOMAIN = "base"
RESERVED_DOMAINS = frozenset({"all"})
VIEW_PREFIX = "doctrine_embeddings_"

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]*")
_LOOKS_HASHED = re.compile(r".*-[0-9a-f]{8}")
_DOMAIN = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*")
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]*")
_NOT_WORD = re.compile(r"[^a-z0-9]+")
_DEVICE_NAMES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
)
_EXCERPT_CHARS = 60


def show_name(name: str) -> str:
    r"""Return a file name as valid text: bytes that are no UTF-8 are shown as ``\xNN``.

    Args:
        name: A name as ``os`` gives it, undecodable bytes as surrogate escapes (PEP 383).
    """
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def book_slug(name: str) -> str:
    """Return the partition key and path segment of a book.

    The name itself where it already is ``[a-z0-9_-]``, at most 80 bytes, begins with a letter or a figure
    and is no device name of Windows; else its folded form, ``-``, and 8 hex digits of BLAKE2b of the name. A
    name that itself ends like that gets a suffix too, so two names share a slug only where 32 bits of hash
    and the folded form collide; `store.landing` refuses the second of such a pair.

    Raises:
        InvalidNameError: The name is empty.
    """
    if not name:
        _refuse(name, "empty", "A book needs a name.")
    fits = len(name) <= MAX_SLUG_BYTES and _SLUG.fullmatch(name) and name not in _DEVICE_NAMES
    if fits and not _LOOKS_HASHED.fullmatch(name):
        return name
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    stem = _fold(name, "-")[: MAX_SLUG_BYTES - len(digest) - 1].rstrip("-")
    return f"{stem or 'book'}-{digest}"


def fold_domain(text: str) -> str:
    """Return a domain's normal form: NFKC, ASCII, lower case, ``_`` between words, at most 43 bytes.

    ``Decision Making``, ``decision-making`` and ``decision_making`` are one. Other scripts are
    transliterated. A longer one is cut and gets 8 hex digits of BLAKE2b of its folded form. Folding twice
    changes nothing.

    Raises:
        InvalidNameError: ``reason`` is ``empty`` (nothing is left), ``reserved``, ``path`` (a ``..`` between
            slashes) or ``too_long`` (over 4,096 characters).
    """
    if len(text) > MAX_RAW_DOMAIN_CHARS:
        _refuse(text, "too_long", f"A domain of {len(text):,} characters is a text, not a name.")
    if ".." in re.split(r"[/\\]", text.strip()):
        _refuse(text, "path", "A domain is a name, not a path.")
    folded = _fold(text, "_")
    if not folded:
        _refuse(text, "empty", "Nothing is left of this domain after folding.")
    if folded in RESERVED_DOMAINS:
        _refuse(text, "reserved", f"The domain {folded!r} is reserved; name it otherwise or alias it.")
    if len(folded) <= MAX_DOMAIN_BYTES:
        return folded
    digest = blake2b(folded.encode(), digest_size=4).hexdigest()
    return f"{folded[: MAX_DOMAIN_BYTES - len(digest) - 1].rstrip('_')}_{digest}"


@dataclass(frozen=True, slots=True)
class DomainNames:
    """Folds domains and resolves synonyms.

    Attributes:
        aliases: From folded synonym to folded domain; chains are resolved. Build it by `from_aliases`.
    """

    aliases: Mapping[str, str]

    @classmethod
    def from_aliases(cls, aliases: Mapping[str, str]) -> DomainNames:
        """Return the folder for an alias map as people write it: ``{"psych": "Psychology"}``.

        Raises:
            ConfigurationError: A name in the map cannot be a domain, or synonyms form a circle.
        """
        try:
            folded = {_fold_alias(synonym): fold_domain(target) for synonym, target in aliases.items()}
        except InvalidNameError as error:
            raise ConfigurationError(f"ERA_DOMAIN_ALIASES: {error.message} ({error.name!r})") from error
        return cls({synonym: _follow(folded, synonym) for synonym in folded})

    def normalise(self, text: str) -> str:
        """Return the domain that a text names.

        Raises:
            InvalidNameError: See `fold_domain`; a reserved name passes where an alias leads away from it.
        """
        if not self.aliases:
            return fold_domain(text)
        try:
            folded = fold_domain(text)
        except InvalidNameError as error:
            target = self.aliases.get(_fold(text, "_")) if error.reason == "reserved" else None
            if target is None:
                raise
            return target
        return self.aliases.get(folded, folded)


@dataclass(frozen=True, slots=True)
class Identifier:
    """A name that may stand in SQL: ``[a-z_][a-z0-9_]*``, at most 63 bytes.

    Quoting is not enough: PostgreSQL cuts a longer name silently, and drivers cut at NUL.

    Raises:
        InvalidNameError: The value is no such name.
    """

    value: str

    def __post_init__(self) -> None:
        if len(self.value) > MAX_IDENTIFIER_BYTES or not _IDENTIFIER.fullmatch(self.value):
            _refuse(self.value, "identifier", "This cannot be a name in SQL.")

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class DomainName:
    """A domain in normal form, proven: what views, folders and partitions of a domain are named by.

    Raises:
        InvalidNameError: The value is not in normal form; `fold_domain` makes it so.
    """

    value: str

    def __post_init__(self) -> None:
        fits = len(self.value) <= MAX_DOMAIN_BYTES and _DOMAIN.fullmatch(self.value)
        if not fits or self.value in RESERVED_DOMAINS:
            _refuse(self.value, "domain", "This is no domain in normal form.")

    def __str__(self) -> str:
        return self.value

    @property
    def view(self) -> Identifier:
        """Name of the domain's view, ``doctrine_embeddings_<domain>``, at most 63 bytes."""
        return Identifier(VIEW_PREFIX + self.value)


def _fold(text: str, joiner: str) -> str:
    """Return letters and figures in ASCII and lower case, everything between them as one joiner."""
    ascii_text = text if text.isascii() else anyascii(unicodedata.normalize("NFKC", text))
    return _NOT_WORD.sub(joiner, ascii_text.lower().replace("'", "")).strip(joiner)


def _fold_alias(text: str) -> str:
    """Fold a synonym; unlike a domain it may be a reserved word, to lead away from it."""
    folded = _fold(text, "_")
    return folded if folded in RESERVED_DOMAINS else fold_domain(text)


def _follow(aliases: Mapping[str, str], synonym: str) -> str:
    """Return where a chain of synonyms ends."""
    seen = {synonym}
    target = aliases[synonym]
    while target in aliases and aliases[target] != target:
        if target in seen:
            raise ConfigurationError(
                f"ERA_DOMAIN_ALIASES: the synonyms of {synonym!r} form a circle; break it."
            )
        seen.add(target)
        target = aliases[target]
    return target


def _refuse(name: str, reason: str, message: str) -> NoReturn:
    shown = name if len(name) <= _EXCERPT_CHARS else name[: _EXCERPT_CHARS - 1] + "…"
    raise InvalidNameError(f"{message} Found: {shown!r}.", name=shown, reason=reason)
