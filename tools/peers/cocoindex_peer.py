"""CocoIndex: a component a text, its embedding memoized and batched, rows declared in PostgreSQL.

    python -m tools.peers.cocoindex_peer FOLDER URL DATABASE_URL

What CocoIndex knows of earlier runs it keeps in files of its own. README.md says why it is configured as it is.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from openai import AsyncOpenAI

from era_ingest.bench.reading import Row, read_rows
from tools.peers.common import Job, parse_job, tell

os.environ["COCOINDEX_DISABLE_USAGE_TRACKING"] = "1"

import cocoindex as coco  # it looks for that variable when it is imported
from cocoindex.connectors import postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg
    import numpy.typing as npt


def encode(vector: npt.NDArray[np.float32]) -> str:
    """Return a vector as pgvector reads it."""
    return str(vector.tolist())


JOB = parse_job()
DATABASE: coco.ContextKey[asyncpg.Pool] = coco.ContextKey("bench_database")
CLIENT = AsyncOpenAI(api_key="none", base_url=f"{JOB.server_url}/v1")
COLUMNS = {
    "hash": postgres.ColumnDef("text", nullable=False),
    "book": postgres.ColumnDef("text"),
    "chapter": postgres.ColumnDef("int4"),
    "category": postgres.ColumnDef("text"),
    "text": postgres.ColumnDef("text"),
    "embedding": postgres.ColumnDef(f"vector({JOB.dimensions})", encoder=encode),
}


@dataclass
class Counted:
    """What was embedded."""

    texts: int = 0


COUNTED = Counted()


@coco.lifespan
async def resources(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
    """Provide the database's pool."""
    async with await postgres.create_pool(JOB.database_url) as pool:
        builder.provide(DATABASE, pool)
        yield


@coco.fn.as_async(batching=True, max_batch_size=JOB.batch)
async def embed(texts: list[str]) -> list[npt.NDArray[np.float32]]:
    """Embed what CocoIndex has put together."""
    reply = await CLIENT.embeddings.create(model="bench", input=texts)
    COUNTED.texts += len(texts)
    return [np.asarray(item.embedding, dtype=np.float32) for item in reply.data]


@coco.fn(memo=True)
async def process(row: Row, table: postgres.TableTarget[dict[str, object]]) -> None:
    """Declare one text's row."""
    digest, book, chapter, category, text = row
    table.declare_row(
        row={
            "hash": digest.hex(),
            "book": book,
            "chapter": chapter,
            "category": category,
            "text": text,
            "embedding": await embed(text),
        }
    )


@coco.fn
async def ingest(rows: dict[bytes, Row]) -> None:
    """Declare everything."""
    schema: postgres.TableSchema[dict[str, object]] = postgres.TableSchema(COLUMNS, ["hash"])
    table = await postgres.mount_table_target(DATABASE, "texts", schema)
    await coco.mount_each(process, [(digest.hex(), row) for digest, row in rows.items()], table)


async def run(job: Job) -> None:
    """Bring the database up to date."""
    app = coco.App(coco.AppConfig(name="bench"), ingest, rows=read_rows(job.folder))
    await app.update()


def main() -> None:
    """Run once."""
    started = time.perf_counter()
    os.environ["COCOINDEX_MAX_INFLIGHT_COMPONENTS"] = str(JOB.batch * JOB.in_flight)
    os.environ["COCOINDEX_DB"] = str(JOB.state / "cocoindex")
    asyncio.run(run(JOB))
    tell(COUNTED.texts, time.perf_counter() - started)


if __name__ == "__main__":
    main()
