"""Descriptors of any other model: read safely, matched to a protocol's windows by name or order, searched exactly."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer.arrays import open_npy, unit
from indexer.evaluation.external_files import read_ids
from indexer.evaluation.predictions import PredictionsInfo, search_pools
from indexer.evaluation.scoring import KEEP, make_info
from indexer.search.exact import ExactVectors
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError, NotEnoughDataError
from seqdata.geometry import Float32Array, IntArray

BLOCK_VALUES = 1 << 25  # float32 values of the database in memory at once: 128 MiB
QUERIES_A_BLOCK = 1024

Vectors = npt.NDArray[np.floating]


def search_descriptors(
    dataset: Dataset,
    protocol: Protocol,
    split: str,
    query: Path,
    database: Path,
    *,
    query_ids: Path | None = None,
    database_ids: Path | None = None,
    cosine: bool = False,
    name: str | None = None,
) -> tuple[pl.DataFrame, PredictionsInfo]:
    """Predict a split's queries from another model's descriptors, by exact L2 or cosine.

    Row i describes window i of the protocol's table, or, with a file of ids, the window whose centre frame has the key
    in line i; windows may stand in any order, and rows of other windows are left aside.

    Args:
        dataset: The dataset whose windows are described.
        protocol: The protocol that cuts the windows.
        split: Split of the protocol.
        query: `.npy` file of query descriptors (n, d), memory-mapped.
        database: `.npy` file of database descriptors (m, d), read once a block of queries.
        query_ids: File of the query rows' keys (see `external_files.read_ids`).
        database_ids: File of the database rows' keys.
        cosine: Compare by cosine instead of plain L2.
        name: What a table of results calls the model; default: the name of the query file.

    Returns:
        Table contract `predictions` and what it answers.

    Raises:
        InputError: If a file is absent.
        ContractError: If a file does not fit; it is named.
        NotEnoughDataError: If the split is empty in this dataset.
    """
    queries, places = (dataset.sequences(protocol, split, role) for role in ("query", "database"))
    for role, windows in (("query", queries), ("database", places)):
        if not windows.height:
            raise NotEnoughDataError(f"protocol {protocol.name}, split {split}: no {role} window in this dataset")
    query_vectors, vectors = open_descriptors(query), open_descriptors(database)
    if query_vectors.shape[1] != vectors.shape[1]:
        raise ContractError(
            f"{query}: descriptors of {query_vectors.shape[1]} numbers, those of {database} have {vectors.shape[1]}"
        )
    query_lines = rows_of(dataset, queries, query_vectors, query, query_ids)
    lines = rows_of(dataset, places, vectors, database, database_ids)

    def search(query_rows: IntArray, database_rows: IntArray) -> tuple[Float32Array, IntArray]:
        distances, positions = nearest(
            query_vectors, query_lines[query_rows], vectors, lines[database_rows], KEEP, cosine=cosine
        )
        return distances, database_rows[positions]

    table = search_pools(protocol.pool, queries, places, search)
    method = name or f"{query.stem}, {'cosine' if cosine else 'L2'}"
    return table, make_info(dataset, protocol, split, queries, places, method=method, size=int(vectors.shape[1]))


def open_descriptors(path: Path) -> Vectors:
    """Open a `.npy` file of float descriptors (n, d), memory-mapped; nothing in it is ever executed.

    Raises:
        InputError: If there is no such file.
        ContractError: If it is something else.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    array = open_npy(path)
    # Integers are refused: a file of ids in place of descriptors would otherwise be searched.
    if array.ndim != 2 or array.dtype.kind != "f" or array.dtype.itemsize > 8 or 0 in array.shape:
        raise ContractError(f"{path}: shape {array.shape}, {array.dtype}; float descriptors (windows, numbers) needed")
    return array


def rows_of(dataset: Dataset, table: pl.DataFrame, vectors: Vectors, path: Path, ids: Path | None) -> IntArray:
    """Find the row (n,) in `vectors` of every window of `table`.

    Raises:
        ContractError: When one has none.
    """
    role = table["role"][0]
    if ids is None:
        if len(vectors) != table.height:
            raise ContractError(
                f"{path}: {len(vectors)} descriptors, the protocol has {table.height} {role} windows here; "
                "name a file of ids, or give one row a window in the table's order"
            )
        return np.arange(len(vectors))
    keys = read_ids(ids)
    if len(keys) != len(vectors):
        raise ContractError(f"{ids}: {len(keys)} ids for the {len(vectors)} descriptors of {path}")
    if keys.is_duplicated().any():
        raise ContractError(f"{ids}: '{keys.filter(keys.is_duplicated())[0]}' stands there twice")
    lines = pl.DataFrame({"key": keys, "row": np.arange(len(keys))})
    windows = dataset.places(table).select("key").join(lines, on="key", how="left", maintain_order="left")
    missing = windows.filter(pl.col("row").is_null())
    if missing.height:
        raise ContractError(
            f"{ids}: lacks {missing.height} of {table.height} {role} windows, such as "
            f"'{missing['key'][0]}' (ids are keys of centre frames)"
        )
    return windows["row"].to_numpy()


def nearest(
    query: Vectors, query_rows: IntArray, database: Vectors, database_rows: IntArray, k: int, *, cosine: bool = False
) -> tuple[Float32Array, IntArray]:
    """Find the k nearest of some database rows for some query rows, by the exact search of an index.

    The database may be larger than memory: one block of it and 1,024 queries are held as float32.

    Args:
        query: Query descriptors (n, d) of any float type, mapped or not.
        query_rows: Rows (q,) of `query` to search for.
        database: Database descriptors (m, d).
        database_rows: Rows (p,) of `database` to search among.
        k: Neighbours of each query, cut to p.
        cosine: Compare by 1 - cosine instead of plain L2.

    Returns:
        Distances (q, k) float32, nearest first with ties by position, and positions (q, k) in `database_rows`.

    Raises:
        ContractError: If a descriptor is not finite.

    Example:
        >>> vectors = np.array([[0.0, 0.0], [3.0, 4.0], [9.0, 9.0]])
        >>> distances, positions = nearest(vectors, np.array([0]), vectors, np.array([1, 2]), k=1)
        >>> distances.tolist(), positions.tolist()
        ([[5.0]], [[0]])
    """
    k = min(k, len(database_rows))
    # Float64 files may differ by less than float32 tells apart at their common offset, which no L2 distance feels.
    origin = database[database_rows[:1]] if database.dtype == np.float64 and not cosine else None
    distances = np.empty((len(query_rows), k), np.float32)
    positions = np.empty((len(query_rows), k), np.int64)
    for start in range(0, len(query_rows), QUERIES_A_BLOCK):
        part = slice(start, start + QUERIES_A_BLOCK)
        queries = _finite_float32(query, query_rows[part], cosine, origin)
        distances[part], positions[part] = _nearest_in_blocks(queries, database, database_rows, k, cosine, origin)
    return distances, positions


def _nearest_in_blocks(
    queries: Float32Array, database: Vectors, rows: IntArray, k: int, cosine: bool, origin: Vectors | None
) -> tuple[Float32Array, IntArray]:
    """Distances and positions (q, k) of the nearest of `rows`, block by block of the database."""
    step = max(1, BLOCK_VALUES // database.shape[1])
    distances: Float32Array = np.empty((len(queries), 0), np.float32)
    positions: IntArray = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(rows), step):
        block = _finite_float32(database, rows[start : start + step], cosine, origin)
        block_distances, block_rows = ExactVectors(block, "cpu").nearest(queries, k)
        distances = np.hstack([distances, block_distances])
        positions = np.hstack([positions, block_rows + start])
        # Sorted by distance, then position, so that ties are settled as in one search over all blocks.
        order = np.lexsort((positions, distances), axis=1)[:, :k]
        distances, positions = np.take_along_axis(distances, order, 1), np.take_along_axis(positions, order, 1)
    # Of unit vectors |a - b|² = 2 - 2 cos(a, b): half the squared distance is 1 - cosine, without its cancellation.
    return (np.asarray(np.square(distances) / 2, np.float32) if cosine else distances), positions


def _finite_float32(vectors: Vectors, rows: IntArray, cosine: bool, origin: Vectors | None) -> Float32Array:
    """Rows (m, d) less the origin (1, d), as float32, of length one for cosine. Raises: ContractError if not finite."""
    selected = vectors[rows] if origin is None else vectors[rows] - origin
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(selected, dtype=np.float32)
    if not np.isfinite(narrow).all():
        raise ContractError("a descriptor holds NaN or infinity; check the model that wrote it")
    return unit(narrow) if cosine else narrow
