"""What is loaded, and what was refused, for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from era_ingest.pipelines.services import open_services
from era_ingest.store import domains, models, quarantine, sources

if TYPE_CHECKING:
    from era_ingest.settings import Settings

_DOMAINS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class BookStatusRow:
    """One loaded book."""

    book: str
    slug: str
    chapters: int
    entries: int
    passages: int
    defects: int
    loaded_at: str


@dataclass(frozen=True, slots=True)
class Status:
    """What is loaded.

    Attributes:
        model: Identity of the active model; None before the first load.
        other_models: Models that are being filled beside it.
        books: One row a book, by name.
        rows: Rows with a vector, by category.
        domains: Doctrine rows by domain, the largest first.
        stale_domains: Domains whose minister files or index are behind the database.
        stored_texts: Vectors in the embedding store, over all models.
        quarantine: Rows by ``kind/reason``.
    """

    model: str | None
    other_models: tuple[str, ...]
    books: tuple[BookStatusRow, ...]
    rows: dict[str, int]
    domains: dict[str, int]
    stale_domains: tuple[str, ...]
    stored_texts: int
    quarantine: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return it for a terminal."""
        if self.model is None:
            return ["Nothing has been loaded yet: `era ingest PATH`."]
        lines = [f"model      {self.model}" + "".join(f" (filling: {name})" for name in self.other_models)]
        lines.append("rows       " + ", ".join(f"{count:,} {name}" for name, count in self.rows.items()))
        lines.append(f"store      {self.stored_texts:,} vectors")
        lines.append(f"books      {len(self.books):,}")
        lines += [
            f"  {row.book}: {row.chapters:,} chapters, {row.entries:,} entries, {row.passages:,} passages"
            + (f", {row.defects:,} refused" if row.defects else "")
            for row in self.books
        ]
        shown = list(self.domains.items())[:_DOMAINS_SHOWN]
        more = len(self.domains) - len(shown)
        lines.append(f"domains    {len(self.domains):,}")
        lines.append(
            "  "
            + ", ".join(f"{name} {count:,}" for name, count in shown)
            + (f", {more} more" if more else "")
        )
        if self.stale_domains:
            lines.append(
                f"stale      {len(self.stale_domains):,} domains: minister files or indexes are behind"
            )
        refused = ", ".join(f"{count:,} {reason}" for reason, count in self.quarantine.items()) or "empty"
        lines.append(f"quarantine {refused}")
        return lines


async def read_status(settings: Settings) -> Status:
    """Return what is loaded."""
    async with open_services(settings) as services, services.database.connection() as conn:
        known = await models.all_models(conn)
        loaded = await sources.states(conn)
        stale = await domains.stale_domains(conn)
        reasons = await quarantine.counts_by_reason(conn)
        rows = await conn.execute(
            "select category, count(*) from era.doctrine_embeddings_all group by category order by category"
        )
        by_category = dict(await rows.fetchall())
        counts = await conn.execute(
            """
            select domain, count(*) from era.minister_entries, unnest(domains) as domain
            group by domain order by count(*) desc, domain
            """
        )
        by_domain = dict(await counts.fetchall())
        stored = await conn.execute("select count(*) from era.embeddings")
        (stored_texts,) = (await stored.fetchone()) or (0,)
    return Status(
        model=next((model.name for model in known if model.active), None),
        other_models=tuple(model.name for model in known if not model.active),
        books=tuple(
            BookStatusRow(
                state.book,
                state.slug,
                state.chapters,
                state.entries,
                state.passages,
                state.defects,
                state.loaded_at.isoformat(timespec="seconds"),
            )
            for state in loaded.values()
        ),
        rows={str(category): int(count) for category, count in by_category.items()},
        domains={str(domain): int(count) for domain, count in by_domain.items()},
        stale_domains=tuple(state.domain for state in stale),
        stored_texts=int(stored_texts),
        quarantine={f"{kind}/{reason}": count for (kind, reason), count in reasons.items()},
    )
