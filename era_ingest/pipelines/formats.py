"""Which formats can be read: the built-in ones, and those of the ``era_ingest.readers`` entry points.

An entry point is named by the suffix that it takes, without the dot, in lower case (``epub``), and is a
callable that takes a `pathlib.Path` and returns a book in the shape of the one-file form::

    {"title": ..., "chapters": [{"chapter_index", "chapter_title", "raw_text", "domains", "principles", ...}]}

What it returns is checked like a file; what it raises becomes one defect of that book.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from era_ingest.store.landing import BUILT_IN_FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

READERS_GROUP = "era_ingest.readers"


def discover_readers() -> dict[str, str]:
    """Return the plugged-in readers: from suffix to ``module:callable``.

    A built-in format cannot be replaced, so that a package that happens to be installed changes no book.
    """
    from importlib.metadata import entry_points

    found = sorted(entry_points(group=READERS_GROUP), key=lambda point: (point.name, point.value))
    return {point.name: point.value for point in found if point.name not in BUILT_IN_FORMATS}


def known_formats() -> dict[str, str]:
    """Return every suffix that some reader takes, with its format: what `store.landing.scan` asks for."""
    return {**BUILT_IN_FORMATS, **{suffix: suffix for suffix in discover_readers()}}


def load_reader(suffix: str, readers: Mapping[str, str]) -> Callable[[Path], object]:
    """Return the reader of a suffix.

    Raises:
        KeyError: There is none.
        ImportError, AttributeError: Its package is broken.
    """
    return _load(suffix, readers[suffix])


@cache
def _load(suffix: str, value: str) -> Callable[[Path], object]:
    from importlib.metadata import EntryPoint

    reader: Callable[[Path], object] = EntryPoint(suffix, value, READERS_GROUP).load()
    return reader
