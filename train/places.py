"""Place batches: P places of K windows each, drawn by geometry."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from seqdata.errors import NotEnoughDataError
from train.relations import PairGraph, Radii, near

if TYPE_CHECKING:
    from seqdata.dataset import Dataset

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class PlaceBatch:
    """Windows of one step: rows `(B,)` into queries followed by database, and pair masks bool `(B, B)`."""

    windows: Integers
    positive: NDArray[np.bool_]
    negative: NDArray[np.bool_]


class PlaceSampler:
    """Draws place batches; the batches of an epoch are a pure function of (seed, epoch).

    A place is a query window and its `windows` − 1 nearest positives. Places come in runs of `run` neighbouring query
    windows of one trajectory: within a run the geometry says which pairs are positive, ignored or negative, and
    neighbours, which share frames, are the hard negatives. No two windows of different runs lie within the negative
    radius, so with `run` = 1 no two places do.
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

    def epoch(self, epoch: int, steps: int) -> Iterator[PlaceBatch]:
        """The `steps` batches of an epoch, in order. Raises: NotEnoughDataError when no place can be formed."""
        rng = np.random.default_rng((self.seed, epoch))
        runs = self._draw(rng, steps * self.runs_per_batch)
        distinct = np.unique(np.concatenate(runs))
        graph = PairGraph.of(self.dataset, pl.concat([self.queries, self.database])[distinct], self.radii)
        local = [np.searchsorted(distinct, run) for run in runs]
        for batch in _pack(local, graph.matrix, self.runs_per_batch, steps):
            rows = np.unique(np.concatenate([local[i] for i in batch]))
            yield self._batch(distinct[rows], *graph.masks(rows))

    def _batch(self, rows: Integers, positive: NDArray[np.bool_], negative: NDArray[np.bool_]) -> PlaceBatch:
        """The windows with their masks, without pairs of one role where only crossing pairs count."""
        if self.cross:
            query = rows < len(self.queries)
            crossing = query[:, None] != query[None, :]
            positive, negative = positive & crossing, negative & crossing
        return PlaceBatch(rows, positive, negative)

    def _draw(self, rng: np.random.Generator, count: int) -> list[Integers]:
        """Windows of `count` runs (rows of queries + database); every start is used once before any is again."""
        starts, found = rng.permutation(self._starts()), list[Integers]()
        while len(found) < count:
            before = len(found)
            for at in range(0, len(starts), 2 * count):
                runs = starts[at : at + 2 * count, None] + np.arange(self.run)
                matches = self._matches(np.unique(runs))
                usable = [run for run in runs if all(int(row) in matches for row in run)]
                found += [self._members(run, matches) for run in usable[: count - len(found)]]
                if len(found) == count:
                    break
            if len(found) == before:
                raise NotEnoughDataError(self._nothing())
            starts = rng.permutation(starts)
        return found

    def _starts(self) -> Integers:
        """Query rows at which `run` neighbouring windows of one trajectory begin."""
        trajectory = self.queries["trajectory"].to_numpy()
        last = len(trajectory) - self.run + 1
        if last < 1:
            raise NotEnoughDataError(self._nothing())
        whole = trajectory[:last] == trajectory[self.run - 1 :]
        return np.flatnonzero(whole).astype(np.int64)

    def _matches(self, rows: Integers) -> dict[int, Integers]:
        """Database rows of the positives of the query rows, nearest first; queries without one are absent."""
        pairs = self.radii.positives(near(self.dataset, self.queries[rows], self.database, self.radii))
        pairs = pairs.sort("query", "distance", "database")
        query, first = np.unique(pairs["query"].to_numpy(), return_index=True)
        groups = np.split(pairs["database"].to_numpy().astype(np.int64), first[1:])
        return dict(zip(rows[query].tolist(), groups, strict=True)) if len(query) else {}

    def _members(self, run: Integers, matches: dict[int, Integers]) -> Integers:
        """The run's queries, then their nearest positives, as rows of queries + database."""
        found = [len(self.queries) + matches[int(row)][: self.windows - 1] for row in run]
        return np.unique(np.concatenate([run, *found]))

    def _nothing(self) -> str:
        return (
            f"no {self.run} neighbouring training queries of {len(self.queries)} all have a positive within "
            f"{self.radii.positive:g} {self.radii.unit}; raise the positive radius, lower the run, or add data"
        )


def _pack(units: list[Integers], near_pairs: sp.csr_matrix, per_batch: int, steps: int) -> Iterator[list[int]]:
    """Fill batches with units in order; a unit with a near window in the batch waits for a later one.

    Where too few of those waiting fit together, units that were used before fill up, so that on a short route batches
    are as full as its length allows.
    """
    waiting = list(range(len(units)))
    for step in range(steps):
        chosen: list[int] = []
        blocked = np.zeros(near_pairs.shape[0], bool)
        again = range(step * per_batch, step * per_batch + len(units))
        for unit in chain(waiting, (number % len(units) for number in again)):
            if blocked[units[unit]].any():
                continue
            chosen.append(unit)
            blocked[units[unit]] = True
            blocked[near_pairs[units[unit]].indices] = True
            if len(chosen) == per_batch:
                break
        taken = set(chosen)
        waiting = [unit for unit in waiting if unit not in taken]
        yield chosen
