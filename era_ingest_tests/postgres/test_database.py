"""The pool: search path, vector types, commit and rollback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from era_ingest.store.database import Database


async def test_connections_know_the_schema_and_vectors(database: Database) -> None:
    """A lent connection looks into era, then public, and speaks vectors as numpy arrays."""
    async with database.connection() as connection:
        row = await (await connection.execute("SELECT current_setting('search_path'), '[1,2]'::vector")).fetchone()
    assert row is not None
    assert row[0] == "era, public"
    assert np.array_equal(row[1].to_numpy(), [1.0, 2.0])
