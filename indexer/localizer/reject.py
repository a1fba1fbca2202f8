"""When to say "I do not know": a distance threshold calibrated on queries whose truth is known."""

import numpy as np
import numpy.typing as npt
from pydantic import Field

from seqdata.contracts.records import Frozen
from seqdata.errors import ContractError, NotEnoughDataError


class Calibration(Frozen):
    """A reject threshold and what it was worth on the queries that it was chosen on.

    A place is accepted when its distance is at most `threshold`. `precision`: share of the `accepted` queries whose
    nearest place was right; `recall`: right and accepted ones among the `answerable` (those with a positive), of
    `queries` in all. `wanted`: the precision asked for. `protocol` (name@hash) and `split` say what right means, on
    which dataset. `curve` holds (distance, confidence) with rising distance.

    Convention: the confidence of a distance is the best precision that accepting all queries up to that distance, or up
    to any greater one, had; 0 beyond the farthest query.
    """

    protocol: str
    split: str
    dataset: str
    wanted: float = Field(gt=0, le=1)
    threshold: float
    precision: float
    recall: float
    accepted: int
    answerable: int
    queries: int
    curve: tuple[tuple[float, float], ...]

    def confidence(self, distance: float) -> float:
        """The confidence of a distance, from 0 to 1."""
        ends = [end for end, _ in self.curve]
        place = int(np.searchsorted(ends, distance))
        return self.curve[place][1] if place < len(self.curve) else 0.0


def calibrate(
    distances: npt.ArrayLike,
    right: npt.ArrayLike,
    answerable: int,
    *,
    wanted: float,
    protocol: str,
    split: str,
    dataset: str,
) -> Calibration:
    """The largest threshold whose precision is at least `wanted`.

    `distances` (q,) to each query's nearest place, `right` (q,) bool whether that place is a positive; `answerable`:
    how many of the queries have one. Queries at equal distances are accepted together.
    Raises: ContractError for arrays that do not fit, NotEnoughDataError when no threshold is precise enough, with the
    best there is.
    """
    apart, hit = np.asarray(distances, np.float64), np.asarray(right, np.bool_)
    if apart.ndim != 1 or apart.shape != hit.shape or not np.isfinite(apart).all() or not 0 < wanted <= 1:
        raise ContractError(f"calibration: distances {apart.shape}, right {hit.shape}, precision {wanted:g}")
    order = np.argsort(apart, kind="stable")
    ends, hits, accepted = _counts(apart[order], hit[order])
    precision = hits / accepted
    good = np.flatnonzero(precision >= wanted)
    if len(good) == 0:
        best = float(precision.max()) if len(precision) else 0.0
        raise NotEnoughDataError(
            f"no threshold reaches a precision of {wanted:g} on {len(apart)} queries of {protocol} {split}: the best "
            f"is {best:.4f}; ask for less, or train the model further"
        )
    chosen = int(good[-1])
    return Calibration(
        protocol=protocol,
        split=split,
        dataset=dataset,
        wanted=wanted,
        threshold=float(ends[chosen]),
        precision=float(precision[chosen]),
        recall=float(hits[chosen] / answerable),
        accepted=int(accepted[chosen]),
        answerable=answerable,
        queries=len(apart),
        curve=_curve(ends, precision),
    )


def _counts(
    distances: npt.NDArray[np.float64], hit: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each distinct distance of sorted ones, with how many queries are right and how many there are up to it."""
    last = np.flatnonzero(np.append(np.diff(distances) > 0, True)) if len(distances) else np.zeros(0, np.int64)
    return distances[last], np.cumsum(hit, dtype=np.int64)[last], last.astype(np.int64) + 1


def _curve(ends: npt.NDArray[np.float64], precision: npt.NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """(distance, best precision from there on), only where it changes."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    kept = np.append(best[:-1] != best[1:], True)
    return tuple(zip(ends[kept].tolist(), best[kept].tolist(), strict=True))
