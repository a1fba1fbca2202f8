"""Reading and atomic writing of Parquet tables."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from seqdata.errors import ContractError
from seqdata.storage.files import atomic_path


def write_parquet_atomic(table: pl.DataFrame, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a table as Parquet, whole or not at all; see `parquet_writer`. Raises: OutputError."""
    with atomic_path(path) as temporary, parquet_writer(temporary, table.schema, metadata) as write:
        write(table)


@contextmanager
def parquet_writer(
    path: str | Path, schema: Mapping[str, pl.DataType], metadata: Mapping[str, str] | None = None
) -> Iterator[Callable[[pl.DataFrame], None]]:
    """Yield what appends tables of one schema to a Parquet file (zstd; floats byte-split so that slow tracks compress).

    Each table begins a row group. `metadata` lands in the file's own key-value metadata. The bytes depend on the tables
    and the metadata alone. Not atomic: give it a path of `atomic_path` or `Store.writing`. Raises: OSError.
    """
    level = pl.CompatLevel.oldest()
    empty = pl.DataFrame(schema=dict(schema)).to_arrow(compat_level=level)
    arrow = empty.schema.with_metadata(dict(metadata or {}))
    encodings = {name: "BYTE_STREAM_SPLIT" for name, kind in schema.items() if kind.is_float()}
    encodings |= {name: "DELTA_BINARY_PACKED" for name, kind in schema.items() if kind.is_integer()}
    coded = [name for name in schema if name not in encodings]
    with pq.ParquetWriter(
        path, arrow, compression="zstd", compression_level=6, use_dictionary=coded, column_encoding=encodings
    ) as writer:
        yield lambda table: writer.write_table(table.to_arrow(compat_level=level).cast(arrow))


def read_parquet(path: str | Path) -> pl.DataFrame:
    """A whole Parquet table. Raises: ContractError when the file is damaged or no Parquet."""
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ContractError(f"{path}: not readable as Parquet; run seqdata verify") from error


def read_rows(path: str | Path) -> int:
    """Number of rows of a Parquet file, from its footer."""
    return int(pq.read_metadata(path).num_rows)


def read_metadata(path: str | Path) -> dict[str, str]:
    """The key-value metadata that `write_parquet_atomic` put into a Parquet file (Arrow's own entry left out)."""
    stored = pq.read_metadata(path).metadata or {}
    return {key.decode(): value.decode() for key, value in stored.items() if key != b"ARROW:schema"}
