"""A recorded track: where a receiver was, in metres of one UTM zone."""

from dataclasses import dataclass

import numpy as np

from seqdata.errors import InputError, NotEnoughDataError
from seqdata.geometry import Float64Array


@dataclass(frozen=True, eq=False)
class Track:
    """Where a receiver was: `time` seconds (n,), rising; `easting` and `northing` metres (n,), float64, in `zone`."""

    time: Float64Array
    easting: Float64Array
    northing: Float64Array
    zone: str

    def __post_init__(self) -> None:
        """Refuse what cannot be driven. Raises: NotEnoughDataError under two fixes, InputError when time falls."""
        if len(self.time) < 2:
            raise NotEnoughDataError(f"the track has {len(self.time)} usable fixes; at least 2 are needed")
        if not (np.diff(self.time) > 0).all():
            raise InputError("the track's times do not rise from fix to fix")

    def __len__(self) -> int:
        return len(self.time)

    @property
    def local(self) -> Float64Array:
        """Metres `(n, 2)` east and north of the first fix."""
        return np.stack([self.easting - self.easting[0], self.northing - self.northing[0]], -1)

    @property
    def origin(self) -> tuple[float, float]:
        """Easting and northing of the first fix: what local metres are counted from."""
        return float(self.easting[0]), float(self.northing[0])
