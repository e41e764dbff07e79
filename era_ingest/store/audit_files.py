"""The audit of files: do the sources still hold what was loaded, do minister files hold what was built."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

from era_ingest.core.audit import Finding, error, warning
from era_ingest.core.minister import DOMAIN_FILES
from era_ingest.store import sources as source_table
from era_ingest.store.minister_files import domain_digests, folders, read_combined
from era_ingest.store.ministers import build_combined_index, digest_files

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from psycopg import AsyncConnection

MAX_FINDINGS = 200
"""Findings of one check at most; more of a kind say nothing new."""

_REBUILD = "It is not what the database says. Run `era ingest`, or materialize minister_files."


async def check_sources(conn: AsyncConnection[Any], books: Collection[str] | None = None) -> list[Finding]:
    """Read the source files again, and find those that are gone or hold other bytes than were loaded."""
    states = (await source_table.states(conn)).values()
    wanted = [
        (state.book, source_table.file_path(file), str(file["sha256"]))
        for state in states
        if books is None or state.book in books
        for file in state.files
    ]
    return await asyncio.to_thread(_compare_sources, wanted)


def _compare_sources(wanted: Iterable[tuple[str, str, str]]) -> list[Finding]:
    findings: list[Finding] = []
    for book, path, digest in wanted:
        try:
            found = _digest(path)
        except FileNotFoundError:
            findings.append(error("source_gone", book, f"{path!a} is not there any more. Ingest again."))
        except OSError as failure:
            findings.append(
                warning("source_unreadable", book, f"{path!a} cannot be read: {failure.strerror}.")
            )
        else:
            if found != digest:
                findings.append(
                    error("stale", book, f"{path!a} holds other bytes than were loaded. Ingest again.")
                )
    return findings[:MAX_FINDINGS]


async def check_ministers(
    conn: AsyncConnection[Any], root: Path, domains: Collection[str] | None = None
) -> list[Finding]:
    """Build every file anew from the database, and find those that differ, are missing or too many."""
    present = await asyncio.to_thread(folders, root)
    cursor = await conn.execute("select distinct unnest(domains) from era.minister_entries")
    filled = {str(row[0]) for row in await cursor.fetchall()}
    findings = []
    for domain in sorted(filled | set(present)):
        if domains is None or domain in domains:
            findings += await _check_domain(conn, root, domain)
    found = await asyncio.to_thread(read_combined, root)
    if found is None:
        if filled:
            findings.append(error("lost_file", "combined_vector.index", _REBUILD))
    elif found != await build_combined_index(conn):
        findings.append(error("differing_file", "combined_vector.index", _REBUILD))
    return findings[:MAX_FINDINGS]


async def _check_domain(conn: AsyncConnection[Any], root: Path, domain: str) -> list[Finding]:
    wanted = await digest_files(conn, domain)
    found = await asyncio.to_thread(domain_digests, root, domain)
    findings = []
    for name in DOMAIN_FILES:
        subject = f"{domain}/{name}"
        if name in wanted and name not in found:
            findings.append(error("lost_file", subject, _REBUILD))
        elif name in found and name not in wanted:
            findings.append(error("orphaned_file", subject, f"No entry has this domain. {_REBUILD}"))
        elif wanted.get(name) != found.get(name):
            findings.append(error("differing_file", subject, _REBUILD))
    return findings


def _digest(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123 - the path may be no text
        return hashlib.file_digest(file, "sha256").hexdigest()
