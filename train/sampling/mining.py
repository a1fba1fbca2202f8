"""Partial mining: hard triplets from a random share of the database, one round at a time.

Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022, sec. IV-A: 1,000
queries and 1,000 database windows a round, the nearest positive and the five hardest negatives of each query.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch

from seqdata.errors import NotEnoughDataError
from seqdata.geometry import BoolArray, Float32Array, IntArray
from train.losses.distances import distance_table
from train.sampling.pairs import FindPositives, Radii, pairs_within, positive_finder

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

CPU = torch.device("cpu")
"""Queries whose distances are in memory together: 8 MiB for 1,000 database windows in float64."""
POSITIVES_AT_ONCE = 1024
"""Positives whose descriptors are in memory together: 96 MiB of 24,576 numbers, however many positives a round has."""

DescribeRows = Callable[[IntArray], Float32Array]


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
    device: torch.device = CPU,
) -> Triplets:
    """Mine one round of triplets: the nearest positive and the nearest windows that are not near on the ground.

    Queries with fewer than `negatives` far windows are left out. Negatives come from the drawn windows only; positives
    need not be drawn.

    Args:
        dataset: The dataset that both tables were cut from.
        queries: Window table of the queries.
        database: Window table of the database.
        radii: Which windows are positives, and which may be negatives.
        describe: Maps distinct rows (n,) of queries followed by database to descriptors (n, D); called once for
            queries and candidates, then for the other positives in blocks, each row once.
        sizes: How much to draw and mine.
        key: Seed, epoch and round.
        frames: How descriptors are compared (see `train.losses.distances`).
        find: As for `draw`: rounds that share one search the same trees.
        device: Where distances are computed.

    Raises:
        NotEnoughDataError: If no triplet can be formed.
    """
    sample = draw(dataset, queries, database, radii, sizes, key=key, find=find)
    descriptors = describe(np.concatenate([sample.query, len(queries) + sample.candidates]))
    query, reference = descriptors[: len(sample.query)], descriptors[len(sample.query) :]

    def distances_to(queries: Float32Array, references: Float32Array) -> Float32Array:
        return distance_table(queries, references, frames, device)

    positive = _nearest_positives(sample, query, reference, lambda rows: describe(len(queries) + rows), distances_to)
    distances = distances_to(query, reference)
    # At infinity a near window sorts behind all far ones, and what stays finite counts the usable negatives.
    distances[near_mask(dataset, queries[sample.query], database[sample.candidates], radii)] = np.inf
    is_usable = np.isfinite(distances).sum(1) >= sizes.negatives
    if not is_usable.any():
        raise NotEnoughDataError(
            f"no query has {sizes.negatives} database windows beyond {radii.negative:g} {radii.unit} among "
            f"{len(sample.candidates)} drawn; lower the negative radius or the number of negatives"
        )
    # Stable, so that equally hard negatives are taken in the order of rows on every machine.
    hardest = np.argsort(distances[is_usable], axis=1, kind="stable")[:, : sizes.negatives]
    return Triplets(sample.query[is_usable], positive[is_usable], sample.candidates[hardest])


def _nearest_positives(
    sample: MiningSample,
    query: Float32Array,
    reference: Float32Array,
    describe: DescribeRows,
    distances_to: Callable[[Float32Array, Float32Array], Float32Array],
) -> IntArray:
    """The nearest positive (n,) of each query, by descriptors `query` (n, D); equal ones: the first row.

    `reference` holds the descriptors of the candidates. Positives that are not among them are described here, a block
    of neighbouring rows at a time, of which nothing but the least distance of each query stays.
    """
    pair_query = np.repeat(np.arange(len(query)), [len(rows) for rows in sample.positives])
    pair_row = np.concatenate(sample.positives)
    others = np.setdiff1d(pair_row, sample.candidates)
    nearest = np.full(len(query), -1, np.int64)
    least = np.full(len(query), np.inf, np.float32)
    blocks = [
        sample.candidates,
        *(others[at : at + POSITIVES_AT_ONCE] for at in range(0, len(others), POSITIVES_AT_ONCE)),
    ]
    for number, rows in enumerate(blocks):
        in_block = np.flatnonzero(np.isin(pair_row, rows))
        if not len(in_block):
            continue
        descriptors = reference if number == 0 else describe(rows)
        lines, line = np.unique(pair_query[in_block], return_inverse=True)
        distances = distances_to(query[lines], descriptors)[line, np.searchsorted(rows, pair_row[in_block])]
        _keep_least(nearest, least, pair_query[in_block], pair_row[in_block], distances)
    return nearest


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
