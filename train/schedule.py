"""Learning rate as a pure function of progress, so that a resumed run needs no schedule state."""

import math


def rate(base: float, schedule: str, done: float, step: int, warmup: int) -> float:
    """Learning rate at share `done` (0…1) of training and absolute `step`: linear warm-up, then constant or cosine."""
    rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
    falling = 0.5 * (1 + math.cos(math.pi * min(1.0, done))) if schedule == "cosine" else 1.0
    return base * rising * falling
