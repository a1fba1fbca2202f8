"""Recordings as a localizer takes them: frames of a video, a camera or a folder, with what is known of time and way."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.localizer.frame_form import Picture
from indexer.localizer.video import camera_frames, is_video, timed_frames
from seqdata.errors import ContractError, InputError, MissingDependencyError
from seqdata.geometry import Float64Array
from seqdata.sources.folder.name_stamps import read_stamps

if TYPE_CHECKING:
    from seqdata.sources.driving_order import Drive

POSITIONS = "positions.csv"
_IMAGES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class RecordedFrame:
    """One frame: its name, its picture, when it was taken (seconds), and the way driven so far (metres)."""

    name: str
    picture: Picture
    time: float | None = None
    odometry: float | None = None


@dataclass(frozen=True)
class Recording:
    """Frames in the order in which one camera took them.

    Attributes:
        name: What it is called.
        read: Yields the frames, one in memory at a time.
        order: What order and times come from, for messages.
        count: Number of frames; None where that is not known yet.
    """

    name: str
    read: Callable[[], Iterator[RecordedFrame]]
    order: str
    count: int | None = None


@dataclass(frozen=True)
class Odometry:
    """The way driven (n,) metres at times (n,) seconds, both rising."""

    time: Float64Array
    metres: Float64Array

    def at(self, time: float | None) -> float | None:
        """The way driven at a time, interpolated; None outside the record."""
        if time is None or not self.time[0] <= time <= self.time[-1]:
            return None
        return float(np.interp(time, self.time, self.metres))


def open_recording(path: Path, odometry: Odometry | None = None) -> list[Recording]:
    """Open a video or a folder of frames; a folder may hold several drives.

    A folder's images are read in the order of positions.csv in it (columns image, and time where there is one), else of
    the one number that counts in their names, else as `seqdata build` would order them (EXIF, MSLS's seq_info.csv,
    folders of drives), which needs polars. Names that are moments, as RobotCar's, ROS's and TUM's, give the times.

    Args:
        path: The video or the folder.
        odometry: The way driven over time, for `Localizer.push`.

    Raises:
        InputError: If nothing is there, or nothing says in which order a folder is read.
        ContractError: If positions.csv is bad.
        MissingDependencyError: If PyAV is absent (video), or polars (folders that need it).
    """
    if path.is_dir():
        recordings = _folder(path)
    elif not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    elif is_video(path):
        recordings = [Recording(path.name, lambda: _video(path), "times of the video")]
    else:
        raise InputError(f"{path}: not a video ({path.suffix or 'no suffix'}) and not a folder of frames")
    return recordings if odometry is None else [_with_odometry(recording, odometry) for recording in recordings]


def open_camera(address: str, seconds: float | None) -> Recording:
    """A live camera: a V4L2 number or device, or the address of a stream, for so many seconds or without end."""
    device = f"/dev/video{address}" if address.isdecimal() else address

    def read() -> Iterator[RecordedFrame]:
        for number, (time, pixels) in enumerate(camera_frames(device)):
            if seconds is not None and time > seconds:
                return
            yield RecordedFrame(f"{address}#{number}", pixels, time)

    return Recording(f"camera {address}", read, "times of the camera")


def read_odometry(path: Path) -> Odometry:
    """Read a CSV with columns `time` (seconds) and `metres` (way driven so far) or `speed` (metres a second).

    Raises:
        InputError: When it cannot be read.
        ContractError: When a column is absent, no number, or runs backward.
    """
    rows = read_rows(path)
    way = next((name for name in ("metres", "speed") if rows and name in rows[0]), None)
    if len(rows) < 2 or "time" not in rows[0] or way is None:
        raise ContractError(f"{path}: two rows at least with columns time and metres (or speed) are needed")
    time, values = (np.array([parse_number(path, row, name) for row in rows]) for name in ("time", way))
    metres = values if way == "metres" else np.concatenate([[0.0], np.cumsum(values[:-1] * np.diff(time))])
    if (np.diff(time) <= 0).any() or (np.diff(metres) < 0).any():
        raise ContractError(f"{path}: column time must rise, and {way} must not run backward")
    return Odometry(time, metres)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV with a header.

    Raises:
        InputError: When it is absent or cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not readable as CSV ({error})") from error


def parse_number(path: Path, row: dict[str, str], name: str) -> float:
    """A finite number of a row.

    Raises:
        ContractError: Naming file, column and value.
    """
    try:
        value = float(row.get(name) or "")
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ContractError(f"{path}: column {name}: {row.get(name)!r} is no number")
    return value


def parse_time(path: Path, text: str | None) -> float | None:
    """Seconds since 1970 of a number or of an ISO 8601 time, None of an empty text.

    Raises:
        ContractError: If it is neither.

    >>> parse_time(Path("a.csv"), "1970-01-01T00:01:00Z"), parse_time(Path("a.csv"), "60.5")
    (60.0, 60.5)
    """
    if text is None or not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text.strip().replace("Z", "+00:00")).timestamp()
    except ValueError as error:
        raise ContractError(f"{path}: column time: {text!r} is neither seconds nor an ISO 8601 time") from error


def _folder(folder: Path) -> list[Recording]:
    """The drives of a folder of images."""
    names = {path.name for path in folder.iterdir() if path.suffix.lower() in _IMAGES}
    if names and (folder / POSITIONS).is_file():
        return _listed(folder, names)
    if names and (times := _moments(folder / name for name in names)):
        return [_drive(folder.name, list(times.items()), "times in names")]
    forms = {re.sub(r"\d+", "#", Path(name).stem) for name in names}
    if len(forms) == 1 and forms.pop().count("#") == 1:
        ordered = sorted(names, key=lambda name: int(re.findall(r"\d+", Path(name).stem)[0]))
        frames = [(folder / name, None) for name in ordered]
        return [_drive(folder.name, frames, "numbers in names")]
    try:
        from seqdata.sources.driving_order import image_drives  # needs polars, which a robot may not have
    except ImportError as error:
        raise MissingDependencyError(
            f"{folder}: the order of its images is in no {POSITIONS} and in no number of their names; reading other "
            "layouts needs polars: pip install polars"
        ) from error
    return [_as_ordered(drive) for drive in image_drives(folder)]


def _as_ordered(drive: "Drive") -> Recording:
    """A drive in its order, with the times in its names where they rise so."""
    times = _moments(drive.images)
    if tuple(times) != drive.images:
        times = {}
    return _drive(drive.name, [(path, times.get(path)) for path in drive.images], drive.order)


def _listed(folder: Path, names: set[str]) -> list[Recording]:
    """The drives that positions.csv lists, each in the order of its rows, or of their times."""
    path = folder / POSITIONS
    drives: dict[str, list[tuple[Path, float | None]]] = {}
    for row in read_rows(path):
        if row.get("image") in names:
            entry = (folder / row["image"], parse_time(path, row.get("time")))
            drives.setdefault(row.get("drive") or folder.name, []).append(entry)
    if not drives:
        raise ContractError(f"{path}: column image lists none of the {len(names)} images beside it")
    for frames in drives.values():
        if all(time is not None for _, time in frames):
            frames.sort(key=lambda frame: frame[1] or 0.0)
    return [_drive(name, frames, POSITIONS) for name, frames in drives.items()]


def _drive(name: str, frames: Sequence[tuple[Path, float | None]], order: str) -> Recording:
    return Recording(name, lambda: _images(frames), order, len(frames))


def _moments(paths: Iterable[Path]) -> dict[Path, float]:
    """Seconds since 1970 of images whose names are moments, in order; empty where one is none, or another's too."""
    listed = list(paths)
    stamps = read_stamps([path.stem for path in listed])
    times = {
        path: time / 1e6
        for path, (time, is_numbered) in zip(listed, stamps, strict=True)
        if time is not None and not is_numbered
    }
    if len(times) < len(listed) or len(set(times.values())) < len(listed):
        return {}
    return dict(sorted(times.items(), key=lambda item: item[1]))


def _images(frames: Sequence[tuple[Path, float | None]]) -> Iterator[RecordedFrame]:
    for path, time in frames:
        yield RecordedFrame(path.name, path, time)


def _video(path: Path) -> Iterator[RecordedFrame]:
    for number, (time, pixels) in enumerate(timed_frames(path)):
        yield RecordedFrame(f"{path.name}#{number}", pixels, time)


def _with_odometry(recording: Recording, odometry: Odometry) -> Recording:
    def read() -> Iterator[RecordedFrame]:
        for frame in recording.read():
            yield RecordedFrame(frame.name, frame.picture, frame.time, odometry.at(frame.time))

    return Recording(recording.name, read, recording.order, recording.count)
