"""pgai's vectorizer: texts in a table, its worker run once.

    python -m tools.peers.pgai_peer FOLDER URL DATABASE_URL

The table is kept up to date by difference (that is the caller's part: pgai sees it by its triggers); the worker
embeds what its queue holds. README.md says why it is configured as it is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time

import pgai
import psycopg
import structlog
from pgai.vectorizer import CreateVectorizer, Worker
from pgai.vectorizer.configuration import (
    ChunkingNoneConfig,
    DestinationTableConfig,
    EmbeddingOpenaiConfig,
    IndexingNoneConfig,
    LoadingColumnConfig,
    ParsingNoneConfig,
    ProcessingDefaultConfig,
    SchedulingNoneConfig,
)

from era_ingest.bench.reading import read_rows
from tools.peers.common import Job, parse_job, tell

MOST_CONCURRENT = 10
"""What ai.processing_default takes, and more only lets more wait: the worker has one thread."""


def prepare(job: Job, conn: psycopg.Connection) -> None:
    """Install pgai's catalog, and make the table and its vectorizer."""
    conn.execute("create extension if not exists vector")
    conn.commit()
    pgai.install(job.database_url)
    conn.execute(
        "create table texts (hash bytea primary key, book text, chapter int, category text, text text)"
    )
    vectorizer = CreateVectorizer(
        source="texts",
        name="texts",
        destination=DestinationTableConfig(destination="vectors"),
        loading=LoadingColumnConfig(column_name="text"),
        parsing=ParsingNoneConfig(),
        embedding=EmbeddingOpenaiConfig(
            model="bench", dimensions=job.dimensions, base_url=f"{job.server_url}/v1"
        ),
        chunking=ChunkingNoneConfig(),
        indexing=IndexingNoneConfig(),
        scheduling=SchedulingNoneConfig(),
        processing=ProcessingDefaultConfig(
            batch_size=job.batch, concurrency=min(job.in_flight, MOST_CONCURRENT)
        ),
    )
    conn.execute(vectorizer.to_sql())
    conn.commit()


def update(job: Job, conn: psycopg.Connection) -> int:
    """Bring the table up to date with the folder; return how many rows are new."""
    rows = read_rows(job.folder)
    with conn.cursor(binary=True) as cursor:
        known = {found[0] for found in cursor.execute("select hash from texts").fetchall()}
        if gone := list(known - rows.keys()):
            cursor.execute("delete from texts where hash = any(%s)", (gone,))
        new = [row for digest, row in rows.items() if digest not in known]
        with cursor.copy("copy texts from stdin (format binary)") as copy:
            copy.set_types(("bytea", "text", "int4", "text", "text"))
            for row in new:
                copy.write_row(row)
    conn.commit()
    return len(new)


def main() -> None:
    """Run once."""
    job = parse_job()
    started = time.perf_counter()
    os.environ["OPENAI_API_KEY"] = "none"
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with psycopg.connect(job.database_url) as conn:
        found = conn.execute("select to_regclass('public.texts')").fetchone()
        if found == (None,):
            prepare(job, conn)
        new = update(job, conn)
    failed = asyncio.run(Worker(job.database_url, once=True).run())
    if failed is not None:
        raise failed
    tell(new, time.perf_counter() - started)


if __name__ == "__main__":
    main()
