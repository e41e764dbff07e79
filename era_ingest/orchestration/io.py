"""The door to the chunks for other assets: Parquet behind it, pandas or Arrow in front.

An asset asks for what it likes by its annotation::

    @dg.asset(partitions_def=BOOKS)
    def sentence_lengths(chunks: pd.DataFrame) -> pd.DataFrame: ...

``pandas.DataFrame`` and ``pyarrow.Table`` get the run's partitions one after another in one frame; ``dict[str,
pandas.DataFrame]`` and ``dict[str, pyarrow.Table]`` get one frame a partition. What an asset returns is stored
beside the chunks, in a folder of its own name, one file a partition.

pandas is imported where a frame is asked for: 0.3 s that every worker of a run would wait for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, get_args, get_origin

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field
from upath import UPath

from era_ingest.core.names import book_slug
from era_ingest.settings import load_settings
from era_ingest.store.chunk_files import ChunkFiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from era_ingest.settings import Settings

CHUNKS_ASSET = dg.AssetKey("chunks")
WHOLE = "whole"
"""File name of an asset without partitions."""
_BOOK_COLUMN = "book"


class TableFiles(Protocol):
    """Tables by name."""

    def write(self, name: str, table: pa.Table) -> object:
        """Store a table; what was stored under the name before is replaced as a whole."""
        ...

    def read(self, name: str) -> pa.Table:
        """Return a table.

        Raises:
            FileNotFoundError: There is none of this name.
        """
        ...

    def path(self, name: str) -> str:
        """Return where a table is, or would be."""
        ...


class ParquetFolder:
    """Tables of any columns, one Parquet file each.

    Args:
        location: A local folder or a URL that fsspec knows.
    """

    def __init__(self, location: UPath) -> None:
        self._location = location

    def write(self, name: str, table: pa.Table) -> None:
        """Store a table under a name; a local reader sees the old file or the new one."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self._location.mkdir(parents=True, exist_ok=True)
        target, beside = self._file(name), self._location / f".{name}.parquet.new"
        if self._location.protocol in {"", "file"}:
            beside.write_bytes(sink.getvalue().to_pybytes())
            beside.rename(target)
        else:
            target.write_bytes(sink.getvalue().to_pybytes())

    def read(self, name: str) -> pa.Table:
        """Return the table of a name.

        Raises:
            FileNotFoundError: There is none.
        """
        return pq.read_table(pa.BufferReader(self._file(name).read_bytes()))

    def path(self, name: str) -> str:
        """Return where the table is, or would be."""
        return str(self._file(name))

    def _file(self, name: str) -> UPath:
        return self._location / f"{name}.parquet"


class ParquetIOManager(dg.ConfigurableIOManager):
    """Loads ``chunks`` for other assets, and stores and loads what those return; see the module."""

    overrides: dict[str, Any] = Field(
        default_factory=dict, description="fields of the settings that win over the environment"
    )

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Store what an asset returned: one table, or one a partition.

        For several partitions give a mapping from partition key to table, or one table with a ``book`` column, which
        is split by it.

        Raises:
            TypeError: It is neither a pandas nor an Arrow table, nor a mapping of them.
            ValueError: The partitions of the mapping are not those of the run.
        """
        files = self._files(context.asset_key)
        names = sorted(context.asset_partition_keys) if context.has_asset_partitions else [WHOLE]
        tables = _by_partition(obj, names)
        for name, table in tables.items():
            files.write(name, table)
        first = next(iter(tables.values()))
        context.add_output_metadata(
            {
                "dagster/row_count": sum(table.num_rows for table in tables.values()),
                "dagster/column_schema": column_schema(first.schema),
                "stored at": dg.MetadataValue.path(files.path(names[0])),
            }
        )

    def load_input(self, context: dg.InputContext) -> object:
        """Return the table of the input's partitions, in the form that its annotation names.

        A partition without a file is an error, unless the input's metadata says
        ``{"allow_missing_partitions": True}``.

        Raises:
            FileNotFoundError: A partition was never materialized; the message names it.
            TypeError: The annotation is of another kind.
        """
        files = self._files(context.asset_key)
        names = sorted(context.asset_partition_keys) if context.has_asset_partitions else [WHOLE]
        lenient = bool((context.definition_metadata or {}).get("allow_missing_partitions"))
        tables: dict[str, pa.Table] = {}
        for name in names:
            try:
                tables[name] = files.read(name)
            except FileNotFoundError as error:
                if not lenient:
                    asset = context.asset_key.to_user_string()
                    raise FileNotFoundError(
                        f"{asset} has nothing stored for {name!r} ({files.path(name)}): materialize it first."
                    ) from error
        return _in_form(tables, context.dagster_type.typing_type)

    def _files(self, key: dg.AssetKey) -> TableFiles:
        settings = load_settings(**self.overrides)
        if key == CHUNKS_ASSET:
            return ChunkFiles(settings.chunks_location)
        return ParquetFolder(_assets_location(settings).joinpath(*key.path))


def _assets_location(settings: Settings) -> UPath:
    """Return the folder of other assets' tables: beside that of the chunks."""
    return UPath(settings.chunks_location).parent / "assets"


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    """Return an Arrow schema as Dagster shows it."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                field.name, str(field.type), constraints=dg.TableColumnConstraints(nullable=field.nullable)
            )
            for field in schema
        ]
    )


def _by_partition(obj: object, names: Sequence[str]) -> dict[str, pa.Table]:
    """Return one Arrow table a partition."""
    if isinstance(obj, Mapping):
        tables = {str(name): _to_arrow(table) for name, table in obj.items()}
        if set(tables) != set(names):
            raise ValueError(
                f"The mapping has {sorted(tables)[:5]}…, the run's partitions are {list(names)[:5]}…"
            )
        return tables
    table = _to_arrow(obj)
    if len(names) == 1:
        return {names[0]: table}
    if _BOOK_COLUMN not in table.column_names:
        raise ValueError(
            f"One table for {len(names)} partitions needs a {_BOOK_COLUMN!r} column to be split by; "
            "or return a dict with one table a partition."
        )
    slugs = pa.array([book_slug(str(name)) for name in table.column(_BOOK_COLUMN).to_pylist()], pa.string())
    return {name: table.filter(pc.equal(slugs, pa.scalar(name))) for name in names}


def _to_arrow(obj: object) -> pa.Table:
    if isinstance(obj, pa.Table):
        return obj
    import pandas as pd

    if isinstance(obj, pd.DataFrame):
        return pa.Table.from_pandas(obj, preserve_index=False)
    raise TypeError(
        f"Return a pandas.DataFrame, a pyarrow.Table, or a dict of them, not {type(obj).__name__}."
    )


def _in_form(tables: Mapping[str, pa.Table], form: Any) -> object:
    """Return tables in the form that an annotation names; without one, as a pandas frame."""
    import pandas as pd

    origin, arguments = get_origin(form), get_args(form)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        each = arguments[1] if len(arguments) == 2 else pd.DataFrame  # noqa: PLR2004
        return {name: _in_form({name: table}, each) for name, table in tables.items()}
    whole = pa.concat_tables(list(tables.values()), promote_options="default") if tables else pa.table({})
    if form is pa.Table:
        return whole
    if form is pd.DataFrame or form is Any or form is None:
        return whole.to_pandas()
    raise TypeError(
        f"Annotate the input as pandas.DataFrame, pyarrow.Table, or a dict of them, not {form!r}."
    )
