"""Books for the tests of the graph: small doctrine JSON in a landing folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def build_doctrine(
    name: str, *, chapters: int = 2, domains: tuple[str, ...] = ("Ethics",)
) -> list[dict[str, Any]]:
    """Return the doctrine of a book; every statement names the book, so that books share no text."""
    return [
        {
            "chapter_index": index,
            "domains": list(domains),
            "principles": [f"{name} holds in chapter {index} that patience outlasts haste."],
            "rules": [f"{name} asks in chapter {index} to finish what was begun."],
            "claims": [],
            "warnings": [],
        }
        for index in range(chapters)
    ]


def write_book(landing: Path, name: str, **shape: Any) -> Path:
    """Write a book's folder into a landing folder; return it."""
    folder = landing / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "02_doctrine.json").write_text(json.dumps(build_doctrine(name, **shape)), encoding="utf-8")
    return folder
