"""A synthetic Nordland dump: seasons of PNG frames that show the same places, dirty GPS logs, a clean list.

Convention: frame N is the same place in every season, N − 163 seconds after the summer log's first row; earlier frames
stand at the start. Every journey holds one stop and one tunnel, which the clean list leaves out.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from seqdata.geometry import BoolArray, Float64Array, IntArray
from seqdata.parallel import Progress
from seqdata.synth.camera.camera import pinhole
from seqdata.synth.camera.lens import develop, shrink
from seqdata.synth.camera.render import render
from seqdata.synth.camera.stage import Stage, View, set_stage
from seqdata.synth.drives.along import Course, course_of, made_track
from seqdata.synth.dumps.drive_protocols import PROTOCOL, nordland_protocol
from seqdata.synth.dumps.new_folder import new_folder
from seqdata.synth.dumps.nordland_log import log_bytes
from seqdata.synth.settings import check_bounds, generator
from seqdata.synth.tracks import Track
from seqdata.synth.visits import VISITS
from seqdata.synth.world.scene import build_scene

Layout = Literal["folder", "zip", "sections"]
SEASONS = {"spring": "spring", "summer": "summer", "fall": "autumn", "winter": "winter"}
"""Which visit of `visits.VISITS` each season looks like."""
FIRST_LOGGED_FRAME = 163
FIRST_FRAME = 161
STOP = 8
"""Seconds of the stop."""
TUNNEL = (0.35, 0.45)
"""Where the tunnel lies, as shares of the driven length."""
TRAIN_SHARE = 0.7
PLACE = (63.4367, 10.4007)
_SCREEN = {"field": 70.0, "pitch": 0.0, "above": 3.0}
# The earliest date that a zip can hold, so that one seed gives the same bytes on any day.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class NordlandSettings:
    """Sizes of the dump: `seconds` of the journey, a frame every `every` of them, `width` and `height` in pixels.

    `layout` is season folders, season zips, or the sections `<season>_images_{train,test}`; `speed` is metres a second
    where no track is given; pictures are rendered `supersample` times finer; `dirt` is the share of damaged log rows.
    """

    seconds: int = 240
    every: int = 1
    width: int = 64
    height: int = 32
    layout: Layout = "folder"
    speed: float = 25.0
    supersample: int = 1
    dirt: float = 0.02

    def __post_init__(self) -> None:
        """Reject sizes that nothing can be drawn or logged at. Raises: ValueError with the field and its value."""
        bounds = {"seconds": (20, 60_000), "every": (1, 1000), "width": (16, 4096), "height": (16, 4096)}
        check_bounds(self, {**bounds, "supersample": (1, 8), "dirt": (0, 0.2), "speed": (1, 60)})


@dataclass(frozen=True)
class NordlandSummary:
    """What `write_nordland` wrote: frames of all seasons, those of one that the clean list names, metres, protocol."""

    root: Path
    frames: int
    clean: int
    metres: float
    protocol: Path


@dataclass(frozen=True, eq=False)
class _Journey:
    """Frames of a journey, (n,) each: number, metres of the course, dark (in the tunnel), clean."""

    course: Course
    number: IntArray
    metres: Float64Array
    dark: BoolArray
    clean: BoolArray


def write_nordland(
    out: Path,
    *,
    settings: NordlandSettings | None = None,
    track: Track | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> NordlandSummary:
    """Write four seasons, four logs, the clean list and a protocol as a raw Nordland dump; the same bytes for one seed.

    Args:
        out: The new folder; all is written beside it and renamed at the end.
        settings: Sizes of the dump; None for the demo's.
        track: Frames follow it second by second, as far as it and `settings.seconds` reach; None for a made-up line.
        seed: Seed of everything that is drawn.
        progress: Called with frames written and frames in all.

    Returns:
        Counts of what was written.

    Raises:
        OutputError: If `out` exists and is not empty, or cannot be written.
        NotEnoughDataError: If the track is too short.
    """
    settings, out = settings or NordlandSettings(), Path(out)
    with new_folder(out) as partial:
        track = track or made_track(
            settings.seconds, speed=settings.speed, latitude=PLACE[0], longitude=PLACE[1], seed=seed, name="nordland"
        )
        timed = _second_by_second(track, settings.seconds)
        journey = _plan(timed, settings, seed)
        _write_logs(partial, timed, journey, settings, seed)
        (partial / PROTOCOL).write_text(nordland_protocol(int(journey.clean.sum())), encoding="utf-8")
        _write_images(partial, journey, settings, seed, progress)
    frames = len(SEASONS) * len(journey.number)
    metres = float(journey.metres[-1] - journey.metres[0])
    return NordlandSummary(out, frames, int(journey.clean.sum()), metres, out / PROTOCOL)


def _second_by_second(track: Track, seconds: int) -> Track:
    """The track at every second from its first fix, with a stop of `STOP` seconds at three quarters."""
    whole = np.arange(max(2, min(seconds, int(track.time[-1] - track.time[0]) + 1)))
    # Far behind the tunnel, so that the clean list has two gaps.
    stop = len(whole) * 3 // 4
    seconds_with_stop = np.concatenate([whole[:stop], np.full(STOP, stop), whole[stop:]])[: max(2, seconds)]
    east, north = (
        np.interp(track.time[0] + seconds_with_stop, track.time, axis) for axis in (track.easting, track.northing)
    )
    return Track(np.arange(len(seconds_with_stop), dtype=np.float64), east, north, track.zone)


def _plan(timed: Track, settings: NordlandSettings, seed: int) -> _Journey:
    """Which frames there are and where: frame N is second N − 163 of the track, and the first one before that."""
    course = course_of(timed, "nordland", seed)
    number = np.arange(FIRST_FRAME, FIRST_LOGGED_FRAME + len(timed))[:: settings.every]
    second = np.maximum(number - FIRST_LOGGED_FRAME, 0)
    share = course.metres / course.length
    dark = (share >= TUNNEL[0]) & (share < TUNNEL[1])
    moving = np.diff(course.metres, prepend=course.metres[0]) > 0.5
    return _Journey(course, number, course.metres[second], dark[second], (moving & ~dark)[second])


def _write_logs(out: Path, timed: Track, journey: _Journey, settings: NordlandSettings, seed: int) -> None:
    """The four logs, and the clean list."""
    for season in SEASONS:
        (out / f"{season}.csv").write_bytes(log_bytes(timed, season, settings.dirt, seed))
    names = (f"images-{number:05d}.png\n" for number in journey.number[journey.clean])
    (out / "clean_frames.txt").write_text("".join(names), encoding="utf-8")


def _write_images(
    out: Path,
    journey: _Journey,
    settings: NordlandSettings,
    seed: int,
    progress: Progress | None,
) -> None:
    """Every frame of every season, to its folder or zip."""
    split = int(np.ceil(TRAIN_SHARE * len(journey.number)))
    total = len(SEASONS) * len(journey.number)
    with ExitStack() as opened:
        zips = {
            season: opened.enter_context(zipfile.ZipFile(out / f"{season}.zip", "w"))
            for season in (SEASONS if settings.layout == "zip" else ())
        }
        for written, (season, i, data) in enumerate(_images(journey, settings, seed), start=1):
            number = int(journey.number[i])
            if settings.layout == "zip":
                zips[season].writestr(zipfile.ZipInfo(f"{season}/images-{number:05d}.png", _ZIP_DATE), data)
            elif settings.layout == "sections":
                _write(out / f"{season}_images_{'train' if i < split else 'test'}" / f"{number}.png", data)
            else:
                _write(out / season / f"images-{number:05d}.png", data)
            if progress:
                progress(written, total)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def _images(journey: _Journey, settings: NordlandSettings, seed: int) -> Iterator[tuple[str, int, bytes]]:
    """(season, frame index, PNG bytes); a street is built once and dressed once a season."""
    street, position, heading = journey.course.place(journey.metres, np.zeros(len(journey.metres)))
    for k in np.unique(street):
        scene = build_scene(journey.course.streets[k], seed)
        for season, visit in SEASONS.items():
            stage = set_stage(scene, VISITS[visit], np.zeros((0, 5)))
            for i in np.flatnonzero(street == k):
                rng = generator(seed, season, int(journey.number[i]), "lens")
                # Dark but not black: pictures of a tunnel decode, and look alike wherever they were taken.
                light = 0.04 if journey.dark[i] else 1.0
                yield season, int(i), _photograph(stage, position[i], float(heading[i]), light, settings, rng)


def _photograph(
    stage: Stage,
    position: Float64Array,
    heading: float,
    light: float,
    settings: NordlandSettings,
    rng: np.random.Generator,
) -> bytes:
    """The PNG of one frame; the camera is the same in every season."""
    size = settings.supersample
    camera = pinhole(settings.width * size, settings.height * size, **_SCREEN)
    picture = render(View(stage, camera, position, heading, np.zeros((0, 5)))) * np.float32(light)
    photo = develop(shrink(picture, size), stage.visit, 1.0, rng)
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG")
    return file.getvalue()
