"""The door to the chunks: what other assets get, and what becomes of what they return."""

# No `from __future__ import annotations` here: Dagster reads the annotations of assets.

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from era_ingest.core.ids import chunk_id, content_hash
from era_ingest.core.model import Category, Chunk
from era_ingest.orchestration.io import ParquetIOManager
from era_ingest.orchestration.partitions import BOOKS, range_tags
from era_ingest.store.chunk_files import ChunkFiles
from era_ingest.store.chunk_table import build_table

SLUGS = ["alpha", "beta", "gamma"]
CHUNKS = dg.AssetSpec("chunks", partitions_def=BOOKS)


@pytest.fixture
def manager(tmp_path: Path) -> ParquetIOManager:
    """Two chunks a book, stored as the pipelines store them."""
    files = ChunkFiles(str(tmp_path / "chunks"))
    for slug in SLUGS:
        files.write(slug, build_table([chunk_of(slug, number) for number in range(2)]))
    return ParquetIOManager(overrides={"chunks_url": str(tmp_path / "chunks")})


def chunk_of(book: str, chapter: int) -> Chunk:
    text = f"{book} {chapter}"
    identity = chunk_id(book, chapter, Category.RULE, text)
    return Chunk(identity, book, chapter, Category.RULE, ("ethics",), text, 1.0, content_hash(text))


@contextmanager
def single_run_is_beta() -> Iterator[None]:
    """Let an asset of the tests take several partitions in one run; Dagster calls that beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        yield


def run(
    manager: ParquetIOManager, assets: dg.AssetsDefinition | list[dg.AssetsDefinition], tags: dict[str, str]
) -> dg.ExecuteInProcessResult:
    chosen = assets if isinstance(assets, list) else [assets]
    job = dg.define_asset_job("job", selection=[asset.key for asset in chosen])
    definitions = dg.Definitions(assets=[CHUNKS, *chosen], jobs=[job], resources={"io_manager": manager})
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("books", SLUGS)
        return definitions.resolve_job_def("job").execute_in_process(instance=instance, tags=tags)


SINGLE = {"dagster/partition": "beta"}
RANGE = range_tags("alpha", "gamma")


def test_one_partition_as_pandas(manager: ParquetIOManager) -> None:
    """An asset annotated with a data frame gets the chunks of its book, and may return one."""

    @dg.asset(partitions_def=BOOKS)
    def lengths(chunks: pd.DataFrame) -> pd.DataFrame:
        assert set(chunks["book"]) == {"beta"}
        return pd.DataFrame({"text": chunks["text"], "length": chunks["text"].str.len()})

    result = run(manager, lengths, SINGLE)
    stored = materialization(result, "lengths").metadata
    assert stored["dagster/row_count"].value == 2
    schema = stored["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    assert [column.name for column in schema.columns] == ["text", "length"]
    assert pd.read_parquet(str(stored["stored at"].value))["length"].tolist() == [6, 6]


def test_a_range_as_one_arrow_table(manager: ParquetIOManager) -> None:
    """Several partitions come as one table, in the order of their keys; a table with books is split by them."""
    seen: list[object] = []

    with single_run_is_beta():

        @dg.asset(partitions_def=BOOKS, backfill_policy=dg.BackfillPolicy.single_run())
        def counted(chunks: pa.Table) -> pa.Table:
            seen.extend(chunks.column("book").to_pylist())
            return chunks.select(["book", "text"])

    result = run(manager, counted, RANGE)
    assert seen == ["alpha", "alpha", "beta", "beta", "gamma", "gamma"]
    folder = Path(str(materialization(result, "counted").metadata["stored at"].value)).parent
    assert sorted(path.stem for path in folder.iterdir()) == SLUGS
    assert pd.read_parquet(folder / "beta.parquet")["book"].tolist() == ["beta", "beta"]


def test_a_range_as_one_table_a_partition(manager: ParquetIOManager) -> None:
    """A mapping comes and goes by partition; later assets load it the same way."""
    with single_run_is_beta():

        @dg.asset(partitions_def=BOOKS, backfill_policy=dg.BackfillPolicy.single_run())
        def upper(chunks: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
            return {slug: pd.DataFrame({"text": frame["text"].str.upper()}) for slug, frame in chunks.items()}

        @dg.asset(partitions_def=BOOKS, backfill_policy=dg.BackfillPolicy.single_run())
        def joined(upper: dict[str, pa.Table]) -> dict[str, pa.Table]:
            assert upper["gamma"].column("text").to_pylist() == ["GAMMA 0", "GAMMA 1"]
            return upper

    assert run(manager, [upper, joined], RANGE).success


def test_an_unpartitioned_asset_gets_all_books(manager: ParquetIOManager) -> None:
    """An asset without partitions on top of the chunks sees every book, and is stored in one file."""

    @dg.asset
    def total(chunks: pd.DataFrame) -> pd.DataFrame:
        return chunks.groupby("book", as_index=False).size()

    result = run(manager, total, {})
    assert materialization(result, "total").metadata["dagster/row_count"].value == 3


def test_a_missing_partition_is_named(manager: ParquetIOManager, tmp_path: Path) -> None:
    """A book whose chunks were never materialized is an error that says so, unless the asset takes it."""
    (tmp_path / "chunks" / "beta.parquet").unlink()

    @dg.asset(partitions_def=BOOKS)
    def strict(chunks: pd.DataFrame) -> None:
        raise AssertionError(chunks)

    @dg.asset(partitions_def=BOOKS, ins={"chunks": dg.AssetIn(metadata={"allow_missing_partitions": True})})
    def lenient(chunks: pd.DataFrame) -> pd.DataFrame:
        assert chunks.empty
        return chunks

    with pytest.raises(FileNotFoundError, match=r"nothing stored for 'beta'.*materialize it first"):
        run(manager, strict, SINGLE)
    assert run(manager, lenient, SINGLE).success


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["no", "table"], "not list"),
        ({"alpha": pd.DataFrame()}, "the run's partitions are"),
        (pd.DataFrame({"text": ["a"]}), "needs a 'book' column"),
    ],
)
def test_what_cannot_be_stored_says_why(manager: ParquetIOManager, value: object, message: str) -> None:
    """Something that is no table, or does not fit the run's partitions, is refused in words."""
    with single_run_is_beta():

        @dg.asset(partitions_def=BOOKS, backfill_policy=dg.BackfillPolicy.single_run(), deps=["chunks"])
        def wrong() -> Any:
            return value

    with pytest.raises((TypeError, ValueError), match=message):
        run(manager, wrong, RANGE)


def materialization(result: dg.ExecuteInProcessResult, asset: str) -> dg.AssetMaterialization:
    return result.asset_materializations_for_node(asset)[0]
