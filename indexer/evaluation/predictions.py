"""Predictions: the nearest database windows of each query, stored so that any radius or rule re-scores them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import ValidationError

from seqdata.contracts.protocol import Protocol
from seqdata.contracts.records import Frozen, describe_first
from seqdata.contracts.table_files import read_table
from seqdata.contracts.tables import table_contract
from seqdata.errors import ContractError, InputError
from seqdata.geometry import IntArray
from seqdata.parallel.steps import step
from seqdata.storage.parquet import read_metadata, write_parquet_atomic

HEADER = "seqdata.predictions"

Search = Callable[[IntArray, IntArray], tuple[npt.ArrayLike, npt.ArrayLike]]
"""From query rows (m,) and the database rows (n,) to search: distances (m, k), nearest first, and *rows of the whole
database table* (m, k), as `PlaceIndex.search(..., rows=...)` returns them.
"""
Pool = Literal["together", "each"]
"""Whether a query is searched in all cities together or in its own alone."""


@dataclass(frozen=True)
class Provenance:
    """Who made predictions, as it stands beside the number: method, split, dataset id, index version, numbers a vector.

    `ranked_by` says in words which column of another program's file gave the order.
    """

    method: str
    split: str
    dataset: str = ""
    index: str | None = None
    size: int | None = None
    ranked_by: str | None = None


class PredictionsInfo(Frozen):
    """What a predictions file answers: stored as JSON in the Parquet file's own metadata.

    `dataset` is the dataset's id, `query_table` and `database_table` name the window tables whose rows are
    meant, `index` is an index version (None for a matcher without one), `method` what a table shows as the
    row's name, `pool` whether a query was searched in all cities together or in its own alone, `size` how many numbers
    a descriptor held (None for a matcher without one).
    """

    dataset: str
    protocol: str
    protocol_hash: str
    split: str
    query_table: str
    database_table: str
    method: str
    pool: Pool = "together"
    index: str | None = None
    queries: int
    database: int
    size: int | None = None
    ranked_by: str | None = None

    @property
    def provenance(self) -> Provenance:
        """Who made these predictions, as an evaluation names them."""
        return Provenance(self.method, self.split, self.dataset, self.index, self.size, self.ranked_by)

    def under(self, protocol: Protocol) -> "PredictionsInfo":
        """The same as an answer under another protocol, which cuts the same windows (see `scoring.fits`)."""
        return self.model_copy(update={"protocol": protocol.name, "protocol_hash": protocol.hash})


def table(distances: npt.ArrayLike, rows: npt.ArrayLike, query_rows: npt.ArrayLike | None = None) -> pl.DataFrame:
    """Make the predictions table of a search result.

    Convention: rank 1 is the nearest.

    Args:
        distances: Distances (q, k), nearest first.
        rows: Rows (q, k) of the database table; -1 where there are fewer than k.
        query_rows: Rows (q,) of the query table, 0 … q-1 when not given.

    Raises:
        ContractError: If the shapes differ.

    Example:
        >>> table([[0.1, 0.5]], [[7, 3]]).rows()
        [(0, 1, 7, 0.10000000149011612), (0, 2, 3, 0.5)]
    """
    neighbours = np.asarray(rows, dtype=np.int32)
    lengths = np.asarray(distances, dtype=np.float32)
    queries = np.arange(len(neighbours)) if query_rows is None else np.asarray(query_rows)
    if neighbours.ndim != 2 or lengths.shape != neighbours.shape or queries.shape != neighbours.shape[:1]:
        raise ContractError(f"predictions: distances {lengths.shape}, rows {neighbours.shape}, queries {queries.shape}")
    k = neighbours.shape[1]
    columns = {
        "query": np.repeat(queries, k).astype(np.int32),
        "rank": np.tile(np.arange(1, k + 1, dtype=np.int16), len(neighbours)),
        "database": neighbours.ravel(),
        "distance": lengths.ravel(),
    }
    # A search among few rows pads with row -1 at infinity: no answers, and no part of a predictions table.
    answers = pl.DataFrame(columns).filter(pl.col("database") >= 0)
    return table_contract("predictions").conform(answers)


@step("search")
def search_pools(pool: Pool, queries: pl.DataFrame, database: pl.DataFrame, search: Search) -> pl.DataFrame:
    """Search every query among the windows of its pool: all of the database, or its own city's.

    Args:
        pool: The protocol's pool rule, `together` or `each`.
        queries: Query windows (column city).
        database: Database windows (column city).
        search: Finds the nearest of some database rows for some query rows (see `Search`).

    Returns:
        Table contract `predictions`; a query of a city without database has none.
    """
    if pool == "each":
        return by_city(queries["city"].to_list(), database["city"].to_list(), search)
    return table(*search(np.arange(queries.height), np.arange(database.height)))


def by_city(query_cities: Sequence[str], database_cities: Sequence[str], search: Search) -> pl.DataFrame:
    """Search every query within its own city only.

    Args:
        query_cities: City of each query window.
        database_cities: City of each database window.
        search: As in `search_pools`.

    Returns:
        Table contract `predictions`; a query of a city without database has none.
    """
    queries, database = np.asarray(query_cities), np.asarray(database_cities)
    # An empty table first, so that no common city still gives the right columns.
    parts = [table(np.empty((0, 0)), np.empty((0, 0)))]
    for city in sorted(set(query_cities) & set(database_cities)):
        city_queries = np.flatnonzero(queries == city)
        distances, rows = search(city_queries, np.flatnonzero(database == city))
        parts.append(table(distances, rows, city_queries))
    return pl.concat(parts).sort("query", "rank")


def write(path: str | Path, predictions: pl.DataFrame, info: PredictionsInfo) -> None:
    """Write predictions with what they answer as Parquet.

    Raises:
        ContractError: If they break the contract `predictions`, or name rows that `info` does not have.
        OutputError: When it cannot be written.
    """
    table_contract("predictions").validate(predictions, file=path)
    _check_rows(predictions, info, path)
    # Files of the product's own indexes keep the bytes that they had before `ranked_by` was known.
    header = info.model_dump_json(exclude=None if info.ranked_by else {"ranked_by"})
    write_parquet_atomic(predictions, path, {HEADER: header})


def read(path: str | Path) -> tuple[pl.DataFrame, PredictionsInfo]:
    """Read predictions and what they answer.

    Raises:
        InputError: When there is no such file.
        ContractError: When it is damaged or something else.
    """
    info = read_info(path)
    predictions = read_table("predictions", path)
    _check_rows(predictions, info, path)
    return predictions, info


def read_info(path: str | Path) -> PredictionsInfo:
    """What a predictions file answers, without its rows.

    Errors are those of `read`.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; run seqdata eval to write predictions")
    try:
        return PredictionsInfo.model_validate_json(read_metadata(path).get(HEADER, ""))
    except ValidationError as error:
        raise ContractError(f"{path}: not a predictions file: {describe_first(error)}") from error


def _check_rows(predictions: pl.DataFrame, info: PredictionsInfo, path: str | Path) -> None:
    """Rows must lie inside the tables, and no query may have a rank twice. Raises: ContractError."""
    if len(predictions) == 0:
        return
    for column, size in (("query", info.queries), ("database", info.database)):
        inside = predictions[column].is_between(0, size - 1).all()
        if not inside:
            raise ContractError(f"{path}: column '{column}' names rows outside its table of {size}")
    # Ranks may have gaps only at the end: a list without rank 1 was cut from another one.
    if predictions["rank"].min() != 1 or predictions.select("query", "rank").is_duplicated().any():
        raise ContractError(f"{path}: column 'rank' must count from 1, once for each query")
