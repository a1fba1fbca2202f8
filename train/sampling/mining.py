"""Partial mining: hard triplets from a random share of the database, one round at a time.

Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022, sec. IV-A: 1,000
queries and 1,000 database windows a round, the nearest positive and the five hardest negatives of each query.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch

from seqdata.errors import NotEnoughDataError
from seqdata.geometry import BoolArray, Float32Array, IntArray
from train.losses.distances import distance_matrix
from train.sampling.pairs import Radii, pairs_within

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

QUERIES_AT_ONCE = 1024
"""Queries whose distances are in memory together: 8 MiB for 1,000 database windows in float64."""

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
class MiningSample:
    """What one round looks at.

    Attributes:
        query: Distinct query rows (n,).
        candidates: Distinct database rows (m,), rising, among which negatives are mined.
        positives: Database rows of the capped positives of each query.
    """

    query: IntArray
    candidates: IntArray
    positives: list[IntArray]


def draw(
    dataset: "Dataset",
    queries: pl.DataFrame,
    database: pl.DataFrame,
    radii: Radii,
    *,
    size: int = 1000,
    cap: int = 10,
    key: tuple[int, ...] = (0,),
) -> MiningSample:
    """Draw queries that have a positive, and database windows; a pure function of `key`.

    Args:
        dataset: The dataset that both tables were cut from.
        queries: Window table of the queries.
        database: Window table of the database.
        radii: Which windows are positives.
        size: Queries, and database windows, to draw.
        cap: Greatest number of positives a query, at random, so that a stop at a light does not fill the round. Ours.
        key: Seed, epoch and round.

    Raises:
        NotEnoughDataError: If no query has a positive.
    """
    rng = np.random.default_rng(key)
    order = rng.permutation(len(queries))
    query: list[int] = []
    positives: list[IntArray] = []
    # Some queries have no positive, so twice as many are looked at at once; rarely does a second look follow.
    for start in range(0, len(order), 2 * size):
        rows = order[start : start + 2 * size]
        for row, matches in zip(rows, _positives(dataset, queries[rows], database, radii), strict=True):
            if len(matches) and len(query) < size:
                query.append(int(row))
                positives.append(np.sort(rng.choice(matches, min(cap, len(matches)), replace=False)))
        if len(query) == size:
            break
    if not query:
        raise NotEnoughDataError(
            f"none of {len(queries)} training queries has a positive within {radii.positive:g} {radii.unit}; "
            "raise the protocol's positive radius or add data"
        )
    candidates = np.sort(rng.choice(len(database), min(size, len(database)), replace=False)).astype(np.int64)
    return MiningSample(np.array(query, np.int64), candidates, positives)


def _positives(dataset: "Dataset", queries: pl.DataFrame, database: pl.DataFrame, radii: Radii) -> list[IntArray]:
    """Database rows of the positives of each query."""
    tight = replace(radii, negative=radii.positive)
    pairs = radii.positives(pairs_within(dataset, queries, database, tight)).sort("query", "database")
    bounds = np.searchsorted(pairs["query"].to_numpy(), np.arange(1, len(queries)))
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
    *,
    size: int = 1000,
    negatives: int = 5,
    cap: int = 10,
    key: tuple[int, ...] = (0,),
    frames: int | None = None,
) -> Triplets:
    """Mine one round of triplets: the nearest positive and the nearest windows that are not near on the ground.

    Queries with fewer than `negatives` far windows are left out. Negatives come from the drawn windows only; positives
    need not be drawn.

    Args:
        dataset: The dataset that both tables were cut from.
        queries: Window table of the queries.
        database: Window table of the database.
        radii: Which windows are positives, and which may be negatives.
        describe: Maps distinct rows (n,) of queries followed by database to descriptors (n, D).
        size: Queries, and database windows, to draw.
        negatives: Negatives a query.
        cap: Greatest number of positives a query.
        key: Seed, epoch and round.
        frames: How descriptors are compared (see `train.losses.distances`).

    Raises:
        NotEnoughDataError: If no triplet can be formed.
    """
    sample = draw(dataset, queries, database, radii, size=size, cap=cap, key=key)
    described = np.unique(np.concatenate([sample.candidates, *sample.positives]))
    descriptors = describe(np.concatenate([sample.query, len(queries) + described]))
    query, reference = descriptors[: len(sample.query)], descriptors[len(sample.query) :]
    positive, distances = _compare(sample, described, query, reference, frames)
    distances[near_mask(dataset, queries[sample.query], database[sample.candidates], radii)] = np.inf
    is_usable = np.isfinite(distances).sum(1) >= negatives
    if not is_usable.any():
        raise NotEnoughDataError(
            f"no query has {negatives} database windows beyond {radii.negative:g} {radii.unit} among "
            f"{len(sample.candidates)} drawn; lower the negative radius or the number of negatives"
        )
    hardest = np.argsort(distances[is_usable], axis=1, kind="stable")[:, :negatives]
    return Triplets(sample.query[is_usable], positive[is_usable], sample.candidates[hardest])


def _compare(
    sample: MiningSample, described: IntArray, query: Float32Array, reference: Float32Array, frames: int | None
) -> tuple[IntArray, Float32Array]:
    """The nearest positive (n,) of each query and its distances to the candidates (n, m), some queries at a time.

    `reference` holds the descriptors of the database rows `described`, which rise.
    """
    columns = np.searchsorted(described, sample.candidates)
    positive = np.empty(len(query), np.int64)
    candidate_distances = np.empty((len(query), len(columns)), np.float32)
    for start in range(0, len(query), QUERIES_AT_ONCE):
        part = slice(start, start + QUERIES_AT_ONCE)
        distances = distance_matrix(torch.from_numpy(query[part]), torch.from_numpy(reference), frames).numpy()
        candidate_distances[part] = distances[:, columns]
        nearest = (
            rows[line[np.searchsorted(described, rows)].argmin()]
            for line, rows in zip(distances, sample.positives[part], strict=True)
        )
        positive[part] = np.fromiter(nearest, np.int64)
    return positive, candidate_distances
