"""Training pairs: which windows are positives of a query, which are ignored, and which may serve as negatives.

Distances come from the dataset's ground truth (window to window, by the protocol's rule), never from frame ids.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import scipy.sparse as sp

from seqdata.contracts.protocol import Protocol, Rule, Unit
from seqdata.errors import ContractError
from seqdata.geometry import BoolArray, IntArray
from seqdata.sequences.positives import RULE_COLUMNS

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

FindPositives = Callable[[pl.DataFrame], pl.DataFrame]
"""Finds the positives of a window table of queries."""


@dataclass(frozen=True)
class Radii:
    """Training radii: positives within the first, negatives beyond the second, pairs between them are ignored.

    Near windows that face another way are ignored, never negatives. Radii of 10 m and 25 m, any frame to any frame, are
    those of Mereu et al. (docs/methods.md#mining); the protocol's `[train]` table says which hold.

    Convention:
        In metres a pair is within a radius when strictly nearer; in frames when its ranks differ by at most that many.

    Attributes:
        positive: Radius of positives, metres or ranks.
        negative: Radius beyond which windows are negatives, metres or ranks.
        rule: Which frames of two windows are compared for positives.
        unit: Metres or frames.
        heading_max: Degrees by which a positive may face another way, by the windows' centre frames; an unknown
            heading makes no positive. None: any way.
        negative_rule: Which frames are compared for negatives. None: as for positives.

    Raises:
        ContractError: If the positive radius exceeds the negative one.

    Example:
        >>> Radii(positive=10.0, negative=25.0).unit
        'metres'
    """

    positive: float
    negative: float
    rule: Rule = "any"
    unit: Unit = "metres"
    heading_max: float | None = None
    negative_rule: Rule | None = None

    def __post_init__(self) -> None:
        """Compare the radii."""
        if self.positive > self.negative:
            raise ContractError(
                f"positive radius {self.positive:g} exceeds the negative radius {self.negative:g}: "
                "a pair would be positive and negative at once"
            )

    @classmethod
    def from_protocol(
        cls,
        protocol: Protocol,
        positive: float | None = None,
        negative: float | None = None,
        heading_max: float | None = None,
    ) -> "Radii":
        """Take a protocol's training radii and heading limit, each replaced where another value is passed."""
        rule = protocol.train
        return cls(
            rule.positive_radius if positive is None else positive,
            rule.negative_radius if negative is None else negative,
            rule.rule,
            protocol.unit,
            protocol.heading_max if heading_max is None else heading_max,
            rule.negative_rule,
        )

    def positives(self, near_pairs: pl.DataFrame) -> pl.DataFrame:
        """Select the rows of `pairs_within` that are positives."""
        distance = pl.col("distance")
        is_positive = distance < self.positive if self.unit == "metres" else distance <= self.positive
        if self.heading_max is not None:
            is_positive &= (pl.col("heading_difference") <= self.heading_max).fill_null(False)
        return near_pairs.filter(is_positive)


def pairs_within(dataset: "Dataset", queries: pl.DataFrame, database: pl.DataFrame, radii: Radii) -> pl.DataFrame:
    """Find all pairs of windows that are closer than the negative radius.

    Pairs stay whatever their headings, because a window on the same spot that faces the other way must not become a
    negative; `Radii.positives` then selects the positives among them.

    Args:
        dataset: The dataset that both tables were cut from.
        queries: Window table, one row a query.
        database: Window table of the database.
        radii: The radii, with the distance rule of the protocol.

    Returns:
        One row a pair: `query` and `database` (int32, rows of the two tables), `distance` by the rule of positives
        (float64, metres, or ranks where the protocol counts frames), `heading_difference` (float32, degrees in 0…180,
        null where unknown).
    """
    rule = radii.negative_rule or radii.rule
    pairs = dataset.positives(queries, database, radius=radii.negative, rule=rule, unit=radii.unit)
    return _by_rule(pairs, radii)


def positive_finder(dataset: "Dataset", database: pl.DataFrame, radii: Radii) -> FindPositives:
    """Make a function that finds the positives of query windows in one database, as `pairs_within` and `Radii` would.

    What it searches in is made once, however often it is called.

    Args:
        dataset: The dataset.
        database: Window table of the database.
        radii: The radii.

    Returns:
        A function of a window table of queries; it returns the pairs that are positives.
    """
    rule = radii.negative_rule or radii.rule
    find = dataset.pair_finder(database, radius=radii.positive, rule=rule, unit=radii.unit)
    return lambda queries: radii.positives(_by_rule(find(queries), radii))


def _by_rule(pairs: pl.DataFrame, radii: Radii) -> pl.DataFrame:
    """Pairs with their distance by the rule of positives."""
    return pairs.select(
        "query", "database", pl.col(RULE_COLUMNS[radii.rule]).alias("distance"), pl.col("heading_difference")
    )


@dataclass(frozen=True)
class PairGraph:
    """Near pairs among one set of windows, symmetric and sparse: 1 = ignored, 2 = positive, absent = negative.

    Sparse, because of all pairs of windows of a city a few in a thousand are near.
    """

    matrix: sp.csr_matrix

    @classmethod
    def from_windows(cls, dataset: "Dataset", windows: pl.DataFrame, radii: Radii) -> "PairGraph":
        """Compute the graph of a window table against itself."""
        pairs = pairs_within(dataset, windows, windows, radii)
        positive = radii.positives(pairs)
        shape = (len(windows), len(windows))
        parts = [_ones(table, shape) for table in (pairs, positive)]
        # A pair within the positive radius is within the negative one too: ones of both tables add up to the codes 1
        # and 2.
        both = (parts[0] + parts[1]).tocsr()
        # A loss counts both directions of a pair, while rounding at a radius could leave one of them out.
        return cls(both.maximum(both.T).tocsr())

    def masks(self, rows: IntArray) -> tuple[BoolArray, BoolArray]:
        """Make the masks of positive and of negative pairs (B, B) of the windows `rows` (B,).

        A window has no pair with itself.
        """
        codes = self.matrix[rows][:, rows].toarray()
        # A window is within every radius of itself, which makes no pair.
        other = rows[:, None] != rows[None, :]
        return (codes == 2) & other, (codes == 0) & other


def _ones(pairs: pl.DataFrame, shape: tuple[int, int]) -> sp.csr_matrix:
    """A sparse matrix of ones at the pairs."""
    positions = (pairs["query"].to_numpy(), pairs["database"].to_numpy())
    return sp.coo_matrix((np.ones(len(pairs), np.int8), positions), shape=shape).tocsr()
