"""Lists a page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query

MAX_PAGE_NO = 10_000
MAX_FILTER_CHARS = 4_096
"""Of what narrows a list, such as a book's name."""
PageNo = Annotated[int, Query(ge=1, le=MAX_PAGE_NO)]


@dataclass(frozen=True, slots=True)
class Pager:
    """Where in a list one is.

    Attributes:
        path: Of the list.
        query: What narrows the list, without the page.
        number: Of the page, from 1.
        size: Lines a page.
        count: Lines in all.
    """

    path: str
    query: dict[str, str]
    number: int
    size: int
    count: int

    @property
    def first(self) -> int:
        """Number of the page's first line, from 1."""
        return (self.number - 1) * self.size + 1

    @property
    def last(self) -> int:
        """Number of the page's last line."""
        return min(self.count, self.number * self.size)

    @property
    def previous_url(self) -> str | None:
        """The page before; None: this is the first."""
        return None if self.number == 1 else self._url(self.number - 1)

    @property
    def next_url(self) -> str | None:
        """The page after; None: this is the last."""
        return None if self.last >= self.count else self._url(self.number + 1)

    def _url(self, number: int) -> str:
        return with_query(self.path, {**self.query, "page": str(number) if number > 1 else ""})


def with_query(path: str, query: dict[str, str]) -> str:
    """Return a path with a query; empty values are left out."""
    given = urlencode({name: value for name, value in query.items() if value})
    return f"{path}?{given}" if given else path


def without_nul(text: str) -> str:
    """Return a text as PostgreSQL takes it."""
    return text.replace("\0", "")
