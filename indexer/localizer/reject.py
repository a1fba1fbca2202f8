"""When to say "I do not know": a distance threshold calibrated on queries whose ground truth is known."""

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field

from seqdata.contracts.records import Frozen
from seqdata.errors import ContractError, NotEnoughDataError
from seqdata.geometry import BoolArray, Float64Array, IntArray


class Calibration(Frozen):
    """A reject threshold and how it did on the queries that it was chosen on.

    A place is accepted when its distance is at most `threshold`. `precision`: share of the `accepted` queries whose
    nearest place was right; `recall`: right and accepted ones among the `answerable` (those with a positive), of
    `queries` in all. `target_precision` is the least precision of the request (stored as `wanted`).
    `protocol` (name@hash) and `split` say what right means, on which dataset. `curve` holds (distance, confidence) with
    rising distance.

    Convention: the confidence of a distance is the best precision that accepting all queries up to that distance, or up
    to any greater one, had; 0 beyond the farthest query.
    """

    model_config = ConfigDict(populate_by_name=True)

    protocol: str
    split: str
    dataset: str
    target_precision: float = Field(alias="wanted", gt=0, le=1)
    threshold: float
    precision: float
    recall: float
    accepted: int
    answerable: int
    queries: int
    curve: tuple[tuple[float, float], ...]

    def confidence(self, distance: float) -> float:
        """Look up the confidence of a distance, from 0 to 1."""
        ends = [end for end, _ in self.curve]
        position = int(np.searchsorted(ends, distance))
        return self.curve[position][1] if position < len(self.curve) else 0.0


def calibrate(
    distances: npt.ArrayLike,
    right: npt.ArrayLike,
    answerable: int,
    *,
    target_precision: float,
    protocol: str,
    split: str,
    dataset: str,
) -> Calibration:
    """Find the largest threshold that is precise enough. Queries at equal distances are accepted together.

    Args:
        distances: Distance of each query (q,) to its nearest place.
        right: Whether that place is a positive, bool (q,).
        answerable: Queries that have a positive.
        target_precision: Least share of right queries among the accepted ones, above 0 and up to 1.
        protocol: Name and hash of the protocol that says what right means.
        split: Split of the queries.
        dataset: Id of their dataset.

    Returns:
        The threshold with its figures and its curve.

    Raises:
        ContractError: If the arrays do not fit each other, or the precision is out of range.
        NotEnoughDataError: If no threshold is precise enough; the message has the best there is.

    Example:
        >>> labels = {"protocol": "own@1", "split": "val", "dataset": "d"}
        >>> result = calibrate([0.1, 0.2, 0.9], [True, True, False], 3, target_precision=0.9, **labels)
        >>> result.threshold, result.precision, result.confidence(0.15)
        (0.2, 1.0, 1.0)
    """
    distance, is_right = np.asarray(distances, np.float64), np.asarray(right, np.bool_)
    fits = distance.ndim == 1 and distance.shape == is_right.shape and np.isfinite(distance).all()
    if not fits or not 0 < target_precision <= 1:
        raise ContractError(
            f"calibration: distances {distance.shape}, right {is_right.shape}, precision {target_precision:g}"
        )
    order = np.argsort(distance, kind="stable")
    ends, hits, accepted = _counts(distance[order], is_right[order])
    precision = hits / accepted
    precise = np.flatnonzero(precision >= target_precision)
    if len(precise) == 0:
        best = float(precision.max()) if len(precision) else 0.0
        raise NotEnoughDataError(
            f"no threshold reaches a precision of {target_precision:g} on {len(distance)} queries of {protocol} "
            f"{split}: the best is {best:.4f}; ask for less, or train the model further"
        )
    last = int(precise[-1])
    return Calibration(
        protocol=protocol,
        split=split,
        dataset=dataset,
        wanted=target_precision,
        threshold=float(ends[last]),
        precision=float(precision[last]),
        recall=float(hits[last] / answerable),
        accepted=int(accepted[last]),
        answerable=answerable,
        queries=len(distance),
        curve=_curve(ends, precision),
    )


def _counts(distances: Float64Array, is_right: BoolArray) -> tuple[Float64Array, IntArray, IntArray]:
    """Each distinct distance of rising ones, with how many queries are right and how many there are up to it."""
    # The last of a run of equal distances: its cumulative counts hold the whole run.
    last = np.flatnonzero(np.append(np.diff(distances) > 0, True)) if len(distances) else np.zeros(0, np.int64)
    return distances[last], np.cumsum(is_right, dtype=np.int64)[last], last.astype(np.int64) + 1


def _curve(ends: Float64Array, precision: Float64Array) -> tuple[tuple[float, float], ...]:
    """(distance, best precision from there on), only where it changes."""
    # The maximum over all greater distances, by a running maximum from the far end.
    best = np.maximum.accumulate(precision[::-1])[::-1]
    changes = np.append(best[:-1] != best[1:], True)
    return tuple(zip(ends[changes].tolist(), best[changes].tolist(), strict=True))
