"""Place batches: P places of K windows each, drawn by geometry (docs/methods.md#multi-similarity)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import scipy.sparse as sp

from seqdata.errors import NotEnoughDataError
from seqdata.geometry import BoolArray, IntArray
from train.sampling.pairs import FindPositives, PairGraph, Radii, pairs_within, positive_finder

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

BLOCK = 256
"""Units looked through at once for one that still fits into a batch. A guess: large enough that NumPy's cost a call is
small, small enough that most of a block is not looked at in vain."""


@dataclass(frozen=True)
class PlaceBatch:
    """Windows of one step.

    Attributes:
        windows: Rows (B,) into queries followed by database.
        positive: Pairs of windows that show one place, bool (B, B).
        negative: Pairs of windows that are far from each other, bool (B, B).
    """

    windows: IntArray
    positive: BoolArray
    negative: BoolArray


class PlaceSampler:
    """Draws place batches; the batches of an epoch are a pure function of (seed, epoch).

    A place is a query window and up to `windows` − 1 of its positives: the nearest, then the next nearest that are
    positive to all selected before, since positives on opposite sides of a query are strangers to each other. Places
    come in runs of `run` neighbouring query windows of one trajectory. No two windows of different runs lie within the
    negative radius, so with `run` = 1 any two windows of a batch are positive or far from each other. With more, near
    windows that are not positive stand together by design: neighbours, which share frames, are the hard negatives,
    and the geometry says which pairs are positive, ignored or negative.

    Args:
        dataset: The dataset that both tables were cut from.
        queries: Window table of the queries.
        database: Window table of the database.
        radii: Which windows are positive, ignored or negative.
        places: Places a batch.
        windows: Windows a place, at least 2.
        run: Places in a row, at most `places`.
        cross: Whether only pairs of a query and a database window count.
        seed: Seed of the draws.

    Raises:
        ValueError: If a number is too small.
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
        self._has_members = np.zeros(len(queries), np.bool_)
        self._members = np.full((len(queries), windows - 1), -1, np.int64)

    def epoch(self, epoch: int, steps: int) -> Iterator[PlaceBatch]:
        """Draw the `steps` batches of an epoch, in order.

        Raises:
            NotEnoughDataError: If no place can be formed, or no batch can have a negative.
        """
        rng = np.random.default_rng((self.seed, epoch))
        distinct, units = np.unique(self._draw(rng, steps * self.runs_per_batch), return_inverse=True)
        units = units.reshape(-1, self.run * self.windows)
        graph = PairGraph.from_windows(self.dataset, pl.concat([self.queries, self.database])[distinct], self.radii)
        packed = _pack(units, graph.matrix, self.runs_per_batch, steps)
        batches = (self._batch(distinct[rows], *graph.masks(rows)) for rows in (np.unique(units[b]) for b in packed))
        yield from self._with_negatives(batches)

    def _with_negatives(self, batches: Iterator[PlaceBatch]) -> Iterator[PlaceBatch]:
        """The batches, unless none can have a negative: such an epoch has no loss and would change no weight."""
        waiting: list[PlaceBatch] = []
        for batch in batches:
            waiting.append(batch)
            # Without a negative there is no loss; batches wait until one shows that the epoch has some.
            if batch.negative.any():
                yield from waiting
                yield from batches
                return
        if waiting and not self._can_have_negatives():
            raise NotEnoughDataError(
                f"no place batch has a negative: all windows of a batch lie within {self.radii.negative:g} "
                f"{self.radii.unit} of each other; lower the negative radius, raise the number of places, or add data"
            )
        yield from waiting

    def _can_have_negatives(self) -> bool:
        """Whether another draw could bring a negative: places meet in a batch, and some windows are far apart."""
        near_pairs = pairs_within(self.dataset, self.queries, self.database, self.radii)
        return self.runs_per_batch > 1 and len(near_pairs) < len(self.queries) * len(self.database)

    def _batch(self, rows: IntArray, positive: BoolArray, negative: BoolArray) -> PlaceBatch:
        """The windows with their masks, without pairs of one role where only crossing pairs count."""
        if self.cross:
            is_query = rows < len(self.queries)
            crossing = is_query[:, None] != is_query[None, :]
            positive, negative = positive & crossing, negative & crossing
        return PlaceBatch(rows, positive, negative)

    def _draw(self, rng: np.random.Generator, count: int) -> IntArray:
        """`_windows` of `count` runs; every start is used once before any is again."""
        starts, parts = rng.permutation(self._starts()), list[IntArray]()
        drawn_runs = 0
        while drawn_runs < count:
            before = drawn_runs
            # Twice as many as needed at a time: about half the queries of a usual split have a positive.
            for first in range(0, len(starts), 2 * count):
                runs = starts[first : first + 2 * count, None] + np.arange(self.run)
                self._find_members(np.unique(runs))
                usable = runs[(self._members[runs, 0] >= 0).all(1)]
                parts.append(usable[: count - drawn_runs])
                drawn_runs += len(parts[-1])
                if drawn_runs == count:
                    break
            if drawn_runs == before:
                raise NotEnoughDataError(self._no_place())
            starts = rng.permutation(starts)
        return self._windows(np.concatenate(parts))

    def _starts(self) -> IntArray:
        """Query rows at which `run` neighbouring windows of one trajectory begin."""
        trajectory = self.queries["trajectory"].to_numpy()
        last = len(trajectory) - self.run + 1
        if last < 1:
            raise NotEnoughDataError(self._no_place())
        whole = trajectory[:last] == trajectory[self.run - 1 :]
        return np.flatnonzero(whole).astype(np.int64)

    def _find_members(self, rows: IntArray) -> None:
        """Enter the members of the places of query rows; they are the same in every epoch, so each is searched once."""
        rows = rows[~self._has_members[rows]]
        if not len(rows):
            return
        self._has_members[rows] = True
        pairs = self._find_positives(self.queries[rows]).sort("query", "distance", "database")
        query, first = np.unique(pairs["query"].to_numpy(), return_index=True)
        database = pairs["database"].to_numpy().astype(np.int64)
        # With two windows a place nobody else must agree: the graph among the positives is spared.
        if self.windows == 2 or not len(pairs):
            self._members[rows[query], 0] = database[first]
            return
        distinct, local = np.unique(database, return_inverse=True)
        tight = replace(self.radii, negative=self.radii.positive)
        positive = (PairGraph.from_windows(self.dataset, self.database[distinct], tight).matrix == 2).tocsr()
        for row, candidates in zip(rows[query], np.split(local, first[1:]), strict=True):
            members = distinct[_mutual(candidates, positive, self.windows - 1)]
            self._members[row, : len(members)] = members

    @cached_property
    def _find_positives(self) -> FindPositives:
        return positive_finder(self.dataset, self.database, self.radii)

    def _windows(self, runs: IntArray) -> IntArray:
        """Queries of runs `(n, run)` and the members of their places, as rows of queries + database.

        `(n, run · windows)`; a place with fewer members repeats its query.
        """
        members, queries = self._members[runs], runs[:, :, None]
        rows = np.where(members < 0, queries, len(self.queries) + members)
        return np.concatenate([queries, rows], axis=2).reshape(len(runs), -1)

    def _no_place(self) -> str:
        return (
            f"no {self.run} neighbouring training queries of {len(self.queries)} all have a positive within "
            f"{self.radii.positive:g} {self.radii.unit}; raise the positive radius, lower the run, or add data"
        )


def _mutual(candidates: IntArray, positive: sp.csr_matrix, most: int) -> list[int]:
    """The first of `candidates`, then each next that is positive to all selected before, at most `most`; in order."""
    selected: list[int] = []
    while len(candidates) and len(selected) < most:
        first = int(candidates[0])
        selected.append(first)
        others = positive.indices[positive.indptr[first] : positive.indptr[first + 1]]
        candidates = candidates[1:][np.isin(candidates[1:], others)]
    return selected


def _pack(units: IntArray, near_pairs: sp.csr_matrix, per_batch: int, steps: int) -> Iterator[list[int]]:
    """Fill batches with units (rows of windows) in order; a unit with a near window in the batch waits for a later one.

    Where too few of those waiting fit together, units that were used before fill up, so that on a short route batches
    are as full as its length allows.
    """
    waiting = np.arange(len(units))
    starts, columns = near_pairs.indptr, near_pairs.indices  # indexing the matrix itself costs a hundred times as much
    for step in range(steps):
        batch: list[int] = []
        is_blocked = np.zeros(near_pairs.shape[0], np.bool_)
        order = np.concatenate([waiting, (step * per_batch + np.arange(len(units))) % len(units)])
        for unit in _unblocked(order, units, is_blocked):
            batch.append(unit)
            is_blocked[units[unit]] = True
            for row in units[unit]:
                is_blocked[columns[starts[row] : starts[row + 1]]] = True
            if len(batch) == per_batch:
                break
        waiting = waiting[~np.isin(waiting, batch)]
        yield batch


def _unblocked(order: IntArray, units: IntArray, is_blocked: BoolArray) -> Iterator[int]:
    """The units of `order` that have no blocked window when their turn comes, looked through block by block."""
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        for unit in block[~is_blocked[units[block]].any(1)].tolist():
            # The caller blocks more windows with every unit that it takes: look again.
            if not is_blocked[units[unit]].any():
                yield unit
