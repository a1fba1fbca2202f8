"""Where a recording really was: a GPX track or a table of positions, and how far from it the answers are."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from indexer.evaluation.intervals import wilson
from indexer.localizer.track.files import TrackRow
from indexer.localizer.track.recording import parse_number, parse_time, read_rows
from seqdata.errors import ContractError, MissingDependencyError
from seqdata.geometry import Float64Array, to_latlon, to_utm

NEAR = 25.0
"""Metres within which an answer counts as localized: the field's usual radius."""
_GAP_SECONDS = 10.0
_ENDS = 0.5  # seconds: a frame this much before the first position, or after the last, still has it


@dataclass(frozen=True)
class Truth:
    """Positions by the name of a frame, or by time.

    Attributes:
        file: Where they come from.
        latitude: (n,) degrees.
        longitude: (n,) degrees.
        time: (n,) seconds, rising; None where positions have names.
        rows: Row of each name.
    """

    file: Path
    latitude: Float64Array
    longitude: Float64Array
    time: Float64Array | None
    rows: dict[str, int] = field(default_factory=dict)

    def at(self, frame: str, time: float | None) -> tuple[float, float] | None:
        """Latitude and longitude of a frame, None where the truth does not know it."""
        if frame in self.rows:
            row = self.rows[frame]
            return float(self.latitude[row]), float(self.longitude[row])
        if self.time is None or time is None or not self.time[0] - _ENDS <= time <= self.time[-1] + _ENDS:
            return None
        after = int(np.clip(np.searchsorted(self.time, time), 1, len(self.time) - 1))
        if self.time[after] - self.time[after - 1] > _GAP_SECONDS:
            return None
        return (
            float(np.interp(time, self.time, self.latitude)),
            float(np.interp(time, self.time, self.longitude)),
        )


@dataclass
class Judgement:
    """Errors of a track's answers in metres, as they come: sixteen bytes an answer.

    Attributes:
        truth: What the answers are compared with.
        unknown: Answers whose frame the truth does not know.
    """

    truth: Truth
    errors: list[float] = field(default_factory=list)
    accepted: list[bool] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    unknown: int = 0

    def add(self, row: TrackRow) -> float | None:
        """Compare an answer; returns its error in metres, None where the truth does not know its frame."""
        if row.time is not None:
            self.times = [min([*self.times, row.time]), max([*self.times, row.time])]
        position = self.truth.at(row.frame, row.time)
        if position is None:
            self.unknown += 1
            return None
        # In the zone of the answer: an error between zones is then right too.
        easting, northing = to_utm([position[0]], [position[1]], row.zone)
        error = float(np.hypot(easting[0] - row.easting, northing[0] - row.northing))
        self.errors.append(error)
        self.accepted.append(row.accepted)
        return error

    def figures(self) -> dict[str, object]:
        """Percentiles of the error, the share localized and the precision at the threshold, with 95 % intervals.

        Raises:
            ContractError: When the truth knows no frame of the recording; both time ranges are named.
        """
        if not self.errors:
            ours = f"{self.times[0]:.1f} … {self.times[-1]:.1f} s" if self.times else "no times"
            theirs = "names of frames" if self.truth.time is None else (
                f"{self.truth.time[0]:.1f} … {self.truth.time[-1]:.1f} s"
            )  # fmt: skip
            raise ContractError(
                f"{self.truth.file}: knows no frame of the recording; it has {theirs}, the recording {ours}; name the "
                "truth of the same drive, or shift the recording's clock with --start"
            )
        errors, accepted = np.array(self.errors), np.array(self.accepted)
        near = errors <= NEAR
        right, count = int((near & accepted).sum()), int(accepted.sum())
        return {
            "answers": len(errors),
            "unknown_to_truth": self.unknown,
            "error_metres": _percentiles(errors),
            "error_metres_accepted": _percentiles(errors[accepted]) if count else None,
            "within_25m": _share(int(near.sum()), len(near)),
            "localized": _share(right, len(near)),
            "precision": _share(right, count) if count else None,
        }


def read_truth(path: Path) -> Truth:
    """Read a GPX track, or a CSV with `image` or `time`, and `latitude`, `longitude` or `easting`, `northing`, `zone`.

    Raises:
        InputError: When it is absent or cannot be read.
        ContractError: When a column is absent or no number.
        MissingDependencyError: For a GPX file where polars is not installed.
    """
    if path.suffix.lower() == ".gpx":
        try:
            from seqdata.sources.folder.gpx import read_track  # needs polars, which a robot may not have
        except ImportError as error:
            raise MissingDependencyError(f"{path}: reading a GPX track needs polars: pip install polars") from error
        track = read_track(path)
        return Truth(path, track.latitude, track.longitude, track.time / 1e6)
    rows = read_rows(path)
    latitude, longitude = _positions(path, rows)
    if rows[0].get("image") is not None:
        return Truth(path, latitude, longitude, None, {Path(row["image"]).name: at for at, row in enumerate(rows)})
    times = [parse_time(path, row.get("time")) for row in rows]
    if any(time is None for time in times) or len(rows) < 2:
        raise ContractError(f"{path}: columns image, or time (two rows at least), are needed")
    time = np.array(times, np.float64)
    order = np.argsort(time, kind="stable")
    return Truth(path, latitude[order], longitude[order], time[order])


def _positions(path: Path, rows: list[dict[str, str]]) -> tuple[Float64Array, Float64Array]:
    """Latitudes and longitudes (n,) of a table's rows."""
    if rows and {"latitude", "longitude"} <= rows[0].keys():
        columns = [np.array([parse_number(path, row, name) for row in rows]) for name in ("latitude", "longitude")]
        return columns[0], columns[1]
    if rows and {"easting", "northing", "zone"} <= rows[0].keys():
        metres = [np.array([parse_number(path, row, name) for row in rows]) for name in ("easting", "northing")]
        zones = {row["zone"] for row in rows}
        if len(zones) > 1:
            raise ContractError(f"{path}: column zone: {len(zones)} zones; give latitude and longitude")
        return to_latlon(metres[0], metres[1], zones.pop())
    raise ContractError(f"{path}: columns latitude and longitude (or easting, northing and zone) are needed")


def _percentiles(errors: Float64Array) -> dict[str, float]:
    return {f"p{share}": float(np.percentile(errors, share)) for share in (50, 75, 90, 95, 99)}


def _share(hits: int, count: int) -> dict[str, float]:
    low, high = wilson(hits / count, count)
    return {"share": hits / count, "low": low, "high": high}
