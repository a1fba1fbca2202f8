"""Descriptors of any other model: read safely, matched to a protocol's windows by name or order, searched exactly."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer.arrays import unit
from indexer.evaluation import predictions
from indexer.evaluation.external_files import read_ids
from indexer.evaluation.predictions import PredictionsInfo
from indexer.evaluation.scoring import KEEP, make_info
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError, NotEnoughDataError
from seqdata.geometry import Float32Array, IntArray

BLOCK_VALUES = 1 << 25  # float32 values of the database held at once: 128 MiB
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
    """Predictions of a split from two `.npy` files of descriptors (n, d), by exact L2 or cosine.

    Row i describes window i of the protocol's table, or, with a file of ids, the window whose centre frame has the key
    in line i; windows may stand in any order, and rows of other windows are left aside. Files are memory-mapped, the
    database is read once a block of queries.
    Raises: InputError, ContractError naming the file and what does not fit, NotEnoughDataError for an empty split.
    """
    sides = [dataset.sequences(protocol, split, role) for role in ("query", "database")]
    for role, table in zip(("query", "database"), sides, strict=True):
        if not table.height:
            raise NotEnoughDataError(f"protocol {protocol.name}, split {split}: no {role} window in this dataset")
    vectors = [open_descriptors(path) for path in (query, database)]
    if vectors[0].shape[1] != vectors[1].shape[1]:
        raise ContractError(
            f"{query}: descriptors of {vectors[0].shape[1]} numbers, those of {database} have {vectors[1].shape[1]}"
        )
    asked = rows_of(dataset, sides[0], vectors[0], query, query_ids)
    stored = rows_of(dataset, sides[1], vectors[1], database, database_ids)

    def search(query_rows: IntArray, database_rows: IntArray) -> tuple[npt.ArrayLike, npt.ArrayLike]:
        apart, found = nearest(vectors[0], asked[query_rows], vectors[1], stored[database_rows], KEEP, cosine=cosine)
        return apart, database_rows[found]

    if protocol.pool == "each":
        table = predictions.by_city(sides[0]["city"].to_list(), sides[1]["city"].to_list(), search)
    else:
        table = predictions.table(*search(np.arange(sides[0].height), np.arange(sides[1].height)))
    method = name or f"{query.stem}, {'cosine' if cosine else 'L2'}"
    return table, make_info(dataset, protocol, split, *sides, method=method, size=int(vectors[0].shape[1]))


def open_descriptors(path: Path) -> Vectors:
    """A `.npy` file of float descriptors (n, d), memory-mapped; nothing in it is ever executed.

    Raises: InputError when there is no such file, ContractError when it is something else.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, OverflowError) as error:
        raise ContractError(f"{path}: not a NumPy .npy file of numbers ({error})") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ContractError(f"{path}: an .npz archive; save one array with numpy.save")
    if array.ndim != 2 or array.dtype.kind != "f" or array.dtype.itemsize > 8 or 0 in array.shape:
        raise ContractError(f"{path}: shape {array.shape}, {array.dtype}; float descriptors (windows, numbers) needed")
    return array


def rows_of(dataset: Dataset, table: pl.DataFrame, vectors: Vectors, path: Path, ids: Path | None) -> IntArray:
    """Row (n,) int64 in `vectors` of every window of `table`. Raises: ContractError when one has none."""
    if ids is None:
        if len(vectors) != table.height:
            raise ContractError(
                f"{path}: {len(vectors)} descriptors, the protocol has {table.height} {table['role'][0]} windows here; "
                "name a file of ids, or give one row a window in the table's order"
            )
        return np.arange(len(vectors))
    known = read_ids(ids)
    if len(known) != len(vectors):
        raise ContractError(f"{ids}: {len(known)} ids for the {len(vectors)} descriptors of {path}")
    if known.is_duplicated().any():
        raise ContractError(f"{ids}: '{known.filter(known.is_duplicated())[0]}' stands there twice")
    keys = dataset.places(table).select(pl.col("key"))
    named = pl.DataFrame({"key": known, "row": np.arange(len(known))})
    found = keys.join(named, on="key", how="left", maintain_order="left")
    missing = found.filter(pl.col("row").is_null())
    if missing.height:
        raise ContractError(
            f"{ids}: lacks {missing.height} of {table.height} {table['role'][0]} windows, such as "
            f"'{missing['key'][0]}' (ids are keys of centre frames)"
        )
    return found["row"].to_numpy()


def nearest(
    query: Vectors, asked: IntArray, database: Vectors, stored: IntArray, k: int, *, cosine: bool = False
) -> tuple[Float32Array, IntArray]:
    """The k nearest of the rows `stored` of `database` (m, d) for the rows `asked` of `query` (n, d), exact.

    Returns plain L2 distances, or 1 - cosine, (len(asked), k) float32, nearest first with ties by position, and
    positions in `stored`, int64. One block of the database and 1,024 queries are held as float32.
    Raises: ContractError when a descriptor holds NaN or infinity.
    """
    k = min(k, len(stored))
    distances = np.empty((len(asked), k), np.float32)
    rows = np.empty((len(asked), k), np.int64)
    for start in range(0, len(asked), QUERIES_A_BLOCK):
        part = slice(start, start + QUERIES_A_BLOCK)
        distances[part], rows[part] = _nearest_block(_ready(query, asked[part], cosine), database, stored, k, cosine)
    return distances, rows


def _nearest_block(
    queries: Float32Array, database: Vectors, stored: IntArray, k: int, cosine: bool
) -> tuple[Float32Array, IntArray]:
    import faiss

    step = max(1, BLOCK_VALUES // database.shape[1])
    apart: Float32Array = np.empty((len(queries), 0), np.float32)
    found: IntArray = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(stored), step):
        block = _ready(database, stored[start : start + step], cosine)
        _, near = faiss.knn(queries, block, min(k, len(block)))
        # FAISS finds the candidates; its product form loses digits near zero, so distances come from differences.
        exact = np.stack([np.linalg.norm(block[rows] - one, axis=1) for rows, one in zip(near, queries, strict=True)])
        apart, found = np.hstack([apart, exact]), np.hstack([found, near + start])
        order = np.lexsort((found, apart), axis=1)[:, :k]
        apart, found = np.take_along_axis(apart, order, 1), np.take_along_axis(found, order, 1)
    return (np.asarray(np.square(apart) / 2, np.float32) if cosine else apart), found


def _ready(vectors: Vectors, rows: IntArray, cosine: bool) -> Float32Array:
    taken = np.ascontiguousarray(vectors[rows], dtype=np.float32)
    if not np.isfinite(taken).all():
        raise ContractError("a descriptor holds NaN or infinity; check the model that wrote it")
    return unit(taken) if cosine else taken
