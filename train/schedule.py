"""Learning rate as a pure function of progress, so that a resumed run needs no schedule state."""

import math


def rate(base: float, schedule: str, done: float, step: int, warmup: int, halvings: int = 0) -> float:
    """Learning rate at share `done` (0…1) of training and absolute `step`: linear warm-up, then the schedule.

    "none" stays, "cosine" falls to zero at `done` 1, "halve" is `base` · 0.5^`halvings`.
    """
    rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if schedule == "cosine":
        return base * rising * (0.5 * (1 + math.cos(math.pi * min(1.0, done))))
    return base * rising * (0.5**halvings if schedule == "halve" else 1.0)
