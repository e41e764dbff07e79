"""``era search``."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

import click

from era_ingest.cli.app import cli, run_async, settings_of
from era_ingest.core.model import Category
from era_ingest.pipelines.search import SearchRequest, search_once, show_hit

if TYPE_CHECKING:
    from era_ingest.store.search import Hit


@cli.command()
@click.argument("text")
@click.option("--domain", help="Only this domain (any spelling that folds to it).")
@click.option(
    "--category", type=click.Choice([category.value for category in Category]), help="Only this kind."
)
@click.option("--book", help="Only this book, by its name.")
@click.option("-k", default=10, show_default=True, type=click.IntRange(1, 1000), help="Results, at most.")
@click.option(
    "--hybrid", is_flag=True, help="Rank what holds the words of TEXT too, and fuse the two rankings."
)
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def search(
    ctx: click.Context,
    text: str,
    *,
    domain: str | None,
    category: str | None,
    book: str | None,
    k: int,
    hybrid: bool,
    as_json: bool,
) -> None:
    """Find the entries and passages nearest in meaning to TEXT.

    The score is the cosine similarity, at most 1. A hybrid search takes TEXT as search engines do: all words, "a
    phrase", or, -without; what holds them comes in beside what is near in meaning.
    """
    request = SearchRequest(text=text, domain=domain, category=category, book=book, k=k, hybrid=hybrid)
    hits = run_async(search_once(settings_of(ctx), request))
    if as_json:
        click.echo(
            json.dumps({"query": text, "results": [show_hit(hit) for hit in hits]}, ensure_ascii=False)
        )
        return
    if not hits:
        given = {"domain": domain, "category": category, "book": book}
        asked = " and ".join(f'the {name} "{value}"' for name, value in given.items() if value is not None)
        where = f" in {asked}; is that how it is spelled?" if asked else "."
        click.echo(f"Nothing found{where} `era status` says what is loaded.", err=True)
    for hit in hits:
        click.echo(_lines(hit))


def _lines(hit: Hit) -> str:
    where = f"{hit.book}, chapter {hit.chapter}, {hit.category} [{', '.join(hit.domains)}]"
    body = textwrap.fill(
        hit.text, width=100, initial_indent="       ", subsequent_indent="       ", max_lines=4
    )
    return f"{click.style(f'{hit.score:6.3f}', bold=True)} {where}\n{body}"
