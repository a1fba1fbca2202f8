"""One lap of the synthetic RobotCar: where the car truly is at any time, and what its three receivers write.

Convention: `seconds` count from the lap's start, timestamps are microseconds since 1970 (UTC, from the lap's name).
Yaw is radians from north towards east, −π…π. The UTM zone is written with its latitude band, as the dataset does (30U).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
import polars as pl
import utm

from seqdata import geometry
from seqdata.geometry import Float64Array, IntArray
from seqdata.synth.drives.along import Course
from seqdata.synth.settings import generator
from seqdata.synth.tracks import Track

RATES = {"rtk": 10.0, "ins": 50.0, "gps": 5.0}
"""Rows a second of each log."""
NOISE = {"rtk": 0.02, "ins": 0.3, "gps": 2.0}
"""Standard deviation of a position's slow error in metres."""
EARLY = 0.4
"""Seconds by which the logs begin before the first frame and go on after the last."""
BAD_STATUS = "INS_BAD_GPS_AGREEMENT"


@dataclass(frozen=True, eq=False)
class Lap:
    """One drive along `course`: `pace` times as fast as `track`, `lateral` metres to the right, a stop of `stop` s."""

    name: str
    visit: str
    track: Track
    course: Course
    pace: float
    lateral: float
    stop: float
    seed: int

    @property
    def start(self) -> int:
        """Timestamp (µs) of the first frame: the lap's name as UTC."""
        return int(datetime.strptime(self.name, "%Y-%m-%d-%H-%M-%S").replace(tzinfo=timezone.utc).timestamp()) * 10**6

    @property
    def driven(self) -> float:
        """Seconds of driving, without the stop."""
        return float(self.track.time[-1] - self.track.time[0]) / self.pace

    def metres(self, seconds: Float64Array) -> Float64Array:
        """Metres of the course (n,) at `seconds` (n,): halfway the car stands still for `stop` seconds."""
        middle = self.driven / 2
        moving = np.where(seconds < middle, seconds, np.maximum(seconds - self.stop, middle))
        return np.interp(moving * self.pace, self.track.time - self.track.time[0], self.course.metres)

    def pose(self, seconds: Float64Array) -> tuple[IntArray, Float64Array, Float64Array]:
        """Street number (n,), local position (n, 2) and heading in degrees (n,) at `seconds` (n,)."""
        return self.course.place(self.metres(seconds), np.full(len(seconds), self.lateral))


def frame_times(lap: Lap, rate: float) -> IntArray:
    """Timestamps (µs) of a camera's frames: `rate` a second, a millisecond early or late."""
    count = int((lap.driven + lap.stop) * rate)
    jitter = generator(lap.seed, lap.name, "frames").integers(-1000, 1001, count)
    return np.asarray(lap.start + (np.arange(count) / rate * 1e6).astype(np.int64) + jitter)


def log_table(lap: Lap, source: str, dropout: float) -> pl.DataFrame:
    """Write the rows of rtk.csv, ins.csv or gps.csv, in the dataset's columns.

    A third of the way in the receiver loses its fix: rtk and gps have no rows then, ins bad ones.

    Args:
        lap: The lap.
        source: "rtk", "ins" or "gps".
        dropout: Seconds without a fix.
    """
    rng = generator(lap.seed, lap.name, source)
    whole = lap.driven + lap.stop
    seconds = np.arange(-EARLY, whole + EARLY, 1 / RATES[source])
    lost = (seconds >= whole / 3) & (seconds < whole / 3 + dropout)
    # The inertial log goes on without a fix, with a bad status and (below) positions 25 m off; the other two have no
    # rows then.
    if source != "ins":
        seconds, lost = seconds[~lost], lost[~lost]
    _, local, heading = lap.pose(seconds)
    # Receivers err slowly, not from row to row: white noise would make a car that jumps, and headings would mean
    # nothing.
    error = np.stack([_drift(len(seconds), NOISE[source], rng) for _ in range(2)], -1)
    easting, northing = (local + error + np.where(lost, 25.0, 0.0)[:, None] + lap.track.origin).T
    latitude, longitude = geometry.to_latlon(easting, northing, lap.track.zone)
    number, _ = geometry.parse_zone(lap.track.zone)
    altitude = 110.0 + _drift(len(seconds), 0.5, rng)
    place = {"latitude": latitude.round(7), "longitude": longitude.round(7), "altitude": altitude.round(6)}
    metres = {"northing": northing.round(6), "easting": easting.round(6), "down": -altitude.round(6)}
    stamp = {"timestamp": lap.start + (seconds * 1e6).astype(np.int64)}
    zone = {"utm_zone": [f"{number}{utm.latitude_to_zone_letter(float(latitude[0]))}"] * len(seconds)}
    if source == "gps":
        sigma = {f"{name}_sigma": np.full(len(seconds), 1.5) for name in ("latitude", "longitude", "altitude")}
        return pl.DataFrame({**stamp, "num_satellites": np.full(len(seconds), 9), **place, **sigma, **metres, **zone})
    status = {"ins_status": np.where(lost, BAD_STATUS, "INS_SOLUTION_GOOD")} if source == "ins" else {}
    return pl.DataFrame({**stamp, **status, **place, **metres, **zone, **_motion(seconds, easting, northing, heading)})


def _motion(
    seconds: Float64Array, easting: Float64Array, northing: Float64Array, heading: Float64Array
) -> dict[str, Float64Array]:
    """Velocities (m/s) and attitude (rad)."""
    still = np.zeros(len(seconds))
    yaw = np.radians((heading + 180.0) % 360.0 - 180.0)
    north, east = np.gradient(northing, seconds), np.gradient(easting, seconds)
    speed = {"velocity_north": north.round(6), "velocity_east": east.round(6), "velocity_down": still}
    return {**speed, "roll": still, "pitch": still, "yaw": yaw.round(9)}


def _drift(count: int, size: float, rng: np.random.Generator) -> Float64Array:
    """A slow error (n,) of standard deviation about `size`: two waves of random phase."""
    phase, turns = rng.uniform(0, 2 * np.pi, 2), rng.uniform(1, 4, 2)
    waves = [np.sin(np.linspace(0, 2 * np.pi * turn, count) + start) for start, turn in zip(phase, turns, strict=True)]
    return np.asarray(sum(waves) * size)
