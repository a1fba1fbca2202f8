"""Partial mining: hard triplets from a random share of the database, one round at a time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from seqdata.errors import NotEnoughDataError
from seqdata.geometry import IntArray
from train.losses.distances import ranking
from train.sampling.pairs import Radii, near

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

CHUNK = 1024
Describe = Callable[[IntArray], NDArray[np.float32]]


@dataclass(frozen=True)
class Triplets:
    """Mined triplets: rows of the query table `(n,)`, of the database table `(n,)` and `(n, M)`."""

    query: IntArray
    positive: IntArray
    negatives: IntArray


@dataclass(frozen=True)
class Drawn:
    """What one round draws: query rows, database rows `drawn`, and the capped positives of each query.

    `positives` is a list of database rows a query; `query` and `drawn` are distinct rows.
    """

    query: IntArray
    drawn: IntArray
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
) -> Drawn:
    """Draw `size` queries that have a positive and `size` database windows; a pure function of `key`.

    At most `cap` positives a query are kept, at random, so that a stop at a light does not fill the round.
    Source: P1 section IV-A, partial mining; the cap is ours.
    Raises: NotEnoughDataError when no query has a positive.
    """
    rng = np.random.default_rng(key)
    order = rng.permutation(len(queries))
    chosen: list[int] = []
    positives: list[IntArray] = []
    for start in range(0, len(order), 2 * size):
        rows = order[start : start + 2 * size]
        for row, matches in zip(rows, _positives(dataset, queries[rows], database, radii), strict=True):
            if len(matches) and len(chosen) < size:
                chosen.append(int(row))
                positives.append(np.sort(rng.choice(matches, min(cap, len(matches)), replace=False)))
        if len(chosen) == size:
            break
    if not chosen:
        raise NotEnoughDataError(
            f"none of {len(queries)} training queries has a positive within {radii.positive:g} {radii.unit}; "
            "raise the protocol's positive radius or add data"
        )
    drawn = np.sort(rng.choice(len(database), min(size, len(database)), replace=False)).astype(np.int64)
    return Drawn(np.array(chosen, np.int64), drawn, positives)


def _positives(dataset: "Dataset", queries: pl.DataFrame, database: pl.DataFrame, radii: Radii) -> list[IntArray]:
    """Database rows of the positives of each query."""
    tight = replace(radii, negative=radii.positive)
    pairs = radii.positives(near(dataset, queries, database, tight)).sort("query", "database")
    query = pairs["query"].to_numpy()
    bounds = np.searchsorted(query, np.arange(1, len(queries)))
    return np.split(pairs["database"].to_numpy().astype(np.int64), bounds)


def near_mask(dataset: "Dataset", queries: pl.DataFrame, database: pl.DataFrame, radii: Radii) -> NDArray[np.bool_]:
    """Bool `(n, m)`: which windows lie within the negative radius of which query; only for one round's windows."""
    pairs = near(dataset, queries, database, radii)
    mask = np.zeros((len(queries), len(database)), bool)
    mask[pairs["query"].to_numpy(), pairs["database"].to_numpy()] = True
    return mask


def mine(
    dataset: "Dataset",
    queries: pl.DataFrame,
    database: pl.DataFrame,
    radii: Radii,
    describe: Describe,
    *,
    size: int = 1000,
    negatives: int = 5,
    cap: int = 10,
    key: tuple[int, ...] = (0,),
    frames: int | None = None,
) -> Triplets:
    """One round of partial mining: draw, describe in eval mode, nearest positive, nearest non-near negatives.

    `describe` maps rows `(n,)` of queries followed by database to descriptors `(n, D)` and encodes each distinct frame
    once. Queries with fewer than `negatives` far windows are left out. Negatives come from the drawn windows only;
    positives need not be drawn.
    Source: P1 section IV-A. Raises: NotEnoughDataError when no triplet can be formed.
    """
    drawn = draw(dataset, queries, database, radii, size=size, cap=cap, key=key)
    shown = np.unique(np.concatenate([drawn.drawn, *drawn.positives]))
    vectors = describe(np.concatenate([drawn.query, len(queries) + shown]))
    query, reference = vectors[: len(drawn.query)], vectors[len(drawn.query) :]
    positive, far = _compared(drawn, shown, query, reference, frames)
    far[near_mask(dataset, queries[drawn.query], database[drawn.drawn], radii)] = np.inf
    usable = np.isfinite(far).sum(1) >= negatives
    if not usable.any():
        raise NotEnoughDataError(
            f"no query has {negatives} database windows beyond {radii.negative:g} {radii.unit} among "
            f"{len(drawn.drawn)} drawn; lower the negative radius or the number of negatives"
        )
    hardest = np.argsort(far[usable], axis=1, kind="stable")[:, :negatives]
    return Triplets(drawn.query[usable], positive[usable], drawn.drawn[hardest])


def _compared(
    drawn: Drawn, shown: IntArray, query: NDArray[np.float32], reference: NDArray[np.float32], frames: int | None
) -> tuple[IntArray, NDArray[np.float32]]:
    """The nearest positive `(n,)` of each query and what ranks the drawn windows `(n, m)`, some queries at a time.

    `reference` holds the descriptors of the database windows `shown`.
    """
    among = np.searchsorted(shown, drawn.drawn)
    positive, far = np.empty(len(query), np.int64), np.empty((len(query), len(among)), np.float32)
    for start in range(0, len(query), CHUNK):
        part = slice(start, start + CHUNK)
        distances = ranking(torch.from_numpy(query[part]), torch.from_numpy(reference), frames).numpy()
        far[part] = distances[:, among]
        nearest = (
            at[row[np.searchsorted(shown, at)].argmin()]
            for row, at in zip(distances, drawn.positives[part], strict=True)
        )
        positive[part] = np.fromiter(nearest, np.int64)
    return positive, far
