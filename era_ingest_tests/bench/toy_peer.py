"""A peer for the tests: FOLDER URL DATABASE_URL, and as it is told, one that fails, cheats or does too much.

python toy_peer.py honest|fails|stores_less|keeps_old|embeds_again FOLDER URL DATABASE_URL
"""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.request
from pathlib import Path

import numpy as np
import psycopg


def read(folder: Path) -> set[str]:
    return {
        text
        for path in folder.glob("*.json")
        for chapter in json.loads(path.read_text())["chapters"]
        for name in ("principles", "rules", "claims", "warnings")
        for text in chapter[name]
    }


def embed(url: str, texts: list[str]) -> list[str]:
    body = json.dumps({"model": "toy", "input": texts, "encoding_format": "base64"}).encode()
    with urllib.request.urlopen(f"{url}/v1/embeddings", body) as reply:
        found = [base64.b64decode(item["embedding"]) for item in json.load(reply)["data"]]
    return [json.dumps(np.frombuffer(vector, "<f4").tolist()) for vector in found]


def main() -> None:
    manner, folder, url, database_url = sys.argv[1:]
    texts = read(Path(folder))
    if texts and manner == "fails":
        raise SystemExit("no such luck")
    with psycopg.connect(database_url) as conn:
        conn.execute("create extension if not exists vector")
        conn.execute("create table if not exists toy (text text primary key, embedding vector)")
        known = {row[0] for row in conn.execute("select text from toy").fetchall()}
        if manner != "keeps_old":
            conn.execute("delete from toy where text = any(%s)", (list(known - texts),))
        new = sorted(texts if manner == "embeds_again" else texts - known)
        vectors = embed(url, new) if new else []
        rows = list(zip(new, vectors, strict=True))[: -1 if manner == "stores_less" else None]
        with conn.cursor() as cursor:
            cursor.executemany("insert into toy values (%s, %s::vector) on conflict do nothing", rows)
    with Path(os.environ["BENCH_STATE"], "runs").open("a") as file:
        file.write("x")
    sys.stdout.write(json.dumps({"texts": len(new)}) + "\n")


if __name__ == "__main__":
    main()
