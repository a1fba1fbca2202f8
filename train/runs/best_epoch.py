"""Which epoch of a run is its best: one rule for the stored checkpoint, for what a command prints, and for patience.

Convention: the greatest R@5 wins, then the greatest R@1, then the earlier epoch. Without a val split epochs
cannot be compared, and the last one counts. Patience looks at R@5 alone: a gain in R@1 alone does not lengthen a run.
"""

from collections.abc import Mapping, Sequence
from typing import Any


def merit(recalls: Mapping[str, float]) -> tuple[float, float]:
    """R@5 and R@1 of validation recalls (`{"r1": …, "r5": …}`), in the order in which they decide."""
    return recalls["r5"], recalls["r1"]


def is_better(recalls: Mapping[str, float] | None, best: Mapping[str, float] | None) -> bool:
    """Whether a new epoch replaces the best one before it; None stands for an epoch that was not validated."""
    return recalls is None or best is None or merit(recalls) > merit(best)


def best_epoch(metrics: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Select the best epoch of a run.

    Args:
        metrics: Lines of the run's metrics.jsonl in the order of epochs, each with `epoch` and `val` (recalls or None).

    Returns:
        The line of the best epoch; an empty mapping where there are no lines.

    Example:
        >>> epochs = [{"epoch": 1, "val": {"r1": 0.1, "r5": 0.5}}, {"epoch": 2, "val": {"r1": 0.3, "r5": 0.5}}]
        >>> best_epoch(epochs)["epoch"]
        2
    """
    best: Mapping[str, Any] = {}
    for row in metrics:
        if is_better(row.get("val"), best.get("val")):
            best = row
    return best
