"""Partial mining: hard triplets from a random share of the database, one round at a time.

Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022, sec. IV-A: 1,000
queries and 1,000 database windows a round, the nearest positive and the five hardest negatives of each query.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch
from torch import Tensor

from seqdata.errors import NotEnoughDataError
from seqdata.geometry import BoolArray, Float32Array, IntArray
from train.devices.ranks import ALONE, Ranks
from train.losses.distances import distance_table
from train.sampling.pairs import FindPositives, Radii, pairs_within, positive_finder

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

POSITIVES_AT_ONCE = 1024
"""Positives whose descriptors are in memory together: 96 MiB of 24,576 numbers, however many positives a round has."""

DescribeRows = Callable[[IntArray], Float32Array | Tensor]


@dataclass(frozen=True)
class Triplets:
    """Mined triplets.

    Attributes:
        query: Rows (n,) of the query table.
        positive: Rows (n,) of the database table.
        negatives: Rows (n, M) of the database table, the hardest first.
    """

    query: IntArray
    positive: IntArray
    negatives: IntArray


@dataclass(frozen=True)
class RoundSizes:
    """How much one round draws and mines.

    Attributes:
        queries: Queries to draw.
        database: Database windows to draw; None for as many as queries.
        negatives: Negatives a query.
        positives: Greatest number of positives a query, at random, so that a stop at a light does not fill the round.
            Ours; None for all, as in the papers' programs.
    """

    queries: int = 1000
    database: int | None = None
    negatives: int = 5
    positives: int | None = 10


@dataclass(frozen=True)
class MiningSample:
    """What one round looks at.

    Attributes:
        query: Distinct query rows (n,).
        candidates: Distinct database rows (m,), rising, among which negatives are mined.
        positives: Database rows of the positives of each query, rising, all of them or as many as the cap.
    """

    query: IntArray
    candidates: IntArray
    positives: list[IntArray]


def draw(
    dataset: "Dataset",
    queries: pl.DataFrame,
    database: pl.DataFrame,
    radii: Radii,
    sizes: RoundSizes = RoundSizes(),
    *,
    key: tuple[int, ...] = (0,),
    find: FindPositives | None = None,
) -> MiningSample:
    """Draw queries that have a positive, and database windows; a pure function of `key`.

    Args:
        dataset: The dataset that both tables were cut from.
        queries: Window table of the queries.
        database: Window table of the database.
        radii: Which windows are positives.
        sizes: How much to draw.
        key: Seed, epoch and round.
        find: Finds positives in the database; None makes one (see `train.sampling.pairs.positive_finder`).

    Raises:
        NotEnoughDataError: If no query has a positive.
    """
    find = find or positive_finder(dataset, database, radii)
    rng = np.random.default_rng(key)
    order = rng.permutation(len(queries))
    query: list[int] = []
    positives: list[IntArray] = []
    # Some queries have no positive, so twice as many are looked at at once; rarely does a second look follow.
    for start in range(0, len(order), 2 * sizes.queries):
        rows = order[start : start + 2 * sizes.queries]
        for row, matches in zip(rows, _positives(find(queries[rows]), len(rows)), strict=True):
            if len(matches) and len(query) < sizes.queries:
                query.append(int(row))
                positives.append(_at_most(matches, sizes.positives, rng))
        if len(query) == sizes.queries:
            break
    if not query:
        raise NotEnoughDataError(
            f"none of {len(queries)} training queries has a positive within {radii.positive:g} {radii.unit}; "
            "raise the protocol's positive radius or add data"
        )
    count = min(sizes.database or sizes.queries, len(database))
    candidates = np.sort(rng.choice(len(database), count, replace=False)).astype(np.int64)
    return MiningSample(np.array(query, np.int64), candidates, positives)


def _at_most(rows: IntArray, count: int | None, rng: np.random.Generator) -> IntArray:
    """Draw `count` of the rows, or take all of fewer, rising."""
    return np.sort(rows if count is None else rng.choice(rows, min(count, len(rows)), replace=False))


def _positives(pairs: pl.DataFrame, queries: int) -> list[IntArray]:
    """Database rows of the positives of each query."""
    pairs = pairs.sort("query", "database")
    bounds = np.searchsorted(pairs["query"].to_numpy(), np.arange(1, queries))
    return np.split(pairs["database"].to_numpy().astype(np.int64), bounds)


def near_mask(dataset: "Dataset", queries: pl.DataFrame, database: pl.DataFrame, radii: Radii) -> BoolArray:
    """Mark the database windows within the negative radius of each query: (n, m), so for one round's windows only."""
    pairs = pairs_within(dataset, queries, database, radii)
    mask = np.zeros((len(queries), len(database)), np.bool_)
    mask[pairs["query"].to_numpy(), pairs["database"].to_numpy()] = True
    return mask


def mine(
    dataset: "Dataset",
    queries: pl.DataFrame,
    database: pl.DataFrame,
    radii: Radii,
    describe: DescribeRows,
    sizes: RoundSizes = RoundSizes(),
    *,
    key: tuple[int, ...] = (0,),
    frames: int | None = None,
    find: FindPositives | None = None,
    ranks: Ranks = ALONE,
) -> Triplets:
    """Mine one round of triplets: the nearest positive and the nearest windows that are not near on the ground.

    Queries with fewer than `negatives` far windows are left out. Negatives come from the drawn windows only; positives
    need not be drawn.

    Several processes share the round. Each describes a share of the queries, which all get, and a share of the
    database, of which it finds the nearest to every query; only these are exchanged.

    Args:
        dataset: The dataset that both tables were cut from.
        queries: Window table of the queries.
        database: Window table of the database.
        radii: Which windows are positives, and which may be negatives.
        describe: Maps distinct rows (n,) of queries followed by database to descriptors (n, D); called once for
            queries and candidates, then for the other positives in blocks, each row once. Several processes call it
            equally often, perhaps without rows. Distances are computed on the device where it leaves descriptors.
        sizes: How much to draw and mine.
        key: Seed, epoch and round.
        frames: How descriptors are compared (see `train.losses.distances`).
        find: As for `draw`: rounds that share one search the same trees.
        ranks: The processes that mine together; each returns all triplets.

    Raises:
        NotEnoughDataError: If no triplet can be formed.
    """
    sample = draw(dataset, queries, database, radii, sizes, key=key, find=find)
    # In the order of rows neighbours share frames, so that a process encodes most frames of its stretch once.
    order = np.argsort(sample.query)
    own = sample.query[order[ranks.share(len(order))]]
    candidates = sample.candidates[ranks.share(len(sample.candidates))]
    descriptors = torch.as_tensor(describe(np.concatenate([own, len(queries) + candidates])))
    query = ranks.gather_rows(descriptors[: len(own)], len(order))
    query = query[torch.from_numpy(np.argsort(order)).to(query.device)]
    drawn = _Block(candidates, descriptors[len(own) :])
    others = np.setdiff1d(np.concatenate(sample.positives), sample.candidates)

    def blocks() -> Iterator[_Block]:
        yield drawn
        for at in range(0, len(others), POSITIVES_AT_ONCE * ranks.size):
            block = others[at : at + POSITIVES_AT_ONCE * ranks.size]
            rows = block[ranks.share(len(block))]
            yield _Block(rows, torch.as_tensor(describe(len(queries) + rows)))

    nearest = _nearest_positives(sample, query, blocks(), frames)
    distances = drawn.distances_to(query, frames)
    if len(candidates):
        # At infinity a near window sorts behind all far ones, and what stays finite counts the usable negatives.
        distances[near_mask(dataset, queries[sample.query], database[candidates], radii)] = np.inf
    return _merged(sample, nearest, _hardest(candidates, distances, sizes.negatives), ranks, radii)


@dataclass(frozen=True)
class _Block:
    """Database rows (m,), rising, with their descriptors (m, D)."""

    rows: IntArray
    descriptors: Tensor

    def distances_to(self, query: Tensor, frames: int | None) -> Float32Array:
        """Distances (n, m) of queries (n, D)."""
        # Another process may have all rows of a block: without rows there is no D.
        if not len(self.rows):
            return np.empty((len(query), 0), np.float32)
        return distance_table(query, self.descriptors, frames)


Nearest = tuple[Float32Array, IntArray]
"""Distances (n, k) and database rows (n, k) of each query, nearest first; infinity and -1 where there are fewer."""


def _hardest(candidates: IntArray, distances: Float32Array, count: int) -> Nearest:
    """The `count` candidates (m,) of least distance (n, m) of each query."""
    # Stable, so that equally hard negatives are taken in the order of rows on every machine.
    columns = np.argsort(distances, axis=1, kind="stable")[:, :count]
    padding = (0, 0), (0, count - columns.shape[1])
    return (
        np.pad(np.take_along_axis(distances, columns, 1), padding, constant_values=np.inf),
        np.pad(candidates[columns], padding, constant_values=-1),
    )


def _merged(sample: MiningSample, positive: Nearest, negatives: Nearest, ranks: Ranks, radii: Radii) -> Triplets:
    """The triplets of what all processes found among their rows. Raises: NotEnoughDataError."""
    count = negatives[1].shape[1]
    # float64 holds distances and rows exactly.
    parts = ranks.results(np.hstack([*positive, *negatives]))
    nearest = np.full(len(sample.query), -1, np.int64)
    least = np.full(len(sample.query), np.inf, np.float32)
    for part in parts:
        of_query = np.flatnonzero(part[:, 1] >= 0)
        _keep_least(nearest, least, of_query, part[of_query, 1].astype(np.int64), part[of_query, 0])
    # Shares lie in the order of rows, so that a stable order takes equal distances by row, as one process does.
    rows, distances = np.hstack(list(parts[:, :, 2 + count :])), np.hstack(list(parts[:, :, 2 : 2 + count]))
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    is_usable = np.isfinite(np.take_along_axis(distances, order, 1)).all(1)
    if not is_usable.any():
        raise NotEnoughDataError(
            f"no query has {count} database windows beyond {radii.negative:g} {radii.unit} among "
            f"{len(sample.candidates)} drawn; lower the negative radius or the number of negatives"
        )
    hardest = np.take_along_axis(rows, order, 1).astype(np.int64)
    return Triplets(sample.query[is_usable], nearest[is_usable], hardest[is_usable])


def _nearest_positives(sample: MiningSample, query: Tensor, blocks: Iterable[_Block], frames: int | None) -> Nearest:
    """The nearest positive (n, 1) of each query, by descriptors `query` (n, D); equal ones: the first row.

    Of a block nothing but the least distance of each query stays.
    """
    pair_query = np.repeat(np.arange(len(query)), [len(rows) for rows in sample.positives])
    pair_row = np.concatenate(sample.positives)
    nearest = np.full(len(query), -1, np.int64)
    least = np.full(len(query), np.inf, np.float32)
    for block in blocks:
        in_block = np.flatnonzero(np.isin(pair_row, block.rows))
        if not len(in_block):
            continue
        lines, line = np.unique(pair_query[in_block], return_inverse=True)
        of_lines = query[torch.from_numpy(lines).to(query.device)]
        columns = np.searchsorted(block.rows, pair_row[in_block])
        distances = block.distances_to(of_lines, frames)[line, columns]
        _keep_least(nearest, least, pair_query[in_block], pair_row[in_block], distances)
    return least[:, None], nearest[:, None]


def _keep_least(
    nearest: IntArray, least: Float32Array, query: IntArray, row: IntArray, distances: Float32Array
) -> None:
    """Enter pairs of `query` and `row` (m,) into the nearest row and least distance of each query, in place."""
    # Sorted by query, distance and row, so that the first pair of each query is its nearest.
    order = np.lexsort((row, distances, query))
    lines, first = np.unique(query[order], return_index=True)
    row, distances = row[order][first], distances[order][first]
    is_nearer = (distances < least[lines]) | ((distances == least[lines]) & (row < nearest[lines]))
    nearest[lines[is_nearer]], least[lines[is_nearer]] = row[is_nearer], distances[is_nearer]
