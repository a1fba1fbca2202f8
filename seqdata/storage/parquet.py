"""Reading and atomic writing of Parquet tables."""

from collections.abc import Callable, Collection, Iterator, Mapping
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
    path: str | Path,
    schema: Mapping[str, pl.DataType],
    metadata: Mapping[str, str] | None = None,
    *,
    level: int = 6,
    plain: Collection[str] = (),
    one_group: bool = False,
) -> Iterator[Callable[[pl.DataFrame], None]]:
    """Yield a function that appends tables of one schema to a Parquet file.

    The bytes depend on the tables and the metadata alone. The file is not atomic: give it a path of `atomic_path` or
    `Store.writing`.

    Args:
        path: File to write.
        schema: Columns of every table.
        metadata: Key-value metadata of the file.
        level: Compression level of zstd.
        plain: Float columns that are not split by byte.
        one_group: Whether each table is one row group; else it begins one, and is cut after 1,048,576 rows.

    Raises:
        OSError: If the file cannot be written.
    """
    # The oldest Arrow form of strings, so that the bytes do not change with polars' own preference.
    compat = pl.CompatLevel.oldest()
    arrow = pl.DataFrame(schema=dict(schema)).to_arrow(compat_level=compat).schema.with_metadata(dict(metadata or {}))
    # Floats of a slowly changing track share their leading bytes, sorted rows differ by little: both compress far
    # better split by byte, or as differences, than as they are.
    floats = [name for name, kind in schema.items() if kind.is_float()]
    encodings = {name: "BYTE_STREAM_SPLIT" for name in floats if name not in plain}
    encodings |= {name: "DELTA_BINARY_PACKED" for name, kind in schema.items() if kind.is_integer()}
    dictionaries = [name for name in schema if name not in encodings and name not in plain]
    with pq.ParquetWriter(
        path, arrow, compression="zstd", compression_level=level, use_dictionary=dictionaries, column_encoding=encodings
    ) as writer:
        yield lambda table: writer.write_table(
            table.to_arrow(compat_level=compat).cast(arrow), row_group_size=len(table) if one_group else None
        )


def read_parquet(path: str | Path) -> pl.DataFrame:
    """Read a whole Parquet table. Raises: ContractError when the file is damaged or no Parquet."""
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ContractError(f"{path}: not readable as Parquet; run seqdata verify") from error


def read_rows(path: str | Path) -> int:
    """Number of rows of a Parquet file, from its footer."""
    return int(pq.read_metadata(path).num_rows)


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read the key-value metadata that `write_parquet_atomic` put into a Parquet file, without Arrow's own entry."""
    entries = pq.read_metadata(path).metadata or {}
    return {key.decode(): value.decode() for key, value in entries.items() if key != b"ARROW:schema"}
