"""Which frames of a drive make a window: spaced as the database's were, by metres driven, else by time.

Convention: `odometry` is the way driven so far in metres, `time` is in seconds, of any clock that runs forward.
"""

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from seqdata.geometry import Float32Array

GAP = 5.0
"""A step this many times longer than the others means that frames are missing: the window starts anew. A guess: wide
enough for a frame that the camera dropped, and not much more than a window."""
_STEPS = 15  # steps whose median says how long a step is
# Cameras stamp late or early by some milliseconds: a frame this share of the interval too early is on time.
_EARLY = 0.1
# Rounding of sums of metres.
_METRES = 1e-6


@dataclass(frozen=True)
class Cut:
    """How frames are cut into windows: `length` frames, `spacing` metres or `interval` seconds apart.

    A frame is spaced by metres where `spacing` is set and odometry comes with it, else by time where `interval` is set
    and a time comes with it, else not at all.
    """

    length: int
    spacing: float | None = None
    interval: float | None = None

    def measures(self, time: float | None, odometry: float | None) -> bool:
        """Whether frames with these are spaced by one of them.

        >>> Cut(5, spacing=2.0).measures(1.0, None), Cut(5, spacing=2.0).measures(None, 7.0)
        (False, True)
        """
        by_metres = self.spacing is not None and odometry is not None
        return by_metres or (self.interval is not None and time is not None)


@dataclass
class WindowRing:
    """The features of the last frames that count, and where and when the last of them was taken.

    Example:
        >>> import numpy as np
        >>> ring = WindowRing(Cut(length=2, spacing=2.0))
        >>> for metres in (0.0, 1.0, 2.5):
        ...     if ring.is_due(None, metres):
        ...         ring.add(np.full((1, 4), metres, np.float32), None, metres)
        >>> [float(features[0, 0]) for features in ring.features]
        [0.0, 2.5]
    """

    cut: Cut
    features: deque[Float32Array] = field(init=False)
    labels: deque[object] = field(init=False)
    _at: float | None = None
    _offered: float | None = None
    _steps: deque[float] = field(default_factory=lambda: deque(maxlen=_STEPS))

    def __post_init__(self) -> None:
        """Make the ring."""
        self.features = deque(maxlen=self.cut.length)
        self.labels = deque(maxlen=self.cut.length)

    @property
    def centre(self) -> object:
        """Label of the centre frame of a full window, the frame that the database's places are told by."""
        # The rule of `seqdata.sequences.windows.centre_index`, whose module loads polars.
        return self.labels[(self.cut.length - 1) // 2]

    @property
    def is_full(self) -> bool:
        """Whether the ring holds a window."""
        return len(self.features) == self.cut.length

    def clear(self) -> None:
        """Forget all frames, for a new drive."""
        self.features.clear()
        self.labels.clear()
        self._steps.clear()
        self._at = self._offered = None

    def is_due(self, time: float | None, odometry: float | None) -> bool:
        """Whether a frame belongs into the window: the first one does, then one spacing or interval after another.

        After a gap, or where a clock or an odometer went back, the window starts anew with this frame.
        """
        at, step, early = self._measure(time, odometry)
        if at is None:
            return True
        passed = 0.0 if self._offered is None else at - self._offered
        self._offered = at
        if not 0 <= passed <= GAP * max(step, median(self._steps or [step])):
            self.clear()
            self._offered = at
        # Standing still is no step: it would make the next one look long.
        if passed > 0:
            self._steps.append(passed)
        return self._at is None or at - self._at >= step - early

    def add(self, features: Float32Array, time: float | None, odometry: float | None, label: object = None) -> None:
        """Add the features of a frame that is due, and whatever it is called by."""
        self.features.append(features)
        self.labels.append(label)
        self._at = self._measure(time, odometry)[0]

    def _measure(self, time: float | None, odometry: float | None) -> tuple[float | None, float, float]:
        """Metres or seconds of a frame, how many lie between two, and how many fewer still count; None if unknown."""
        if self.cut.spacing is not None and odometry is not None:
            return odometry, self.cut.spacing, _METRES
        if self.cut.interval is not None and time is not None:
            return time, self.cut.interval, _EARLY * self.cut.interval
        return None, 0.0, 0.0
