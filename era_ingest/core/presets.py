"""Bounds by the size of an installation, so that one name settles what would else be four numbers."""

from __future__ import annotations

from typing import NamedTuple


class Preset(NamedTuple):
    """Bounds of one size of installation; nothing in it needs tuning.

    Attributes:
        max_in_flight: Upper bound of embedding requests in flight.
        batch_texts: Texts a request, at most.
        reader_processes: Processes that parse books; 0: one a core.
        pool_connections: Connections to PostgreSQL, at most.
    """

    max_in_flight: int
    batch_texts: int
    reader_processes: int
    pool_connections: int


PRESETS = {
    "local": Preset(max_in_flight=16, batch_texts=64, reader_processes=0, pool_connections=4),
    "standard": Preset(max_in_flight=512, batch_texts=128, reader_processes=0, pool_connections=8),
    "high_throughput": Preset(max_in_flight=1024, batch_texts=256, reader_processes=0, pool_connections=16),
}
