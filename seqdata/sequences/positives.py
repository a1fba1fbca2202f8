"""Ground truth: every pair of a query and a database window near each other, with its distances.

A pair is stored once with its least, centre, last and worst distance and its heading difference, out to a
greatest radius; the rules any, centre, last and all, smaller radii and heading limits are then filters on the
table.

Convention: coordinates are metres of one UTM zone a group, float64 throughout (float32 moves pairs), or frame
ranks when the unit is frames. The distance of two frames is sqrt(dx·dx + dy·dy). The centre of a window is
its frame at index (L−1)//2. In metres a pair must be strictly nearer than the radius, in frames at most the
radius.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import polars as pl

from seqdata.errors import ContractError
from seqdata.geometry import Float64Array, IntArray, heading_difference
from seqdata.sequences.distances import Columns, tile_pairs
from seqdata.sequences.tiles import TileFinder, Tiles, WindowSet, common_stride, cut_tiles
from seqdata.storage.files import atomic_path
from seqdata.storage.parquet import parquet_writer

__all__ = ["POSITIVES_SCHEMA", "WindowSet", "accepts", "pair_blocks", "positives", "write_positives"]

QUERY_ROWS = 1024  # query windows planned together
# Most window pairs compared in one piece, unless a single query has more: about 25 MB of distances a thread.
WINDOW_PAIRS = 1 << 19
ROW_GROUP = 1 << 20  # rows of a Parquet row group
RULE_COLUMNS = {
    "any": "min_distance",
    "centre": "centre_distance",
    "last": "last_distance",
    "all": "worst_distance",
}
POSITIVES_SCHEMA = pl.Schema(
    {
        "query": pl.Int32,
        "database": pl.Int32,
        "min_distance": pl.Float64,
        "centre_distance": pl.Float64,
        "last_distance": pl.Float64,
        "worst_distance": pl.Float64,
        "heading_difference": pl.Float32,
    }
)


def pair_blocks(
    query: WindowSet, database: WindowSet, *, radius: float, unit: str = "metres", threads: int = 2
) -> Iterator[pl.DataFrame]:
    """Yield all pairs whose least distance lies within `radius`, a bounded block of queries at a time.

    Every other rule's distance is at least the least one, so no rule misses a pair. Memory: the tables of a block and
    its neighbours in flight; a single query's pairs always stand in one block. Definitions: docs/methods.md#positives.

    Args:
        query: The query windows.
        database: The database windows, in the same unit.
        radius: Greatest least distance, in `unit`.
        unit: "metres" (strictly less than the radius) or "frames" (at most the radius).
        threads: Threads that measure; neither the order nor any value depends on them.

    Yields:
        Tables with the columns of `POSITIVES_SCHEMA`, rows rising by (query, database) over all of them: query,
        database (int32 rows of the two sets), min_distance, centre_distance, last_distance, worst_distance (float64;
        worst is the greatest over the query's frames of the distance to the nearest frame of the database window),
        heading_difference (float32 degrees of the centre frames, null where a heading is unknown).

    Raises:
        ContractError: If the radius is negative or the unit unknown.
    """
    for _, block in _blocks(query, database, radius, unit, threads):
        yield block


def positives(
    query: WindowSet, database: WindowSet, *, radius: float, unit: str = "metres", threads: int = 2
) -> pl.DataFrame:
    """Find all pairs of `pair_blocks` as one table, 44 bytes a pair in memory.

    Args:
        query: The query windows.
        database: The database windows, in the same unit.
        radius: Greatest least distance, in the unit.
        unit: "metres" or "frames".
        threads: Threads that compute.

    Returns:
        Contract `positives`.

    Raises:
        ContractError: As `pair_blocks`.

    Example:
        >>> query = WindowSet.from_coordinates([[0.0, 0.0], [0.0, 2.0]], first=[0], length=2)
        >>> database = WindowSet.from_coordinates([[3.0, 0.0], [3.0, 2.0], [90.0, 0.0]], first=[0, 1], length=2)
        >>> positives(query, database, radius=25.0)["min_distance"].to_list()
        [3.0, 3.0]
    """
    blocks = list(pair_blocks(query, database, radius=radius, unit=unit, threads=threads))
    return pl.concat([_empty(), *blocks])


def write_positives(
    path: str | Path,
    query: WindowSet,
    database: WindowSet,
    *,
    radius: float,
    unit: str = "metres",
    threads: int = 2,
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write all pairs of `pair_blocks` to a Parquet file, a block at a time.

    The file's bytes depend on the windows, the radius, the unit and the metadata alone. It appears under its name only
    when it is whole.

    Args:
        path: File to write.
        query: The query windows.
        database: The database windows.
        radius: As for `pair_blocks`.
        unit: As for `pair_blocks`.
        threads: As for `pair_blocks`.
        metadata: Key-value metadata of the Parquet file.
        progress: Called with the number of query windows that are finished.

    Returns:
        The number of pairs.

    Raises:
        ContractError: As `pair_blocks`.
        OutputError: If the file cannot be written.
    """
    return write_blocks(path, _blocks(query, database, radius, unit, threads), metadata, progress)


def write_blocks(
    path: str | Path,
    blocks: Iterable[tuple[int, pl.DataFrame]],
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write blocks of pairs to a Parquet file, small ones together in one row group.

    Args:
        path: File to write; it appears under its name only when it is whole.
        blocks: Numbers of query windows finished, and pairs.
        metadata: Key-value metadata of the Parquet file.
        progress: Called with each number of query windows.

    Returns:
        The number of pairs.

    Raises:
        OutputError: If the file cannot be written.
    """
    total = 0
    with atomic_path(path) as temporary, _pair_writer(temporary, metadata) as write:
        waiting: list[pl.DataFrame] = []
        for finished, block in blocks:
            waiting.append(block)
            total += len(block)
            # Blocks are the same whatever the threads, so row groups and with them the file's bytes are too.
            if sum(map(len, waiting)) >= ROW_GROUP:
                _write(write, waiting)
                waiting = []
            if progress is not None:
                progress(finished)
        _write(write, waiting)
    return total


def accepts(rule: str, radius: float, unit: str = "metres", heading_max: float | None = None) -> pl.Expr:
    """Express which pairs a protocol's rule accepts, as a filter of a pair table.

    Args:
        rule: "any" (least distance), "centre", "last" or "all" (worst distance).
        radius: Strictly greater than the distance in metres, at least the distance in frames.
        unit: "metres" or "frames".
        heading_max: Greatest difference of the centre frames' headings in degrees; a pair with an unknown heading is
            then left out, because nothing says that both face the same way.

    Raises:
        ContractError: If the rule or the unit is unknown.
    """
    _check_limit(radius, unit)
    if rule not in RULE_COLUMNS:
        raise ContractError(f"rule {rule!r}: expected one of {', '.join(RULE_COLUMNS)}")
    distance = pl.col(RULE_COLUMNS[rule])
    condition = distance <= radius if unit == "frames" else distance < radius
    if heading_max is not None:
        condition &= (pl.col("heading_difference") <= heading_max).fill_null(False)
    return condition


class PairFinder:
    """Finds pairs with one database, whose R-trees are made once: for queries that come a few at a time.

    Args:
        database: The database windows.
        radius: As for `pair_blocks`.
        unit: As for `pair_blocks`.

    Raises:
        ContractError: As `pair_blocks`.
    """

    def __init__(self, database: WindowSet, *, radius: float, unit: str = "metres") -> None:
        _check_limit(radius, unit)
        self.radius, self.unit = radius, unit
        self._finder = TileFinder(cut_tiles(database, range(len(database)), common_stride(database)), radius)
        self._heading = database.centre_heading()

    def pairs(self, query: WindowSet, threads: int = 2) -> pl.DataFrame:
        """Find all pairs of some queries (contract `positives`).

        Args:
            query: The query windows, in the same unit and over the same frames.
            threads: Threads that compute.
        """
        return pl.concat([_empty(), *(block for _, block in self.blocks(query, threads))])

    def blocks(self, query: WindowSet, threads: int = 2) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield numbers of query windows finished and blocks of pairs, in query order; few are in flight."""
        query_heading = query.centre_heading()

        def block(tiles: Tiles, pairs: tuple[IntArray, IntArray]) -> pl.DataFrame:
            columns = tile_pairs(tiles, self._finder.database, pairs, self.radius, self.unit == "frames")
            return _table(columns, query_heading, self._heading)

        # The oldest block is waited for first, so blocks leave in query order however the threads finish.
        flying: deque[tuple[int, Future[pl.DataFrame]]] = deque()
        with ThreadPoolExecutor(max(1, threads)) as pool:
            try:
                for finished, tiles, pairs in _plans(query, self._finder):
                    flying.append((finished, pool.submit(block, tiles, pairs)))
                    if len(flying) > threads:
                        yield flying[0][0], flying.popleft()[1].result()
                while flying:
                    yield flying[0][0], flying.popleft()[1].result()
            finally:
                for _, future in flying:
                    future.cancel()


def _blocks(
    query: WindowSet, database: WindowSet, radius: float, unit: str, threads: int
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Blocks of pairs with the number of query windows finished, in query order."""
    return PairFinder(database, radius=radius, unit=unit).blocks(query, threads)


def _plans(query: WindowSet, finder: TileFinder) -> Iterator[tuple[int, Tiles, tuple[IntArray, IntArray]]]:
    """Ranges of query windows with their tile pairs, in order; a range too rich in pairs is halved."""
    stride = common_stride(query)
    ranges = [range(at, min(at + QUERY_ROWS, len(query))) for at in range(0, len(query), QUERY_ROWS)][::-1]
    while ranges:
        rows = ranges.pop()
        tiles = cut_tiles(query, rows, stride)
        pairs = finder.candidates(tiles)
        if len(pairs[0]) * tiles.slots * finder.database.slots > WINDOW_PAIRS and len(rows) > 1:
            # Halved and put back in order: dense ground gets small blocks, thin ground large ones.
            middle = len(rows) // 2
            ranges += [rows[middle:], rows[:middle]]
        else:
            yield rows.stop, tiles, pairs


def _table(columns: Columns, query_heading: Float64Array, database_heading: Float64Array) -> pl.DataFrame:
    """The pair table of one block, with the heading difference of the centre frames; unknown becomes null."""
    turn = heading_difference(query_heading[columns["query"]], database_heading[columns["database"]])
    table = pl.DataFrame({**columns, "heading_difference": turn}).with_columns(
        pl.col("heading_difference").fill_nan(None)
    )
    return table.cast(POSITIVES_SCHEMA)


def _empty() -> pl.DataFrame:
    return pl.DataFrame(schema=POSITIVES_SCHEMA)


def _pair_writer(
    path: Path, metadata: Mapping[str, str] | None
) -> AbstractContextManager[Callable[[pl.DataFrame], None]]:
    """A writer of pair tables, one row group a call.

    Least and worst distances are not split by byte: neighbouring windows share them, and zstd finds the repeats only
    in whole numbers.
    """
    plain = ("min_distance", "worst_distance")
    return parquet_writer(path, POSITIVES_SCHEMA, metadata, level=1, plain=plain, one_group=True)


def _write(write: Callable[[pl.DataFrame], None], blocks: list[pl.DataFrame]) -> None:
    """Write blocks as one row group, nothing when they are empty."""
    table = pl.concat([_empty(), *blocks], rechunk=True)
    if len(table):
        write(table)


def _check_limit(radius: float, unit: str) -> None:
    if unit not in ("metres", "frames"):
        raise ContractError(f"unit {unit!r}: expected metres or frames")
    if not (np.isfinite(radius) and radius >= 0):
        raise ContractError(f"radius {radius}: expected a number of {unit} that is not negative")
