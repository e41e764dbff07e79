"""What the fault tests share: an installation, its books, and a picture of everything that it holds."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from era_ingest.store.chunk_files import ChunkFiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

SIZING = 1
"""Texts of its own that a program sends to a model that nobody used before: a sentence, for the vectors' size."""
_WRITTEN_AT_NS = 1_700_000_000_000_000_000
_DOMAINS = ("Ethics", "War", "Decision Making", "Trade", "Gardening", "Power")
_WORDS = [
    "patience",
    "haste",
    "water",
    "stone",
    "river",
    "trust",
    "leader",
    "garden",
    "winter",
    "market",
    "promise",
    "harvest",
    "silence",
    "anger",
    "measure",
    "bridge",
    "lantern",
    "sailor",
    "border",
    "letter",
    "answer",
    "danger",
    "mercy",
    "fortune",
    "habit",
    "reason",
]


@dataclass
class Installation:
    """One installation: folders, a database, an environment.

    Attributes:
        folder: Holds all its folders.
        database_url: Its PostgreSQL; None: the embedded server.
        settings: More ``ERA_*`` variables.
    """

    folder: Path
    database_url: str | None
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.landing.mkdir(parents=True, exist_ok=True)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def landing(self) -> Path:
        return self.folder / "landing"

    @property
    def ministers(self) -> Path:
        return self.folder / "ministers"

    @property
    def log(self) -> Path:
        return self.folder / "programs.log"

    def variables(self) -> dict[str, str]:
        """Return its own ``ERA_*`` and ``DAGSTER_*`` variables."""
        found = {
            "ERA_HOME": str(self.home),
            "ERA_LANDING_DIR": str(self.landing),
            "ERA_MINISTERS_DIR": str(self.ministers),
            "ERA_SETTLE_S": "0",
            **self.settings,
        }
        if self.database_url is not None:
            found["ERA_DATABASE_URL"] = self.database_url
        return found

    def environment(self) -> dict[str, str]:
        """Return the whole environment of one of its programs."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("ERA_", "DAGSTER_"))
        }
        return {**kept, **self.variables()}


def served_by(url: str, *, batch_texts: int, concurrency: int, controller: str = "fixed") -> dict[str, str]:
    """Return the settings of an installation that embeds at a test server, so many requests at once."""
    return {
        "ERA_EMBEDDER": "openai",
        "ERA_EMBED_URL": url,
        "ERA_EMBED_MODEL": "m",
        "ERA_EMBED_BATCH_TEXTS": str(batch_texts),
        "ERA_EMBED_CONTROLLER": controller,
        "ERA_EMBED_CONCURRENCY": str(concurrency),
    }


class Library:
    """Books drawn from a seed, written with fixed times so that every installation gets the same bytes.

    Args:
        seed: Of everything.
    """

    def __init__(self, seed: float) -> None:
        self._rng = random.Random(seed)

    def sentence(self, words: int = 9) -> str:
        return " ".join(self._rng.choices(_WORDS, k=words)).capitalize() + f" {self._rng.random():.6f}."

    def chapter(self, index: int, *, items: int = 3, raw_chars: int = 1500) -> dict[str, Any]:
        """Return a chapter of ``items`` entries a category, with some text."""
        raw: list[str] = []
        while sum(map(len, raw)) < raw_chars:
            raw.append(self.sentence(12))
        return {
            "chapter_index": index,
            "chapter_title": f"Of {self._rng.choice(_WORDS)}",
            "domains": self._rng.sample(_DOMAINS, k=self._rng.randint(1, 3)),
            "raw_text": " ".join(raw),
            **{
                category: [self.sentence() for _ in range(items)]
                for category in ("principles", "rules", "claims", "warnings")
            },
        }

    def book(self, chapters: int = 3, **shape: int) -> list[dict[str, Any]]:
        return [self.chapter(index, **shape) for index in range(chapters)]


def write_book(landing: Path, name: str, chapters: Sequence[dict[str, Any]], *, version: int = 0) -> Path:
    """Write a one-file book, renamed into its place; ``version`` moves its modification time by seconds."""
    path = landing / f"{name}.json"
    temporary = landing / f".{name}.writing"
    temporary.write_text(json.dumps({"chapters": list(chapters)}), encoding="utf-8")
    os.utime(temporary, ns=(_WRITTEN_AT_NS + version * 1_000_000_000,) * 2)
    temporary.rename(path)
    return path


def write_corpus(landing: Path, seed: int, books: int = 6, **shape: int) -> None:
    """Write a landing folder of books; neighbours share a chapter's texts."""
    library = Library(seed)
    shared = library.chapter(9)
    for number in range(books):
        chapters = library.book(**shape)
        if number % 2:
            chapters.append(shared)
        write_book(landing, f"book-{number}", chapters)


_QUERIES = {
    "rows": """
        select id::text, book, chapter, category, domains, text, weight, encode(content_hash, 'hex'), model,
               md5(embedding::text), chapter_title, start_char, end_char
        from era.doctrine_embeddings_all order by id
    """,
    "minister entries": """
        select id::text, book, chapter, category, domains, text, weight, embedding_id::text
        from era.minister_entries order by id
    """,
    "vectors": """
        select m.name, encode(e.content_hash, 'hex'), md5(e.embedding::text)
        from era.embeddings as e join era.models as m on m.id = e.model_id order by 1, 2
    """,
    "sources": """
        select book, slug, title, format, content_fingerprint, processing, modified_at::text, chapters, entries,
               passages, defects
        from era.doctrine_sources order by book
    """,
    "books of models": """
        select b.book, m.name, b.content_fingerprint
        from era.book_models as b join era.models as m on m.id = b.model_id order by 1, 2
    """,
    "quarantine": """
        select kind, book, pointer, reason, encode(content_hash, 'hex'), model, text
        from era.quarantine order by 2, 3, 4, 5
    """,
    "domains": """
        select domain, updated_at::text, built_no = doctrine_no, indexed_no = change_no, statistics::text
        from era.domains where statistics is not null and (statistics->>'total_entries')::int > 0 order by 1
    """,
    "views": "select viewname from pg_views where schemaname = 'era' order by 1",
}


def picture(installation: Installation, url: str | None = None) -> dict[str, Any]:
    """Return everything that an installation holds and a reader could see, without times and places.

    Args:
        installation: Which.
        url: Of its database, where that is the embedded server.
    """
    found: dict[str, Any] = {}
    with psycopg.connect(url or installation.database_url or "") as connection:
        for name, query in _QUERIES.items():
            found[name] = [tuple(row) for row in connection.execute(query.encode()).fetchall()]
    chunks = ChunkFiles(str(installation.home / "chunks"))
    found["chunk files"] = {slug: chunks.read(slug).to_pylist() for slug in chunks.slugs()}
    found["minister files"] = files_below(installation.ministers)
    return found


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder, but for those that a killed writer left unfinished."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".era-")
    }


def differences(found: dict[str, Any], wanted: dict[str, Any], *, but: str = "") -> list[str]:
    """Say in which parts two pictures differ, and how; a few lines each.

    Args:
        found: What there is.
        wanted: What there should be.
        but: A part that may differ: ``vectors`` are kept for ever, also those of texts that are gone.
    """
    told = []
    for name, expected in wanted.items():
        if found[name] == expected or name == but:
            continue
        if isinstance(expected, dict):
            keys = sorted(expected.keys() | found[name].keys())
            told += [f"{name}: {key}" for key in keys if expected.get(key) != found[name].get(key)][:5]
        else:
            told += _list_differences(name, found[name], expected)
    return told


def _list_differences(name: str, found: Iterable[Any], wanted: Iterable[Any]) -> list[str]:
    here, there = list(found), list(wanted)
    missing = [row for row in there if row not in here]
    extra = [row for row in here if row not in there]
    doubled = len(here) - len(set(map(repr, here)))
    return [
        f"{name}: {len(missing)} missing, {len(extra)} too many, {doubled} doubled: {missing[:1]} {extra[:1]}"
    ]
