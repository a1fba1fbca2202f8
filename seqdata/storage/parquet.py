"""Reading and atomic writing of Parquet tables."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.io.plugins import register_io_source

from seqdata.errors import ContractError, InputError
from seqdata.storage.files import atomic_path

WHOLE_BYTES = 64 << 20
"""Tables up to this size are hashed whole when a process opens them; larger ones have checksums of their pages."""
PAGE_CHECKSUMS = ContextVar("PAGE_CHECKSUMS", default=True)
"""Whether large tables get page checksums: tables of the first releases have none, and a repair makes them so again."""
# A panic of polars' Rust code is no PolarsError, and damaged pages do cause some.
_POLARS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


def write_parquet_atomic(table: pl.DataFrame, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a table as Parquet, whole or not at all; see `parquet_writer`.

    Raises:
        OutputError: When it cannot be written.
    """
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

    The bytes depend on the tables and the metadata alone; above 64 MiB of them in memory, pages get checksums. The file
    is not atomic: give it a path of `atomic_path` or `Store.writing`.

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
    open_writer = partial(
        pq.ParquetWriter, path, arrow, compression="zstd", compression_level=level, use_dictionary=dictionaries,
        column_encoding=encodings,
    )  # fmt: skip
    with closing(_SizedWriter(open_writer, one_group)) as writer:
        yield lambda table: writer.write(table.to_arrow(compat_level=compat).cast(arrow))
        writer.finish()


class _SizedWriter:
    """Writes a small table without page checksums, a large one with them: the first rows wait until it is clear."""

    def __init__(self, open_writer: Callable[..., pq.ParquetWriter], one_group: bool) -> None:
        self._open_writer, self._one_group = open_writer, one_group
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def write(self, table: pa.Table) -> None:
        """Append rows.

        Raises:
            OSError: When the file system refuses.
        """
        self._waiting.append(table)
        # A file is smaller than its rows in memory, so none above WHOLE_BYTES goes without checksums.
        if self._writer is not None or sum(waiting.nbytes for waiting in self._waiting) > WHOLE_BYTES:
            self._flush(is_large=True)

    def finish(self) -> None:
        """Write what waits, and the footer.

        Raises:
            OSError: When the file system refuses.
        """
        self._flush(is_large=False)
        self.close()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._writer is not None:
            self._writer.close()

    def _flush(self, *, is_large: bool) -> None:
        if self._writer is None:
            self._writer = self._open_writer(write_page_checksum=is_large and PAGE_CHECKSUMS.get())
        for table in self._waiting:
            self._writer.write_table(table, row_group_size=len(table) if self._one_group else None)
        self._waiting.clear()


@contextmanager
def translated(path: str | Path) -> Iterator[None]:
    """Translate what the libraries raise at a damaged or foreign table; no other place needs to know their exceptions.

    Args:
        path: The table, named in the error.

    Raises:
        InputError: If it is absent or the disk does not give it.
        ContractError: If it is no Parquet, or damaged.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such table; run seqdata verify, or check the name") from error
    except (OSError, UnicodeDecodeError, pa.ArrowException, *_POLARS) as error:
        # Arrow reports damaged pages as OSError too, but without a number of the system.
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(
                f"{path}: cannot be read ({error.strerror}); check its permissions and the disk"
            ) from error
        raise ContractError(f"{path}: not readable as Parquet; in a dataset, seqdata verify says more") from error


@contextmanager
def open_parquet(path: str | Path) -> Iterator[pq.ParquetFile]:
    """Open a table to read row groups, whose page checksums are compared where it has them.

    Errors are those of `translated`.
    """
    with translated(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        yield file


def read_parquet(path: str | Path) -> pl.DataFrame:
    """Read a whole Parquet table.

    Errors are those of `translated`.
    """
    with translated(path):
        return scan_parquet(path).collect()


def scan_parquet(path: str | Path) -> pl.LazyFrame:
    """Scan a Parquet table lazily; what is collected from it is collected within `translated`.

    Page checksums are compared in tables above 64 MiB; smaller ones are hashed whole when a process opens them first
    (see `seqdata.storage.table_cache`).

    Raises:
        InputError: If it is absent.
        ContractError: If it is no Parquet.
    """
    with translated(path):
        if Path(path).stat().st_size <= WHOLE_BYTES:
            return pl.scan_parquet(path)
        # Polars compares no page checksums; Arrow does, at the same speed.
        return lazy_blocks(partial(_row_groups, path), pl.read_parquet_schema(path))


def _row_groups(path: str | Path, columns: list[str] | None) -> Iterator[pl.DataFrame]:
    """Yield the row groups of a table."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):
            yield pl.DataFrame(pl.from_arrow(file.read_row_group(group, columns=columns)))


def lazy_blocks(
    blocks: Callable[[list[str] | None], Iterator[pl.DataFrame]], schema: Mapping[str, pl.DataType]
) -> pl.LazyFrame:
    """Scan lazily what a function yields block by block.

    Args:
        blocks: Takes the names of the columns to read (None for all) and yields these.
        schema: All columns.
    """
    return register_io_source(partial(_filter_blocks, blocks), schema=pl.Schema(schema))


def _filter_blocks(
    blocks: Callable[[list[str] | None], Iterator[pl.DataFrame]],
    columns: list[str] | None,
    predicate: pl.Expr | None,
    rows: int | None,
    _batch_size: int | None,
) -> Iterator[pl.DataFrame]:
    """Yield the blocks as polars wants them: some columns, the first rows, those that fulfil a condition."""
    for block in blocks(columns):
        # Arrow gives columns in their order in the file, polars expects its own.
        ordered = block if columns is None else block.select(columns)
        frame = ordered if rows is None else ordered.head(rows)
        rows = None if rows is None else rows - frame.height
        yield frame if predicate is None else frame.filter(predicate)
        if rows == 0:
            return


def read_schema(path: str | Path) -> dict[str, pl.DataType]:
    """Read the names and types of a table's columns, from its footer.

    Errors are those of `translated`.
    """
    with translated(path):
        return dict(pl.read_parquet_schema(path))


def read_rows(path: str | Path) -> int:
    """Number of rows of a Parquet file, from its footer.

    Errors are those of `translated`.
    """
    with translated(path):
        return int(pq.read_metadata(path).num_rows)


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read the key-value metadata that `write_parquet_atomic` put into a Parquet file, without Arrow's own entry.

    Errors are those of `translated`.
    """
    with translated(path):
        entries = pq.read_metadata(path).metadata or {}
        return {key.decode(): value.decode() for key, value in entries.items() if key != b"ARROW:schema"}
