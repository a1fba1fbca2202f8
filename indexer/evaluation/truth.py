"""What predictions are judged by: a protocol's query windows and their positives, and how deep a list of ranks reaches.

A dataset, a protocol and the header of a predictions file give the `Truth`; whether the predictions answer the very
windows that the protocol cuts is checked first, by a key of the window tables.
"""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from indexer.evaluation.predictions import PredictionsInfo
from indexer.evaluation.shared_frames import SCHEMA, shared_pairs
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError
from seqdata.geometry import IntArray
from seqdata.storage.hashing import xxh3_hex


@dataclass(frozen=True, eq=False)
class Truth:
    """The true answers of a split's queries under one protocol.

    Attributes:
        protocol: The protocol, whose rule and radius the positives follow.
        queries: Query windows (q rows, table contract `places`).
        positives: Positive pairs, columns `query` and `database` (rows of the two window tables).
        database: Number of database windows.
        shared: Pairs that hold a frame in common; they are neither predictions nor positives.
        pools: Among how many database windows each query (q,) is searched (see `pools_of`); None for all of them.
    """

    protocol: Protocol
    queries: pl.DataFrame
    positives: pl.DataFrame
    database: int
    shared: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SCHEMA))
    pools: IntArray | None = None

    @property
    def pool_sizes(self) -> IntArray:
        """`pools`, or the whole database for every query: (q,)."""
        return np.full(self.queries.height, self.database, np.int64) if self.pools is None else self.pools


def load_truth(dataset: Dataset, protocol: Protocol, info: PredictionsInfo, radius: float | None = None) -> Truth:
    """Load the truth of predictions under a protocol.

    Args:
        dataset: The dataset whose windows the predictions name.
        protocol: The protocol that judges them.
        info: What the predictions answer.
        radius: Another radius than the protocol's, which makes it another protocol; None for its own.

    Returns:
        The queries with their positives, and the windows among which each is searched.

    Raises:
        ContractError: If the predictions are of another dataset, or the protocol cuts other windows.
    """
    queries, database = windows_of(dataset, protocol, info)
    judging = protocol if radius in (None, protocol.radius) else with_radius(protocol, float(radius or 0))
    return Truth(
        judging,
        dataset.places(queries),
        dataset.protocol_positives(protocol, info.split, radius),
        database.height,
        shared_pairs(dataset.frame_rows(queries), dataset.frame_rows(database)),
        pools_of(protocol, queries, database),
    )


def table_key(table: pl.DataFrame) -> str:
    """Name the windows of a table: equal keys mean the same windows in the same rows."""
    # Columns that say which frames a window holds; keys and coordinates follow from them and the dataset's id.
    text = table.select("track", "first", "length", "step", "trajectory", "centre").write_csv()
    return f"{table.height}-{xxh3_hex(text.encode())}"


def windows_of(dataset: Dataset, protocol: Protocol, info: PredictionsInfo) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Load the query and the database windows that predictions answer.

    Args:
        dataset: The dataset whose windows the predictions name.
        protocol: Cuts the windows.
        info: What the predictions answer.

    Returns:
        Query windows and database windows.

    Raises:
        ContractError: If the protocol cuts other windows from this dataset, or pools cities otherwise.
    """
    if info.dataset != dataset.id:
        raise ContractError(f"the predictions are of dataset {info.dataset[:12]}, this one is {dataset.id[:12]}")
    if info.pool != protocol.pool:
        raise ContractError(
            f"protocol {protocol.name} searches cities '{protocol.pool}', these predictions were made by searching "
            f"'{info.pool}'; run seqdata eval under it"
        )
    queries = dataset.sequences(protocol, info.split, "query")
    database = dataset.sequences(protocol, info.split, "database")
    if (table_key(queries), table_key(database)) != (info.query_table, info.database_table):
        raise ContractError(
            f"protocol {protocol.name} cuts other windows than {info.protocol}, which these predictions answer; "
            "index under it first"
        )
    return queries, database


def fits(dataset: Dataset, protocol: Protocol, info: PredictionsInfo) -> bool:
    """Say whether stored predictions answer the windows of a protocol, so that it can judge them without a search."""
    if info.dataset != dataset.id or info.pool != protocol.pool or info.split not in protocol.splits:
        return False
    sides = [table_key(dataset.sequences(protocol, info.split, role)) for role in ("query", "database")]
    return sides == [info.query_table, info.database_table]


def with_radius(protocol: Protocol, radius: float) -> Protocol:
    """Derive the protocol at another radius, under a name that says so and a hash of its own.

    Raises:
        ContractError: If the radius is not positive and finite.
    """
    if not 0 < radius < float("inf"):
        raise ContractError(f"radius {radius:g}: expected a positive number of {protocol.unit}")
    return protocol.model_copy(update={"radius": float(radius), "name": f"{protocol.name}-r{radius:g}"})


def pools_of(protocol: Protocol, queries: pl.DataFrame, database: pl.DataFrame) -> IntArray:
    """Count the database windows among which each query (q,) is searched: all, or those of its city."""
    if protocol.pool == "together":
        return np.full(queries.height, database.height, np.int64)
    # A left join keeps the order of the queries; a city without database has pool 0 and cannot lack ranks.
    sizes = queries.select("city").join(database.group_by("city").len(), on="city", how="left", maintain_order="left")
    return sizes["len"].fill_null(0).cast(pl.Int64).to_numpy()


def common_depth(predictions: pl.DataFrame, shared: pl.DataFrame, pools: IntArray) -> int:
    """Find the greatest rank to which the predictions of all queries reach, so that R@N up to there means one thing.

    Shared pairs do not count. A query whose whole pool is ranked lacks nothing, and a query without any prediction
    does not limit the others: it is a miss at every N.

    Args:
        predictions: Table contract `predictions`, shared pairs included.
        shared: Pairs that never match (see `indexer.evaluation.shared_frames`).
        pools: Windows (q,) among which each query is searched (see `pools_of`).

    Raises:
        ContractError: If a query has no rank left without its shared pairs.
    """
    deepest = int(predictions["rank"].cast(pl.Int64).max() or 0)  # type: ignore[arg-type]
    removed = predictions.join(shared, on=["query", "database"], how="semi").group_by("query").agg(removed=pl.len())
    counts = predictions.group_by("query").agg(ranks=pl.len()).join(removed, on="query", how="left")
    ranks = counts["ranks"].to_numpy().astype(np.int64)
    remaining = ranks - counts["removed"].fill_null(0).to_numpy()
    # A list that holds every window of its query's pool is whole, however short: only the others limit the depth.
    is_short = ranks < pools[counts["query"].to_numpy()]
    depth: int = min([deepest, *remaining[is_short].tolist()])
    if depth < min(deepest, 1):
        raise ContractError(
            f"predictions of {deepest} ranks: all of some query's share a frame with it and never match; "
            "more ranks are needed"
        )
    return depth
