"""Column schemas of what the assets make, as the UI shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Mapping


def _column(
    name: str, kind: str, description: str, *, nullable: bool = False, unique: bool = False
) -> dg.TableColumn:
    constraints = dg.TableColumnConstraints(nullable=nullable, unique=unique)
    return dg.TableColumn(name, kind, description, constraints)


_BOOK = _column("book", "text", "the book's name")
_CHAPTER = _column("chapter", "integer", "index of the chapter in its book, >= 0")
_TITLE = _column("chapter_title", "text", "as the source has it", nullable=True)
_CATEGORY = _column("category", "text", "principle | rule | claim | warning | passage")
_DOMAINS = _column("domains", "text[]", "the chapter's domains, folded, sorted")
_TEXT = _column("text", "text", "cleaned text, never empty")
_WEIGHT = _column("weight", "double precision", "finite, > 0")
_HASH = _column("content_hash", "bytea", "SHA-256 of the text's UTF-8 bytes: key of the embedding store")
_START = _column(
    "start_char", "integer", "offset into the chapter's cleaned text; passages only", nullable=True
)
_END = _column("end_char", "integer", "offset after the last character; passages only", nullable=True)

CHUNKS = dg.TableSchema(
    [
        _column("id", "binary[16]", "UUIDv5 of book, chapter, category and text", unique=True),
        _BOOK,
        _CHAPTER,
        _TITLE,
        _CATEGORY,
        _DOMAINS,
        _TEXT,
        _WEIGHT,
        _HASH,
        _START,
        _END,
    ]
)

EMBEDDINGS = dg.TableSchema(
    [
        _column("model_id", "smallint", "era.models: name, backend, dimensions"),
        _HASH,
        _column("embedding", "vector", "float32, unit length"),
        _column("created_at", "timestamptz", "when it was paid for"),
    ],
    constraints=dg.TableConstraints(other=["primary key (model_id, content_hash)"]),
)

VECTOR_TABLES = dg.TableSchema(
    [
        _column("id", "uuid", "UUIDv5 of book, chapter, category and text", unique=True),
        _BOOK,
        _CHAPTER,
        _CATEGORY,
        _DOMAINS,
        _TEXT,
        _WEIGHT,
        _HASH,
        _column("model", "text", "identity of the embedding model"),
        _column("embedding", "vector", "float32, unit length"),
        _TITLE,
        _START,
        _END,
    ]
)

QUARANTINE = dg.TableSchema(
    [
        _column("id", "uuid", "the same for the same refusal", unique=True),
        _column("kind", "text", "document | item | text"),
        _column("book", "text", "the book's name", nullable=True),
        _column("file", "text", "the file as it was found", nullable=True),
        _column("pointer", "text", "RFC 6901 JSON pointer, or line:<n>", nullable=True),
        _column("reason", "text", "a short stable code"),
        _column("detail", "text", "one sentence"),
        _column("content_hash", "bytea", "of a text that the embedder refused", nullable=True),
        _column("model", "text", "the embedder that refused it", nullable=True),
        _column("text", "text", "the text", nullable=True),
        _column("run_id", "text", "the Dagster run that saw it last"),
        _column("first_seen", "timestamptz", ""),
        _column("last_seen", "timestamptz", ""),
    ]
)

MINISTER_ENTRY = dg.TableSchema(
    [
        _column("id", "text", "the entry's id in the file"),
        _TEXT,
        _column("source", "object", "{book, chapter}"),
        _WEIGHT,
        _column("embedding_id", "uuid", "row of doctrine_embeddings_all"),
    ]
)


def table_metadata(schema: dg.TableSchema, name: str | None = None) -> Mapping[str, dg.TableSchema | str]:
    """Return the metadata by which Dagster shows columns, and the table's name where it is one of a database."""
    named = {"dagster/table_name": name} if name else {}
    return {"dagster/column_schema": schema, **named}
