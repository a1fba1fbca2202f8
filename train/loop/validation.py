"""Validation recall inside training: the index's exact search and recall over one split of the protocol."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch

from indexer.evaluation import predictions
from indexer.evaluation.recall import SHORT_RANKS, recall_at
from indexer.evaluation.shared_frames import most_shared, shared_pairs, without_pairs
from indexer.evaluation.truth import Truth
from indexer.search.exact import Neighbours, in_groups, nearest_rows
from seqdata.contracts.protocol import Protocol
from seqdata.geometry import Float32Array, IntArray
from train.devices import or_on_cpu
from train.devices.ranks import ALONE, Ranks
from train.losses.distances import QUERIES_AT_ONCE, distance_matrix

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

CPU = torch.device("cpu")


class Validator:
    """Recall on one split: its tables and positives are read once, its windows described at each call.

    Attributes:
        usable: False when the protocol has no split of that name, or it has no query with a positive.
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
            shared = shared_pairs(*rows)
            positives = without_pairs(dataset.protocol_positives(protocol, split), shared)
            self.truth = Truth(protocol, self.queries, positives, len(self.database), shared)
            self.usable = len(positives) > 0

    def __call__(
        self,
        describe: Callable[[pl.DataFrame], Float32Array],
        frames: int | None = None,
        ranks: Ranks = ALONE,
        device: torch.device = CPU,
    ) -> dict[str, float]:
        """Measure recall under the protocol's rule, pooling and no-positive policy.

        A query and a database window that share a frame never match.

        Several processes share the work. Each describes a share of the queries, which all get, and a share of the
        database, in which it searches the nearest of every query; only these are exchanged.

        Args:
            describe: Gives descriptors (n, D) of a window table; (0, 0) of none.
            frames: How they are compared (see `train.losses.distances`).
            ranks: The processes; all must call.
            device: Where aligned descriptors are compared.

        Returns:
            R@1, R@5 and R@10 as {"r1": …} in 0…1.

        Raises:
            ContractError: If a descriptor is not finite.
        """
        own, share = (ranks.share(len(table)) for table in (self.queries, self.database))
        descriptors = describe(pl.concat([self.queries[own], self.database[share]]))
        count = own.stop - own.start
        query = ranks.gather_rows(torch.from_numpy(descriptors[:count]), len(self.queries)).numpy()
        # So much deeper that no query lacks ranks once the windows that share a frame with it are left out.
        depth = max(SHORT_RANKS) + most_shared(self.truth.shared)
        depth = min(depth, len(self.database))
        groups = self._groups()
        groups = None if groups is None else (groups[0], groups[1][share])
        nearest = search(query, descriptors[count:], depth, groups, frames, device)
        answers = predictions.table(*_merged(nearest, share.start, depth, ranks))
        return {f"r{rank}": recall for rank, recall in recall_at(answers, self.truth).items()}

    def frame_rows(self) -> IntArray:
        """Frame rows (n, L) that a validation reads; none where the split is absent."""
        if not self.usable:
            return np.zeros((0, 0), np.int64)
        return self.dataset.frame_rows(pl.concat([self.queries, self.database]))

    def _groups(self) -> tuple[IntArray, IntArray] | None:
        """City numbers of queries and database where the protocol searches each city alone."""
        if self.protocol.pool == "together":
            return None
        cities = pl.concat([self.queries["city"], self.database["city"]]).rank("dense").to_numpy().astype(np.int64)
        return cities[: len(self.queries)], cities[len(self.queries) :]


def search(
    query: Float32Array,
    database: Float32Array,
    k: int,
    groups: tuple[IntArray, IntArray] | None = None,
    frames: int | None = None,
    device: torch.device = CPU,
) -> Neighbours:
    """Find the nearest database descriptors of every query, exactly.

    Args:
        query: Descriptors (q, D).
        database: Descriptors (n, D).
        k: Neighbours a query.
        groups: Labels of queries (q,) and database (n,): only vectors of the query's group are searched.
        frames: How descriptors are compared (see `train.losses.distances`).
        device: Where aligned ones are; plain L2 finds its own (`indexer.search.exact.nearest_rows`).

    Returns:
        Distances (q, k) and rows (q, k), nearest first; infinity and −1 where fewer exist.
    """
    if not len(database):
        return np.empty((len(query), 0), np.float32), np.empty((len(query), 0), np.int64)
    if frames is None:
        return nearest_rows(query, database, k, groups=groups)
    # One group that holds everything: the loop over groups then serves both rules.
    everything = np.zeros(len(query), np.int64), np.zeros(len(database), np.int64)
    return in_groups(
        lambda lines, rows: _nearest_aligned(query[lines], database, rows, k, frames, device), groups or everything, k
    )


def _merged(nearest: Neighbours, first: int, depth: int, ranks: Ranks) -> Neighbours:
    """The nearest of all shares: distances and rows (q, depth), equal distances by row.

    `nearest` is this process's, of the share that begins at database row `first`.
    """
    padding = (0, 0), (0, depth - nearest[0].shape[1])
    distances = np.pad(nearest[0], padding, constant_values=np.inf)
    rows = np.pad(np.where(nearest[1] < 0, -1, nearest[1] + first), padding, constant_values=-1)
    # float64 holds distances and rows exactly.
    parts = ranks.results(np.hstack([distances, rows]))
    distances, rows = np.hstack(list(parts[:, :, :depth])), np.hstack(list(parts[:, :, depth:]))
    order = np.lexsort((rows, distances), axis=1)[:, :depth]
    distances, rows = np.take_along_axis(distances, order, 1), np.take_along_axis(rows, order, 1)
    return distances.astype(np.float32), rows.astype(np.int64)


def _nearest_aligned(
    query: Float32Array, database: Float32Array, rows: IntArray, k: int, frames: int, device: torch.device
) -> Neighbours:
    """The k nearest of some database rows by mean distance of aligned frames, some queries at a time."""

    def compute(device: torch.device) -> Neighbours:
        reference, count = torch.from_numpy(database[rows]).to(device), min(k, len(rows))
        parts = []
        for start in range(0, len(query), QUERIES_AT_ONCE):
            queries = torch.from_numpy(query[start : start + QUERIES_AT_ONCE]).to(device)
            # Not topk, which takes any of equal distances: shares would then give others than the whole database does.
            values, columns = distance_matrix(queries, reference, frames).sort(dim=1, stable=True)
            parts.append((values[:, :count].cpu().numpy(), rows[columns[:, :count].cpu().numpy()]))
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    return or_on_cpu(compute, device)
