"""A causal filter over the database's windows: where the camera can be now follows from where it was.

A belief over all windows is moved along the drives of the database, then weighted by how near the new descriptor is to
each window. One wrong neighbour far away thus does not move the answer; several in a row do.

Source: discrete Bayes filter (forward algorithm) with a uniform motion window, in the manner of Xu, Sünderhauf and
Milford, Probabilistic Visual Place Recognition for Hierarchical Localization, RA-L 2021, sec. III; the constants and
the likelihood of candidates alone are ours.
"""

import numpy as np

from seqdata.geometry import Float32Array, Float64Array, IntArray

MOST_STEPS = 4
"""Windows of the database that a camera passes at most from one window to the next: four times the mapping speed."""
LOST = 0.02
"""Share of the belief that may be anywhere: lets the filter leave a wrong place within some windows. A guess."""
CONTRAST = 50.0
"""How much likelier the nearest candidate is than the farthest one, and than all windows that are none. A guess that
one window alone does not outweigh `LOST` with, and two do."""


class ForwardFilter:
    """Belief (n,) over the n windows of a database, which changes with every descriptor.

    Example:
        >>> follower = ForwardFilter(np.array([0, 0, 0, 1, 1, 1]))
        >>> near = (np.array([0.1, 0.5, 0.6], np.float32), np.array([0, 3, 4]))
        >>> follower.update(*near)
        0
        >>> wrong = (np.array([0.20, 0.21, 0.5], np.float32), np.array([4, 1, 2]))
        >>> follower.update(*wrong)
        1
    """

    def __init__(self, drives: IntArray) -> None:
        """Set the filter to "anywhere".

        Args:
            drives: Number of the drive of each window int64 (n,), windows in driving order within a drive.
        """
        self._drives = drives
        self.belief: Float64Array = np.full(len(drives), 1 / len(drives))

    def reset(self) -> None:
        """Forget where the camera was."""
        self.belief = np.full(len(self._drives), 1 / len(self._drives))

    def update(self, distances: Float32Array, rows: IntArray) -> int:
        """Move the belief by one window and weight it by the candidates of a new descriptor.

        Args:
            distances: Distances (k,) of the nearest windows, rising.
            rows: Their rows (k,).

        Returns:
            The likeliest row; of equally likely ones the nearest candidate.
        """
        self.belief = self._moved() * self._likelihood(distances, rows)
        self.belief /= self.belief.sum()
        best = int(self.belief.argmax())
        # At the start the belief is even, and ties would go to the first row of the table.
        return int(rows[0]) if self.belief[rows[0]] >= self.belief[best] else best

    def _moved(self) -> Float64Array:
        """The belief after 0 … `MOST_STEPS` windows forward on the same drive, all equally likely, or lost."""
        share = (1 - LOST) / (MOST_STEPS + 1)
        moved: Float64Array = share * self.belief
        for step in range(1, min(MOST_STEPS, len(moved) - 1) + 1):
            moved[step:] += share * self.belief[:-step] * (self._drives[step:] == self._drives[:-step])
        # What would leave the end of a drive may be anywhere, so that the sum stays 1.
        moved += (1 - moved.sum()) / len(moved)
        return moved

    def _likelihood(self, distances: Float32Array, rows: IntArray) -> Float64Array:
        """Likelihood (n,) of the new descriptor at each window: exponential in the distance, from 1 to 1/contrast."""
        precise = distances.astype(np.float64)
        spread = precise[-1] - precise[0]
        falls = np.log(CONTRAST) / spread if spread > 0 else 0.0
        likelihood = np.full(len(self.belief), np.exp(-falls * spread))
        likelihood[rows] = np.exp(-falls * (precise - precise[0]))
        return likelihood
