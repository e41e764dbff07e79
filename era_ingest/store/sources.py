"""``doctrine_sources``: where each loaded book came from, and what was in it."""

from __future__ import annotations

import base64
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from era_ingest.core.names import show_name

if TYPE_CHECKING:
    from collections.abc import Collection

    from psycopg import AsyncConnection

    from era_ingest.core.record import FileDigest
    from era_ingest.store.chunk_table import BookRows
    from era_ingest.store.models import Model


@dataclass(frozen=True, slots=True)
class SourceState:
    """One loaded book.

    Attributes:
        book: Its name.
        slug: Its partition key.
        title: A title that the document gives itself.
        root: The folder under which it was found.
        format: What it was read as.
        files: What it was read from: ``{path, role, size, mtime_ns, inode, sha256}`` each.
        content_fingerprint: See ``BookRecord.content_fingerprint``.
        processing: See ``BookRecord.processing``.
        modified_at: Latest modification of the files whose content is loaded.
        chapters: Number of chapters.
        entries: Number of doctrine entries.
        passages: Number of passages.
        defects: Number of items refused.
        texts_embedded: Texts that its last load sent to the embedder.
        texts_reused: Texts that had their vectors.
        run_id: The run that loaded it last.
        loaded_at: When, by the database's clock.
        models: The content that each model's table holds of it, by the model's number.
    """

    book: str
    slug: str
    title: str | None
    root: str
    format: str
    files: list[dict[str, Any]]
    content_fingerprint: str
    processing: str
    modified_at: datetime
    chapters: int
    entries: int
    passages: int
    defects: int
    texts_embedded: int
    texts_reused: int
    run_id: str
    loaded_at: datetime
    models: dict[str, str]

    def is_loaded(self, model_id: int, content_fingerprint: str) -> bool:
        """True if a model's table holds exactly this content of the book."""
        return (
            self.content_fingerprint == content_fingerprint
            and self.models.get(str(model_id)) == content_fingerprint
        )


async def states(conn: AsyncConnection[Any], slugs: Collection[str] | None = None) -> dict[str, SourceState]:
    """Return the loaded books by slug, in order of their names; None: all of them."""
    async with conn.cursor(row_factory=class_row(SourceState)) as cursor:
        await cursor.execute(
            """
            select book, slug, title, root, format, files, content_fingerprint, processing, modified_at,
                   chapters, entries, passages, defects, texts_embedded, texts_reused, run_id, loaded_at,
                   coalesce((select jsonb_object_agg(m.model_id, m.content_fingerprint)
                             from era.book_models as m where m.book = s.book), '{}') as models
            from era.doctrine_sources as s
            where %(slugs)s::text[] is null or slug = any(%(slugs)s)
            order by book collate "C"
            """,
            {"slugs": None if slugs is None else list(slugs)},
        )
        return {state.slug: state for state in await cursor.fetchall()}


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the rows of a book come from.

    Attributes:
        book: The book's name.
        root: The folder under which it was found.
        files: As in ``SourceState``.
        run_id: The run that loaded it last.
        loaded_at: When, by the database's clock.
    """

    book: str
    root: str
    files: list[dict[str, Any]]
    run_id: str
    loaded_at: datetime


async def provenance(conn: AsyncConnection[Any], books: Collection[str]) -> dict[str, Provenance]:
    """Return where books come from, by their names."""
    async with conn.cursor(row_factory=class_row(Provenance)) as cursor:
        await cursor.execute(
            "select book, root, files, run_id, loaded_at from era.doctrine_sources where book = any(%s)",
            (list(books),),
        )
        return {row.book: row for row in await cursor.fetchall()}


async def record_source(conn: AsyncConnection[Any], model: Model, rows: BookRows) -> bool:
    """Note where a book came from, and that a model holds it; return False if all of that was known.

    Part of the transaction that loads the book. ``modified_at`` moves only with the content.
    """
    record = rows.record
    values = {
        "book": record.name,
        "slug": record.slug,
        "title": record.title,
        "root": show_name(record.root),
        "format": record.format,
        "files": Jsonb([_file_json(file) for file in record.files]),
        "content_fingerprint": record.content_fingerprint,
        "processing": record.processing,
        "modified_at": datetime.fromtimestamp(record.modified_ns // 1_000_000_000, UTC),
        "chapters": record.chapters,
        "entries": record.entries,
        "passages": record.passages,
        "defects": len(record.defects),
        "texts_embedded": rows.texts_embedded,
        "texts_reused": rows.texts_reused,
        "run_id": rows.run_id,
        "model_id": model.id,
    }
    cursor = await conn.execute(
        """
        insert into era.doctrine_sources as s (
            book, slug, title, root, format, files, content_fingerprint, processing, modified_at,
            chapters, entries, passages, defects, texts_embedded, texts_reused, run_id)
        values (
            %(book)s, %(slug)s, %(title)s, %(root)s, %(format)s, %(files)s, %(content_fingerprint)s,
            %(processing)s, %(modified_at)s, %(chapters)s, %(entries)s, %(passages)s, %(defects)s,
            %(texts_embedded)s, %(texts_reused)s, %(run_id)s)
        on conflict (book) do update set
            slug = excluded.slug, title = excluded.title, root = excluded.root, format = excluded.format,
            files = excluded.files, content_fingerprint = excluded.content_fingerprint,
            processing = excluded.processing,
            modified_at = case when s.content_fingerprint = excluded.content_fingerprint
                               then s.modified_at else excluded.modified_at end,
            chapters = excluded.chapters, entries = excluded.entries, passages = excluded.passages,
            defects = excluded.defects, texts_embedded = excluded.texts_embedded,
            texts_reused = excluded.texts_reused, run_id = excluded.run_id, loaded_at = now()
        where (s.slug, s.title, s.root, s.format, s.files, s.content_fingerprint, s.processing,
               s.chapters, s.entries, s.passages, s.defects)
           is distinct from
              (excluded.slug, excluded.title, excluded.root, excluded.format, excluded.files,
               excluded.content_fingerprint, excluded.processing,
               excluded.chapters, excluded.entries, excluded.passages, excluded.defects)
        """,
        values,
    )
    changed = cursor.rowcount
    cursor = await conn.execute(
        """
        insert into era.book_models as m (book, model_id, content_fingerprint)
        values (%(book)s, %(model_id)s, %(content_fingerprint)s)
        on conflict (book, model_id) do update
        set content_fingerprint = excluded.content_fingerprint, loaded_at = now()
        where m.content_fingerprint <> excluded.content_fingerprint
        """,
        values,
    )
    return bool(changed + cursor.rowcount)


def _file_json(file: FileDigest) -> dict[str, Any]:
    """Return a file as JSON; ``path_base64`` is there only where the path is no text."""
    raw = asdict(file)
    raw["path"] = show_name(file.path)
    if raw["path"] != file.path:
        raw["path_base64"] = base64.b64encode(os.fsencode(file.path)).decode()
    return raw


def file_path(raw: dict[str, Any]) -> str:
    """Return the path of a file of ``SourceState.files``, as ``os`` takes it."""
    if encoded := raw.get("path_base64"):
        return os.fsdecode(base64.b64decode(encoded))
    return str(raw["path"])
