"""Place batches: P places of K windows each, drawn by geometry."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from seqdata.errors import NotEnoughDataError
from seqdata.geometry import IntArray
from train.sampling.pairs import PairGraph, Radii, near

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

BLOCK = 256  # units looked through at once for one that still fits into a batch


@dataclass(frozen=True)
class PlaceBatch:
    """Windows of one step: rows `(B,)` into queries followed by database, and pair masks bool `(B, B)`."""

    windows: IntArray
    positive: NDArray[np.bool_]
    negative: NDArray[np.bool_]


class PlaceSampler:
    """Draws place batches; the batches of an epoch are a pure function of (seed, epoch).

    A place is a query window and up to `windows` − 1 of its positives: the nearest, then the next nearest that are
    positive to all chosen before, since positives on opposite sides of a query are strangers to each other. Places come
    in runs of `run` neighbouring query windows of one trajectory. No two windows of different runs lie within the
    negative radius, so with `run` = 1 any two windows of a batch are positive or far from each other. With more, near
    windows that are not positive stand together by design: neighbours, which share frames, are the hard negatives,
    and the geometry says which pairs are positive, ignored or negative.
    """

    def __init__(
        self,
        dataset: "Dataset",
        queries: pl.DataFrame,
        database: pl.DataFrame,
        radii: Radii,
        *,
        places: int = 32,
        windows: int = 2,
        run: int = 1,
        cross: bool = False,
        seed: int = 0,
    ) -> None:
        """`places` a batch, `windows` a place, `run` places in a row; `cross` pairs queries with database windows only.

        Raises: ValueError when a number is too small.
        """
        if windows < 2 or run < 1 or places < run:
            raise ValueError(f"need windows >= 2 and places >= run >= 1, got {windows}, {places}, {run}")
        self.dataset = dataset
        self.queries = queries
        self.database = database
        self.radii = radii
        self.windows = windows
        self.run = run
        self.runs_per_batch = places // run
        self.cross = cross
        self.seed = seed
        self._asked = np.zeros(len(queries), bool)
        self._members = np.full((len(queries), windows - 1), -1, np.int64)

    def epoch(self, epoch: int, steps: int) -> Iterator[PlaceBatch]:
        """The `steps` batches of an epoch, in order. Raises: NotEnoughDataError when no place can be formed."""
        rng = np.random.default_rng((self.seed, epoch))
        distinct, units = np.unique(self._draw(rng, steps * self.runs_per_batch), return_inverse=True)
        units = units.reshape(-1, self.run * self.windows)
        graph = PairGraph.of(self.dataset, pl.concat([self.queries, self.database])[distinct], self.radii)
        for batch in _pack(units, graph.matrix, self.runs_per_batch, steps):
            rows = np.unique(units[batch])
            yield self._batch(distinct[rows], *graph.masks(rows))

    def _batch(self, rows: IntArray, positive: NDArray[np.bool_], negative: NDArray[np.bool_]) -> PlaceBatch:
        """The windows with their masks, without pairs of one role where only crossing pairs count."""
        if self.cross:
            query = rows < len(self.queries)
            crossing = query[:, None] != query[None, :]
            positive, negative = positive & crossing, negative & crossing
        return PlaceBatch(rows, positive, negative)

    def _draw(self, rng: np.random.Generator, count: int) -> IntArray:
        """`_windows` of `count` runs; every start is used once before any is again."""
        starts, found = rng.permutation(self._starts()), list[IntArray]()
        drawn = 0
        while drawn < count:
            before = drawn
            for at in range(0, len(starts), 2 * count):
                runs = starts[at : at + 2 * count, None] + np.arange(self.run)
                self._ask(np.unique(runs))
                usable = runs[(self._members[runs, 0] >= 0).all(1)]
                found.append(usable[: count - drawn])
                drawn += len(found[-1])
                if drawn == count:
                    break
            if drawn == before:
                raise NotEnoughDataError(self._nothing())
            starts = rng.permutation(starts)
        return self._windows(np.concatenate(found))

    def _starts(self) -> IntArray:
        """Query rows at which `run` neighbouring windows of one trajectory begin."""
        trajectory = self.queries["trajectory"].to_numpy()
        last = len(trajectory) - self.run + 1
        if last < 1:
            raise NotEnoughDataError(self._nothing())
        whole = trajectory[:last] == trajectory[self.run - 1 :]
        return np.flatnonzero(whole).astype(np.int64)

    def _ask(self, rows: IntArray) -> None:
        """Enter the members of the places of query rows; they are the same in every epoch, so each is found once."""
        rows = rows[~self._asked[rows]]
        if not len(rows):
            return
        self._asked[rows] = True
        tight = replace(self.radii, negative=self.radii.positive)
        pairs = self.radii.positives(near(self.dataset, self.queries[rows], self.database, tight))
        pairs = pairs.sort("query", "distance", "database")
        query, first = np.unique(pairs["query"].to_numpy(), return_index=True)
        database = pairs["database"].to_numpy().astype(np.int64)
        if self.windows == 2 or not len(pairs):
            self._members[rows[query], 0] = database[first]
            return
        distinct, local = np.unique(database, return_inverse=True)
        positive = (PairGraph.of(self.dataset, self.database[distinct], tight).matrix == 2).tocsr()
        for row, candidates in zip(rows[query], np.split(local, first[1:]), strict=True):
            chosen = distinct[_mutual(candidates, positive, self.windows - 1)]
            self._members[row, : len(chosen)] = chosen

    def _windows(self, runs: IntArray) -> IntArray:
        """Queries of runs `(n, run)` and the members of their places, as rows of queries + database.

        `(n, run · windows)`; a place with fewer members repeats its query.
        """
        members, queries = self._members[runs], runs[:, :, None]
        rows = np.where(members < 0, queries, len(self.queries) + members)
        return np.concatenate([queries, rows], axis=2).reshape(len(runs), -1)

    def _nothing(self) -> str:
        return (
            f"no {self.run} neighbouring training queries of {len(self.queries)} all have a positive within "
            f"{self.radii.positive:g} {self.radii.unit}; raise the positive radius, lower the run, or add data"
        )


def _mutual(candidates: IntArray, positive: sp.csr_matrix, most: int) -> list[int]:
    """The first of `candidates`, then each next that is positive to all chosen before, at most `most`; in order."""
    chosen: list[int] = []
    while len(candidates) and len(chosen) < most:
        first = int(candidates[0])
        chosen.append(first)
        others = positive.indices[positive.indptr[first] : positive.indptr[first + 1]]
        candidates = candidates[1:][np.isin(candidates[1:], others)]
    return chosen


def _pack(units: IntArray, near_pairs: sp.csr_matrix, per_batch: int, steps: int) -> Iterator[list[int]]:
    """Fill batches with units (rows of windows) in order; a unit with a near window in the batch waits for a later one.

    Where too few of those waiting fit together, units that were used before fill up, so that on a short route batches
    are as full as its length allows.
    """
    waiting = np.arange(len(units))
    starts, columns = near_pairs.indptr, near_pairs.indices  # indexing the matrix itself costs a hundred times as much
    for step in range(steps):
        chosen: list[int] = []
        blocked = np.zeros(near_pairs.shape[0], bool)
        order = np.concatenate([waiting, (step * per_batch + np.arange(len(units))) % len(units)])
        for unit in _free(order, units, blocked):
            chosen.append(unit)
            blocked[units[unit]] = True
            for row in units[unit]:
                blocked[columns[starts[row] : starts[row + 1]]] = True
            if len(chosen) == per_batch:
                break
        waiting = waiting[~np.isin(waiting, chosen)]
        yield chosen


def _free(order: IntArray, units: IntArray, blocked: NDArray[np.bool_]) -> Iterator[int]:
    """The units of `order` that have no blocked window when their turn comes, looked through block by block."""
    for at in range(0, len(order), BLOCK):
        block = order[at : at + BLOCK]
        for unit in block[~blocked[units[block]].any(1)].tolist():
            if not blocked[units[unit]].any():
                yield unit
