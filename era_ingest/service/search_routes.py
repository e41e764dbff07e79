"""Search over HTTP: what `era_ingest.search` finds, and where each text comes from."""

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from era_ingest.core.model import Category
from era_ingest.pipelines.search import MAX_RESULTS, SearchRequest
from era_ingest.search import enrich
from era_ingest.service.parts import parts_of
from era_ingest.store.search import Hit
from era_ingest.store.sources import Provenance

MAX_QUERY_CHARS = 8_192
MAX_NAME_CHARS = 4_096
MAX_DIMENSIONS = 16_000
MAX_CONTEXT_TOKENS = 100_000
MAX_CONTEXT_ENTRIES = 200

router = APIRouter(prefix="/v1", tags=["search"])


WORDS = (
    r"[^\s\x00-\x20\x7f-\xa0\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
    r"\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff]"
)
"""A query holds a character that cleaning (`core.text`) leaves."""

Words = Annotated[str, Field(max_length=MAX_QUERY_CHARS, pattern=WORDS)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS, pattern=r"^[^\x00]*$")]
Score = Annotated[float, Field(ge=-1.0, le=1.0, allow_inf_nan=False)]
Number = Annotated[float, Field(strict=True)]


_NULL: JsonValue = {"type": "null"}
_BY_TEXT: JsonValue = {"required": ["text"], "properties": {"text": {"type": "string"}, "vector": _NULL}}
_BY_VECTOR: JsonValue = {
    "required": ["vector"],
    "properties": {"vector": {"type": "array"}, "text": _NULL, "hybrid": {"const": False}},
}


class SearchBody(BaseModel):
    """What to look for; give `text` or `vector`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"oneOf": [_BY_TEXT, _BY_VECTOR]})

    text: Words | None = Field(None, description="the query in words")
    vector: list[Number] | None = Field(
        None,
        min_length=1,
        max_length=MAX_DIMENSIONS,
        description="the query as a vector of the model of the table",
    )
    domain: Name | None = Field(None, description="only this domain, in any spelling that folds to it")
    category: Category | None = Field(None, description="only this kind")
    book: Name | None = Field(None, description="only this book, by its name")
    k: int = Field(10, strict=True, ge=1, le=MAX_RESULTS, description="results, at most")
    min_score: Score | None = Field(None, strict=True, description="least cosine similarity")
    hybrid: bool = Field(
        False,
        strict=True,
        description="rank what holds the words of `text` too (all of them; a quoted phrase, `or` and `-` as in web "
        "searches), and fuse the two rankings",
    )

    @model_validator(mode="after")
    def _one_query(self) -> "SearchBody":
        if (self.text is None) == (self.vector is None):
            raise ValueError("give either text or vector")
        if self.hybrid and self.text is None:
            raise ValueError("a hybrid search needs text")
        return self


class Source(BaseModel):
    """Where a text comes from: file, chapter, and the run that loaded it."""

    file: str = Field(description="below the folder that the book was found in")
    sha256: str = Field(description="of the file as it was read")
    chapter: int
    chapter_title: str | None
    run_id: str = Field(description="the Dagster run that loaded the book last")
    loaded_at: datetime


class Place(BaseModel):
    """A chapter of a book."""

    book: str
    chapter: int


class Result(BaseModel):
    """One text that was found."""

    id: str
    score: float = Field(description="cosine similarity, -1 to 1")
    text: str
    book: str
    chapter: int
    category: str
    domains: list[str]
    weight: float
    content_hash: str = Field(description="SHA-256 of the text")
    start_char: int | None = Field(description="where a passage begins in its chapter's text")
    end_char: int | None
    also_in: list[Place] = Field(description="other places of the same text")
    fused: float | None = Field(description="what a hybrid search ranks by; null: it was none")
    source: Source | None = Field(description="null: the book was removed while it was searched")


class SearchResults(BaseModel):
    """The nearest texts, best first, each once."""

    results: list[Result]


class Context(BaseModel):
    """A question with the doctrine that bears on it."""

    query: str
    text: str = Field(
        description="Markdown lines for a prompt, each with its source; empty: nothing was found"
    )
    tokens: float = Field(description="estimated tokens of `text`")
    results: list[Result]


@router.post("/search", summary="Find the texts nearest in meaning")
async def search(request: Request, body: SearchBody) -> SearchResults:
    """Return the nearest entries and passages, best first, each text once."""
    parts = parts_of(request)
    asked = SearchRequest(
        text=body.text or "",
        vector=body.vector,
        domain=body.domain,
        category=body.category,
        book=body.book,
        k=body.k,
        min_score=body.min_score,
        hybrid=body.hybrid,
    )
    found = await parts.searcher.find(asked)
    return SearchResults(results=show_results(found.hits, found.sources))


@router.get("/context", summary="The doctrine that bears on a question, within a budget of tokens")
async def context(
    request: Request,
    query: Annotated[Words, Query(description="in words")],
    domain: Annotated[Name | None, Query(description="only this domain")] = None,
    k: Annotated[int, Query(ge=1, le=MAX_CONTEXT_ENTRIES, description="entries, at most")] = 8,
    max_tokens: Annotated[int, Query(ge=1, le=MAX_CONTEXT_TOKENS, description="of `text`, at most")] = 1000,
    min_score: Annotated[Score, Query(description="least cosine similarity")] = 0.2,
) -> Context:
    """Return doctrine (no passages) as text for a prompt; whole entries are left out, none is cut."""
    parts = parts_of(request)
    found = await enrich(parts.searcher, query, domain, k, max_tokens, min_score)
    results = show_results(found.hits, await parts.searcher.sources(found.hits))
    return Context(query=query, text=found.text, tokens=round(found.tokens, 1), results=results)


def show_results(hits: Sequence[Hit], origins: Mapping[str, Provenance]) -> list[Result]:
    """Return hits for JSON, each with its provenance."""
    return [
        Result.model_validate({**hit.as_dict(), "source": _source(hit, origins.get(hit.book))})
        for hit in hits
    ]


def _source(hit: Hit, origin: Provenance | None) -> Source | None:
    if origin is None:
        return None
    wanted = ("chapters", "book") if hit.category == Category.PASSAGE else ("doctrine", "book")
    file = next((file for file in origin.files if file["role"] in wanted), origin.files[0])
    return Source(
        file=os.path.relpath(file["path"], origin.root),
        sha256=file["sha256"],
        chapter=hit.chapter,
        chapter_title=hit.chapter_title,
        run_id=origin.run_id,
        loaded_at=origin.loaded_at,
    )
