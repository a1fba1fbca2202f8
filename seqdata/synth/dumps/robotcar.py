"""A synthetic RobotCar dump: laps of one route as raw Bayer PNGs, timestamps, and rtk, ins and gps logs."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from seqdata.frames.images import Pixels
from seqdata.geometry import BoolArray, FloatArray, IntArray
from seqdata.parallel import Progress
from seqdata.synth.camera.camera import pinhole
from seqdata.synth.camera.lens import develop, shrink
from seqdata.synth.camera.render import render
from seqdata.synth.camera.stage import Stage, View, set_stage
from seqdata.synth.drives.along import Course, course_of, made_track
from seqdata.synth.drives.drives import parked
from seqdata.synth.dumps.drive_protocols import PROTOCOL, robotcar_protocol
from seqdata.synth.dumps.new_folder import new_folder
from seqdata.synth.dumps.robotcar_drive import Lap, frame_times, log_table
from seqdata.synth.settings import check_bounds, generator
from seqdata.synth.tracks import Track
from seqdata.synth.visits import VISITS
from seqdata.synth.world.scene import build_scene

Camera = Literal["stereo_left", "stereo_centre", "stereo_right", "mono_left", "mono_right", "mono_rear"]

OXFORD = (51.7606, -1.2613)
FRAME_RATES = {"stereo": 16.0, "mono": 11.1}
_PATTERNS = {"stereo": ((1, 2), (0, 1)), "mono": ((0, 1), (1, 2))}
"""Channel (0 is red) of the four pixels of a 2×2 cell: GBRG and RGGB."""
_RIGS = {"mono_left": -90.0, "mono_right": 90.0, "mono_rear": 180.0}
"""Degrees by which a camera looks away from the driving direction."""
_FIELD, _ABOVE = 75.0, 1.6
_LAP = re.compile(r"\d{4}(?:-\d\d){5}")


@dataclass(frozen=True)
class RobotcarSettings:
    """Sizes of the dump: `laps` are (name, visit of `visits.VISITS`), each driving the whole route.

    `seconds` and `speed` (m/s) make the route where no track is given; halfway every lap stands still for `stop`
    seconds, and its receivers lose their fix for `dropout` seconds. `absent` is the share of listed frames without a
    picture, `chunk` the frames of one chunk, `layout` folders or the tars as downloaded (rtk.csv stays a file: it is a
    download of its own). Pictures are `width` × `height`, rendered `supersample` times finer.
    """

    laps: tuple[tuple[str, str], ...] = (("2014-11-18-13-20-12", "autumn"), ("2014-12-16-18-44-24", "night"))
    camera: Camera = "stereo_left"
    seconds: int = 30
    speed: float = 8.0
    stop: float = 3.0
    dropout: float = 1.5
    absent: float = 0.02
    chunk: int = 200
    layout: Literal["folder", "tar"] = "folder"
    width: int = 160
    height: int = 120
    supersample: int = 1

    def __post_init__(self) -> None:
        """Reject sizes that nothing can be drawn or driven at. Raises: ValueError with the field and its value."""
        bounds = {"seconds": (10, 100_000), "speed": (1, 60), "stop": (0, 1000), "dropout": (0, 1000), "absent": (0, 1)}
        bounds |= {"chunk": (1, 100_000), "width": (16, 4096), "height": (16, 4096), "supersample": (1, 8)}
        check_bounds(self, bounds)
        if self.width % 2 or self.height % 2:
            raise ValueError(f"width and height are {self.width}×{self.height}; a Bayer picture has even sides")
        for name, visit in self.laps:
            if not _LAP.fullmatch(name) or visit not in VISITS:
                raise ValueError(f"lap {name}, {visit}: a name yyyy-mm-dd-hh-mm-ss and a visit ({', '.join(VISITS)})")
        if not self.laps or len({name for name, _ in self.laps}) != len(self.laps):
            raise ValueError("laps is empty, or names one twice")

    @property
    def frame_rate(self) -> float:
        """Frames a second of the camera."""
        return FRAME_RATES[self.camera.split("_")[0]]


@dataclass(frozen=True)
class RobotcarSummary:
    """What `write_robotcar` wrote: pictures, frames listed without one, metres of the route, and the protocol."""

    root: Path
    frames: int
    absent: int
    metres: float
    protocol: Path


def write_robotcar(
    out: Path,
    *,
    settings: RobotcarSettings | None = None,
    track: Track | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> RobotcarSummary:
    """Write laps of one route as a raw RobotCar dump, and its protocol; the same bytes for one seed.

    Args:
        out: The new folder; all is written beside it and renamed at the end.
        settings: Laps and sizes; None for the demo's.
        track: Every lap follows it at nearly its own times (from the lap's name on); None for a route
            made up in Oxford.
        seed: Seed of everything that is drawn.
        progress: Called with pictures written and pictures in all.

    Returns:
        Counts of what was written.

    Raises:
        OutputError: If `out` exists and is not empty, or cannot be written.
        NotEnoughDataError: If the track is too short.
    """
    settings, out = settings or RobotcarSettings(), Path(out)
    with new_folder(out) as partial:
        latitude, longitude = OXFORD
        track = track or made_track(
            settings.seconds, speed=settings.speed, latitude=latitude, longitude=longitude, seed=seed, name="robotcar"
        )
        course = course_of(track, "oxford", seed)
        laps = [_lap(name, visit, track, course, settings, seed) for name, visit in settings.laps]
        times = {lap.name: frame_times(lap, settings.frame_rate) for lap in laps}
        has_picture = {lap.name: _has_picture(lap, times[lap.name], settings) for lap in laps}
        for lap in laps:
            _write_tables(partial / lap.name, lap, times[lap.name], settings)
        names = [lap.name for lap in laps]
        (partial / PROTOCOL).write_text(robotcar_protocol(names, course.length), encoding="utf-8")
        _write_images(partial, laps, times, has_picture, settings, progress)
        if settings.layout == "tar":
            for lap in laps:
                _pack(partial, lap.name, times[lap.name], settings)
    frames = sum(int(one.sum()) for one in has_picture.values())
    absent = sum(len(one) for one in times.values()) - frames
    return RobotcarSummary(out, frames, absent, course.length, out / PROTOCOL)


def _lap(name: str, visit: str, track: Track, course: Course, settings: RobotcarSettings, seed: int) -> Lap:
    """A lap with its own pace and lane, drawn from the seed and its name."""
    rng = generator(seed, name, "lap")
    pace, lateral = float(rng.uniform(0.9, 1.1)), VISITS[visit].lane + float(rng.normal(0, 0.3))
    return Lap(name, visit, track, course, pace, lateral, settings.stop, seed)


def _has_picture(lap: Lap, time: IntArray, settings: RobotcarSettings) -> BoolArray:
    """Which listed frames have a picture."""
    return np.asarray(generator(lap.seed, lap.name, "absent").random(len(time)) >= settings.absent)


def _write_tables(folder: Path, lap: Lap, time: IntArray, settings: RobotcarSettings) -> None:
    """The timestamps file and the three logs of one lap."""
    (folder / "gps").mkdir(parents=True)
    lines = (f"{stamp} {i // settings.chunk + 1}\n" for i, stamp in enumerate(time))
    (folder / _timestamps(settings.camera)).write_text("".join(lines), encoding="utf-8")
    for source, name in (("rtk", "rtk.csv"), ("ins", "gps/ins.csv"), ("gps", "gps/gps.csv")):
        log_table(lap, source, settings.dropout).write_csv(folder / name)


def _timestamps(camera: str) -> str:
    """Name of the timestamps file; the three stereo cameras share one."""
    return f"{'stereo' if camera.startswith('stereo') else camera}.timestamps"


def _pictures(camera: str) -> str:
    """Folder of a camera's pictures, as in the downloads."""
    return camera.replace("stereo_", "stereo/")


def _write_images(
    out: Path,
    laps: list[Lap],
    times: dict[str, IntArray],
    has_picture: dict[str, BoolArray],
    settings: RobotcarSettings,
    progress: Progress | None,
) -> None:
    total = sum(int(one.sum()) for one in has_picture.values())
    for lap in laps:
        (out / lap.name / _pictures(settings.camera)).mkdir(parents=True)
    for written, (lap, stamp, data) in enumerate(_images(laps, times, has_picture, settings), start=1):
        (out / lap.name / _pictures(settings.camera) / f"{stamp}.png").write_bytes(data)
        if progress:
            progress(written, total)


def _images(
    laps: list[Lap], times: dict[str, IntArray], has_picture: dict[str, BoolArray], settings: RobotcarSettings
) -> Iterator[tuple[Lap, int, bytes]]:
    """(lap, timestamp, PNG bytes); a street is built once and dressed once a lap."""
    poses = {lap.name: lap.pose((times[lap.name] - lap.start) / 1e6) for lap in laps}
    for k, street in enumerate(laps[0].course.streets):
        scene = build_scene(street, laps[0].seed)
        for lap in laps:
            number, position, heading = poses[lap.name]
            here = np.flatnonzero((number == k) & has_picture[lap.name])
            if not len(here):
                continue
            stage = set_stage(scene, VISITS[lap.visit], parked(street, VISITS[lap.visit], lap.seed))
            for i in here:
                stamp = int(times[lap.name][i])
                photo = _photograph(stage, position[i], float(heading[i]), stamp, settings)
                yield lap, stamp, _png(mosaic(photo, settings.camera))


def _photograph(stage: Stage, position: FloatArray, heading: float, stamp: int, settings: RobotcarSettings) -> Pixels:
    """RGB pixels (H, W, 3) of one frame, before the sensor's mosaic."""
    size = settings.supersample
    camera = pinhole(settings.width * size, settings.height * size, _FIELD, 0.0, _ABOVE)
    # The stereo cameras look ahead.
    aim = heading + _RIGS.get(settings.camera, 0.0)
    picture = render(View(stage, camera, position, aim, np.zeros((0, 5))))
    return develop(shrink(picture, size), stage.visit, 1.0, generator(stage.scene.seed, str(stamp), "lens"))


def mosaic(photo: Pixels, camera: str) -> Pixels:
    """Sample an RGB picture (H, W, 3) as the sensor of `camera` does: one colour for each pixel, (H, W) uint8."""
    raw = np.empty(photo.shape[:2], np.uint8)
    for y, row in enumerate(_PATTERNS[camera.split("_")[0]]):
        for x, channel in enumerate(row):
            raw[y::2, x::2] = photo[y::2, x::2, channel]
    return raw


def _png(pixels: Pixels) -> bytes:
    """A PNG file of pixels (H, W); level 1, because noise does not compress and time does matter."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _pack(out: Path, lap: str, time: IntArray, settings: RobotcarSettings) -> None:
    """Move one lap's pictures and logs into tars named as the downloads are; every chunk holds the timestamps file."""
    listed = f"{lap}/{_timestamps(settings.camera)}"
    folder = f"{lap}/{_pictures(settings.camera)}"
    for chunk, start in enumerate(range(0, len(time), settings.chunk), start=1):
        stamps = time[start : start + settings.chunk]
        names = [name for name in (f"{folder}/{stamp}.png" for stamp in stamps) if (out / name).is_file()]
        _tar(out, f"{lap}_{settings.camera}_{chunk:02d}.tar", [listed, *names])
    _tar(out, f"{lap}_gps.tar", [f"{lap}/gps/gps.csv", f"{lap}/gps/ins.csv"])
    # What was packed goes, as in a download: the reader must find the timestamps inside a chunk.
    (out / listed).unlink()
    shutil.rmtree(out / lap / _pictures(settings.camera).split("/")[0])
    shutil.rmtree(out / lap / "gps")


def _tar(out: Path, name: str, members: list[str]) -> None:
    """Write files below `out` into a tar, with times and owners left at 0: the same bytes for one seed."""
    with tarfile.open(out / name, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member in members:
            data = (out / member).read_bytes()
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
