"""Who is near whom among training windows: positives, the ignore band, and the rest, from the dataset's own truth."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from seqdata.contracts.protocol import Protocol, Rule, Unit
from seqdata.errors import ContractError
from seqdata.sequences.positives import RULE_COLUMNS

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset


@dataclass(frozen=True)
class Radii:
    """Training radii: positives within the first, negatives beyond the second, pairs between them are ignored.

    With `heading_max` a positive also faces the same way within so many degrees, by the windows' centre frames; an
    unknown heading makes no positive. Near windows that face another way are ignored, never negatives.

    Convention: in metres a pair is within a radius when strictly nearer; in frames when at most that many ranks apart.
    Source: P1's practice, 10 m and 25 m, any frame to any frame; the protocol's `[train]` table.
    """

    positive: float
    negative: float
    rule: Rule = "any"
    unit: Unit = "metres"
    heading_max: float | None = None

    def __post_init__(self) -> None:
        """Raises: ContractError when the positive radius exceeds the negative one."""
        if self.positive > self.negative:
            raise ContractError(
                f"positive radius {self.positive:g} exceeds the negative radius {self.negative:g}: "
                "a pair would be positive and negative at once"
            )

    @classmethod
    def of(
        cls,
        protocol: Protocol,
        positive: float | None = None,
        negative: float | None = None,
        heading_max: float | None = None,
    ) -> "Radii":
        """The protocol's training radii and heading limit, each replaced where given."""
        rule = protocol.train
        return cls(
            rule.positive_radius if positive is None else positive,
            rule.negative_radius if negative is None else negative,
            rule.rule,
            protocol.unit,
            protocol.heading_max if heading_max is None else heading_max,
        )

    def positives(self, near_pairs: pl.DataFrame) -> pl.DataFrame:
        """The rows of `near` that lie within the positive radius and face the same way where that is asked for."""
        distance = pl.col("distance")
        wanted = distance < self.positive if self.unit == "metres" else distance <= self.positive
        if self.heading_max is not None:
            wanted &= (pl.col("heading_difference") <= self.heading_max).fill_null(False)
        return near_pairs.filter(wanted)


def near(dataset: "Dataset", query: pl.DataFrame, database: pl.DataFrame, radii: Radii) -> pl.DataFrame:
    """Pairs within the negative radius, whichever way they face.

    Columns query, database (i32 rows of the given tables), distance (f64), heading_difference (f32 degrees, or null).

    Window against window by the training rule: never frame ids against window ids.
    """
    pairs = dataset.positives(query, database, radius=radii.negative, rule=radii.rule, unit=radii.unit)
    return pairs.select(
        "query", "database", pl.col(RULE_COLUMNS[radii.rule]).alias("distance"), pl.col("heading_difference")
    )


@dataclass(frozen=True)
class PairGraph:
    """Near pairs among one set of windows, symmetric and sparse: 1 = ignored band, 2 = positive, absent = negative."""

    matrix: sp.csr_matrix

    @classmethod
    def of(cls, dataset: "Dataset", windows: pl.DataFrame, radii: Radii) -> "PairGraph":
        """The graph of a window table against itself."""
        pairs = near(dataset, windows, windows, radii)
        positive = radii.positives(pairs)
        shape = (len(windows), len(windows))
        parts = [_ones(table, shape) for table in (pairs, positive)]
        both = (parts[0] + parts[1]).tocsr()
        return cls(both.maximum(both.T).tocsr())

    def masks(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(positive, negative) bool `(B, B)` of the windows `rows`; a window has no pair with itself."""
        codes = self.matrix[rows][:, rows].toarray()
        other = rows[:, None] != rows[None, :]
        return (codes == 2) & other, (codes == 0) & other


def _ones(pairs: pl.DataFrame, shape: tuple[int, int]) -> sp.csr_matrix:
    """A sparse matrix of ones at the pairs."""
    at = (pairs["query"].to_numpy(), pairs["database"].to_numpy())
    return sp.coo_matrix((np.ones(len(pairs), np.int8), at), shape=shape).tocsr()
