"""What `era ingest` is measured against: the simplest correct program for the same work, written by hand.

Nothing of this project is in it, and nothing that a project needs: no cleaning, no retries, no provenance, no
minister files, one table. It reads JSON books, cuts chapters' text into passages, leaves out texts that the table
has, embeds the others in batches with bounded concurrency, and writes them by one binary COPY.

    python -m era_ingest.bench.bound FOLDER URL DATABASE_URL --batch 128 --in-flight 64

prints one JSON object: ``texts``, ``requests``, ``seconds``.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
import psycopg
from pgvector.psycopg import register_vector_async

from era_ingest.bench.reading import Row, read_rows

COLUMN_TYPES = ("bytea", "text", "int4", "text", "text", "vector")


async def embed(session: aiohttp.ClientSession, url: str, texts: list[str]) -> list[np.ndarray[Any, Any]]:
    """Return the vectors of one batch."""
    body = {"model": "bench", "input": texts, "encoding_format": "base64"}
    async with session.post(f"{url}/v1/embeddings", data=orjson.dumps(body)) as response:
        response.raise_for_status()
        data = orjson.loads(await response.read())["data"]
    return [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in data]


async def run(folder: Path, url: str, database_url: str, *, batch: int, in_flight: int) -> dict[str, Any]:
    """Do the work; return what ``main`` prints."""
    started = time.perf_counter()
    rows = read_rows(folder)
    async with (
        await psycopg.AsyncConnection.connect(database_url) as conn,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as session,
    ):
        await conn.execute("create extension if not exists vector")
        await conn.execute(
            "create table if not exists public.bound (content_hash bytea primary key, book text, "
            "chapter int, category text, text text, embedding vector)"
        )
        await register_vector_async(conn)
        async with conn.cursor(binary=True) as cursor:
            await cursor.execute("select content_hash from public.bound")
            known = {found[0] for found in await cursor.fetchall()}
        if gone := list(known - rows.keys()):
            await conn.execute("delete from public.bound where content_hash = any(%s)", (gone,))
        todo = [row for digest, row in rows.items() if digest not in known]
        batches = [todo[start : start + batch] for start in range(0, len(todo), batch)]
        free, writing = asyncio.Semaphore(in_flight), asyncio.Lock()
        async with (
            conn.cursor() as cursor,
            cursor.copy("copy public.bound from stdin (format binary)") as copy,
        ):
            copy.set_types(COLUMN_TYPES)

            async def do(part: list[Row]) -> None:
                async with free:
                    vectors = await embed(session, url, [row[-1] for row in part])
                async with writing:
                    for row, vector in zip(part, vectors, strict=True):
                        await copy.write_row((*row, vector))

            async with asyncio.TaskGroup() as group:
                for part in batches:
                    group.create_task(do(part))
    return {"texts": len(todo), "requests": len(batches), "seconds": time.perf_counter() - started}


def main() -> None:
    """Run once."""
    parser = argparse.ArgumentParser(prog="python -m era_ingest.bench.bound", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("url")
    parser.add_argument("database_url")
    parser.add_argument("--batch", type=int, default=128, help="texts a request")
    parser.add_argument("--in-flight", type=int, default=64, help="requests at once")
    found = parser.parse_args()
    done = run(found.folder, found.url, found.database_url, batch=found.batch, in_flight=found.in_flight)
    sys.stdout.write(json.dumps(asyncio.run(done)) + "\n")


if __name__ == "__main__":
    main()
