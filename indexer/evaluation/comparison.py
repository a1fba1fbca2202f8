"""Is the gap between two methods real? Paired comparison of two sets of predictions under one protocol."""

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer.evaluation.intervals import FEWEST, Units, draw_weights, resampling_units
from indexer.evaluation.predictions import PredictionsInfo
from indexer.evaluation.recall import AT, first_hit_ranks, has_positive
from indexer.evaluation.scoring import Truth, common_depth, truth
from indexer.evaluation.shared_frames import without_pairs
from seqdata.contracts.protocol import Protocol
from seqdata.contracts.records import Frozen
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, NotEnoughDataError


class Gap(Frozen):
    """R@N of two methods over the same queries.

    `difference` is first minus second with its 95 % interval (None below ten units). `only_first` queries were hits of
    the first alone, `only_second` of the second alone. In `better` units the first had more hits, in `worse` fewer;
    `sign_p` is the two-sided probability of so uneven a split by chance. `mcnemar_p` is the same over queries: it takes
    overlapping windows for independent and is far too small then.
    """

    first: float
    second: float
    difference: float
    interval: tuple[float, float] | None
    only_first: int
    only_second: int
    better: int
    worse: int
    equal: int
    sign_p: float
    mcnemar_p: float

    @property
    def beyond_chance(self) -> bool | None:
        """Whether the interval of the difference leaves out zero; None where there is no interval."""
        return None if self.interval is None else not self.interval[0] <= 0 <= self.interval[1]


class Comparison(Frozen):
    """Two methods under one protocol, JSON-able; `gaps` by N."""

    protocol: str
    protocol_hash: str
    split: str
    first: str
    second: str
    queries: int
    units: int
    method: str
    gaps: dict[int, Gap]

    @property
    def label(self) -> str:
        """`name@hash` of the protocol."""
        return f"{self.protocol}@{self.protocol_hash}"


def gap(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64], seed: int) -> Gap:
    """Compare hits (n,) of two methods over the same counted queries; `labels` (n,) names each query's unit.

    Both methods are resampled by the same draws of units, so what is hard for both cancels out.
    Source: paired cluster bootstrap, percentile form; sign test (exact binomial) over units; McNemar, exact form.
    """
    unit_of = np.unique(labels, return_inverse=True)[1]
    number = int(unit_of.max()) + 1
    totals = np.bincount(unit_of, minlength=number)
    apart = np.bincount(unit_of, first.astype(np.int64) - second.astype(np.int64), number)
    interval = None
    if number >= FEWEST:
        weights = draw_weights(number, seed)
        low, high = np.percentile((weights @ apart) / (weights @ totals), [2.5, 97.5])
        interval = (float(low), float(high))
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    better, worse = int((apart > 0).sum()), int((apart < 0).sum())
    return Gap(
        first=float(first.mean()),
        second=float(second.mean()),
        difference=float(first.mean() - second.mean()),
        interval=interval,
        only_first=only_first,
        only_second=only_second,
        better=better,
        worse=worse,
        equal=number - better - worse,
        sign_p=_even_odds(better, worse),
        mcnemar_p=_even_odds(only_first, only_second),
    )


def say_units(units: Units, number: int, seed: int) -> str:
    """How the intervals of a comparison were found, in words."""
    if number < FEWEST:
        return f"no interval: only {units.say(number)} to resample"
    return f"paired bootstrap over {units.say(number)}, seed {seed}"


def _even_odds(one: int, other: int) -> float:
    """Two-sided exact probability of a split at least so uneven when both sides are equally likely."""
    from scipy.stats import binomtest

    return float(binomtest(one, one + other).pvalue) if one + other else 1.0


Predicted = tuple[pl.DataFrame, PredictionsInfo]


def compare(dataset: Dataset, protocol: Protocol, first: Predicted, second: Predicted, seed: int = 0) -> Comparison:
    """Whether the gap in R@N between two sets of predictions is beyond chance, query by query.

    Both are judged under `protocol`; they must answer the same windows of the same split.
    Raises: ContractError when they do not, NotEnoughDataError when no query has a positive.
    """
    if (first[1].split, first[1].pool) != (second[1].split, second[1].pool):
        raise ContractError(
            f"the two answer different questions: split {first[1].split}, cities '{first[1].pool}', and split "
            f"{second[1].split}, cities '{second[1].pool}'"
        )
    judged = truth(dataset, protocol, first[1])
    truth(dataset, protocol, second[1])
    counted = _counted(judged)
    units = resampling_units(judged.queries, counted)
    ranks = [_ranks(judged, table)[counted] for table, _ in (first, second)]
    labels = units.labels[counted]
    depth = min(common_depth(table, judged.shared, judged.pools) for table, _ in (first, second))
    at = [n for n in AT if n <= min(judged.database, depth)] or [1]
    number = len(np.unique(labels))
    return Comparison(
        protocol=protocol.name,
        protocol_hash=protocol.hash,
        split=first[1].split,
        first=first[1].method,
        second=second[1].method,
        queries=len(labels),
        units=number,
        method=say_units(units, number, seed),
        gaps={n: gap(ranks[0] <= n, ranks[1] <= n, labels, seed) for n in at},
    )


def _counted(judged: Truth) -> npt.NDArray[np.bool_]:
    """Which queries the protocol counts (n,) bool. Raises: NotEnoughDataError when none has a positive."""
    answerable = has_positive(without_pairs(judged.positives, judged.shared), judged.queries.height)
    if not answerable.any():
        raise NotEnoughDataError(f"protocol {judged.protocol.label}: no query has a positive; nothing to compare")
    return answerable if judged.protocol.no_positive == "leave-out" else np.ones_like(answerable)


def _ranks(judged: Truth, predictions: pl.DataFrame) -> npt.NDArray[np.int32]:
    kept = without_pairs(predictions, judged.shared)
    return first_hit_ranks(kept, without_pairs(judged.positives, judged.shared), judged.queries.height)
