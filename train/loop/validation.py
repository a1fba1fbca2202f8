"""Validation recall inside training: exact search over one split of the protocol."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from indexer.evaluation.shared_frames import shared_pairs, without_pairs
from indexer.search.exact import in_groups, nearest_rows
from seqdata.contracts.protocol import Protocol
from seqdata.geometry import Float32Array, IntArray
from train.losses.distances import ranking

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

AT = (1, 5, 10)
CHUNK = 1024


class Validator:
    """Recall on one split: its tables and positives are found once, its windows described at each call.

    The split is absent (`.usable` False) when the protocol has none of that name, or no query with a positive.
    """

    def __init__(self, dataset: "Dataset", protocol: Protocol, split: str = "val") -> None:
        self.dataset = dataset
        self.protocol = protocol
        self.usable = split in protocol.splits
        if not self.usable:
            return
        self.queries = dataset.sequences(protocol=protocol, split=split, role="query")
        self.database = dataset.sequences(protocol=protocol, split=split, role="database")
        self.usable = len(self.queries) > 0 and len(self.database) > 0
        if self.usable:
            rows = (dataset.frame_rows(table) for table in (self.queries, self.database))
            self.shared = shared_pairs(*rows)
            self.positives = without_pairs(dataset.protocol_positives(protocol, split), self.shared)
            self.usable = len(self.positives) > 0

    def __call__(
        self, describe: Callable[[pl.DataFrame], NDArray[np.float32]], frames: int | None = None
    ) -> dict[str, float]:
        """R@1, R@5 and R@10 as {"r1": …} in 0…1, under the protocol's rule, pooling and no-positive policy.

        `describe` gives descriptors `(n, D)` of a window table; `frames` says how they are compared (see
        `train.losses.distances`). A query and a database window that share a frame never match.
        """
        vectors = describe(pl.concat([self.queries, self.database]))
        query, database = vectors[: len(self.queries)], vectors[len(self.queries) :]
        most_shared = int(self.shared.group_by("query").len()["len"].max() or 0)  # type: ignore[arg-type]
        nearest = search(query, database, max(AT) + most_shared, self._groups(), frames)
        nearest = without(nearest, self.shared, len(self.database))[:, : max(AT)]
        missed = self.protocol.no_positive == "miss"
        return recalls(nearest, self.positives, len(self.database), missed)

    def frame_rows(self) -> NDArray[np.int64]:
        """Frame rows `(n, L)` that a validation reads; none where the split is absent."""
        if not self.usable:
            return np.zeros((0, 0), np.int64)
        return self.dataset.frame_rows(pl.concat([self.queries, self.database]))

    def _groups(self) -> tuple[NDArray[np.str_], NDArray[np.str_]] | None:
        """Cities of queries and database where the protocol searches each city alone."""
        if self.protocol.pool == "together":
            return None
        return self.queries["city"].to_numpy(), self.database["city"].to_numpy()


def search(
    query: NDArray[np.float32],
    database: NDArray[np.float32],
    k: int,
    groups: tuple[NDArray[np.str_], NDArray[np.str_]] | None = None,
    frames: int | None = None,
) -> NDArray[np.int64]:
    """Rows of the k nearest database vectors, exact: `(q, D)`, `(n, D)` → int64 `(q, k)`, −1 where fewer exist.

    By L2, or as `frames` says (see `train.losses.distances`). With `groups` (labels of queries and database) only
    vectors of
    the query's group are searched.
    """
    if groups is None:
        groups = np.zeros(len(query), np.int64), np.zeros(len(database), np.int64)

    def nearest(lines: IntArray, rows: IntArray) -> tuple[Float32Array, IntArray]:
        """The nearest of some database rows to some queries."""
        if frames is None:
            distances, positions = nearest_rows(query[lines], database[rows], k)
            return distances, rows[positions]
        reference, blocks = torch.from_numpy(database[rows]), []
        for start in range(0, len(lines), CHUNK):
            part = torch.from_numpy(query[lines[start : start + CHUNK]])
            # A stable sort, so that of equally near windows the first comes first, as in every other search.
            blocks.append(ranking(part, reference, frames).sort(dim=1, stable=True))
        least = torch.cat([block.values[:, :k] for block in blocks]).numpy()
        return least, rows[torch.cat([block.indices[:, :k] for block in blocks]).numpy()]

    return in_groups(nearest, groups, k)[1]


def without(nearest: NDArray[np.int64], pairs: pl.DataFrame, database_size: int) -> NDArray[np.int64]:
    """Nearest rows `(q, k)` less the given pairs (columns query, database): the others move up, −1 fills the end."""
    if not pairs.height:
        return nearest
    taken = pairs["query"].to_numpy().astype(np.int64) * database_size + pairs["database"].to_numpy()
    left_out = np.isin(np.arange(len(nearest))[:, None] * database_size + nearest, taken) & (nearest >= 0)
    order = np.argsort(left_out, axis=1, kind="stable")
    return np.take_along_axis(np.where(left_out, -1, nearest), order, axis=1)


def recalls(
    nearest: NDArray[np.int64],
    positives: pl.DataFrame,
    database_size: int,
    count_without: bool = False,
    at: Sequence[int] = AT,
) -> dict[str, float]:
    """Share of counted queries with a positive among the N nearest, as {"r1": …}.

    `nearest` `(q, k)` database rows, best first (−1 = none); `positives` has columns query and database.
    Queries without a positive are left out, or count as misses with `count_without`.
    """
    pair = positives["query"].to_numpy().astype(np.int64) * database_size + positives["database"].to_numpy()
    codes = np.where(nearest >= 0, np.arange(len(nearest))[:, None] * database_size + nearest, -1)
    hits = np.isin(codes, pair)
    counted = len(nearest) if count_without else len(np.unique(positives["query"].to_numpy()))
    return {f"r{n}": float(hits[:, :n].any(1).sum() / counted) if counted else 0.0 for n in at}
