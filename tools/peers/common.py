"""What every peer is asked, read from its command line and environment."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Job:
    """What `era bench ingest` asks of a peer.

    Attributes:
        folder: One JSON file a book.
        server_url: Root of an OpenAI-compatible server.
        database_url: The peer's own database.
        state: A folder for files that it wants to find again.
        batch: Texts a request.
        in_flight: Requests at once, at most.
        dimensions: Size of the vectors.
    """

    folder: Path
    server_url: str
    database_url: str
    state: Path
    batch: int
    in_flight: int
    dimensions: int


def parse_job() -> Job:
    """Return what is asked; the environment's variables have the benchmark's defaults."""
    folder, server_url, database_url = sys.argv[1:4]
    return Job(
        Path(folder),
        server_url,
        database_url,
        Path(os.environ.get("BENCH_STATE", ".")),
        int(os.environ.get("BENCH_BATCH", "128")),
        int(os.environ.get("BENCH_IN_FLIGHT", "512")),
        int(os.environ.get("BENCH_DIMENSIONS", "768")),
    )


def tell(texts: int, seconds: float) -> None:
    """Print what the benchmark reads: texts embedded, and the seconds that the work took."""
    print(json.dumps({"texts": texts, "seconds": seconds}))
