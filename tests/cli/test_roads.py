"""The roads of the README, walked from an empty folder over every kind of dump: build, train, index, …, pack.

Each command is typed as the documents write it. It ends in a result, or in one line whose advice, typed, does.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from seqdata.synth import NordlandSettings, RobotcarSettings, write_nordland, write_robotcar
from tests.cli.test_commands import here
from tests.conftest import write_drives
from tests.seqdata.sources.test_exif import clock, photo
from tests.seqdata.sources.test_folder_photos import placed_photo
from tests.seqdata.sources.test_gpx import gpx, point

MODEL = ("--model", "seqvlad-small", "--random-init", "--epochs", "0", "--option", "clusters=4")
OK = (0, 6)  # 6: built, but some inputs are in quarantine
LAPS = RobotcarSettings(seconds=24, width=64, height=48, dropout=0, absent=0)
TRAIN_LAPS = (("2014-12-16-09-14-09", "autumn"), ("2014-12-17-18-18-43", "night"))
SEASONS = NordlandSettings(seconds=60)


def msls(raw: Path, dump: Path) -> None:
    shutil.copytree(dump, raw)


def robotcar(raw: Path, _: Path) -> None:
    write_robotcar(raw, settings=LAPS, seed=1)


def robotcar_tars(raw: Path, _: Path) -> None:
    write_robotcar(raw, settings=RobotcarSettings(**{**vars(LAPS), "layout": "tar"}), seed=1)


def robotcar_training_laps(raw: Path, _: Path) -> None:
    write_robotcar(raw, settings=RobotcarSettings(**{**vars(LAPS), "laps": TRAIN_LAPS}), seed=1)


def robotcar_one_lap(raw: Path, _: Path) -> None:
    write_robotcar(raw, settings=RobotcarSettings(**{**vars(LAPS), "laps": LAPS.laps[:1]}), seed=1)


def nordland(raw: Path, _: Path) -> None:
    write_nordland(raw, settings=SEASONS, seed=1)


def nordland_zips(raw: Path, _: Path) -> None:
    write_nordland(raw, settings=NordlandSettings(**{**vars(SEASONS), "layout": "zip"}), seed=1)


def nordland_one_season(raw: Path, _: Path) -> None:
    nordland(raw, _)
    for season in ("winter", "spring", "fall"):
        shutil.rmtree(raw / season)


def csv(raw: Path, _: Path) -> None:
    write_drives(raw, {"map": 24, "query": 20})


def csv_without_queries(raw: Path, _: Path) -> None:
    write_drives(raw, {"map": 24})


def exif(raw: Path, _: Path) -> None:
    for drive in ("map", "query"):
        (raw / drive).mkdir(parents=True)
        for number in range(20):
            (raw / drive / f"{number}.jpg").write_bytes(placed_photo(50 + number * 3e-5, 5.5))


def track(raw: Path, _: Path) -> None:
    """Photos of two drives, a second apart, along one GPX track."""
    for drive, minute in (("map", 0), ("query", 10)):
        (raw / drive).mkdir(parents=True)
        for number in range(20):
            taken = clock(f"2024:01:31 10:{minute:02d}:{number:02d}")
            (raw / drive / f"{number}.jpg").write_bytes(photo([], taken))
    points = [point(second, 50 + second % 600 * 3e-5, 5.5) for second in (*range(20), *range(600, 620))]
    (raw / "drive.gpx").write_text(gpx(points[:20], points[20:]))


@dataclass(frozen=True)
class Road:
    """A dump, the kind as the README names it, the options of its build, and pictures to search with."""

    write: Callable[[Path, Path], None]
    kind: str
    build: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    pictures: str = "raw/query*.jpg"
    lines: dict[str, str] = field(default_factory=dict)
    """Commands that end in a line, with a pattern of that line; `advice` in it is typed next."""


ROADS = {
    "msls": Road(msls, "msls", pictures="raw/train_val/southport/query/images/*.jpg"),
    "robotcar": Road(robotcar, "robotcar", ("--pose", "rtk"), pictures="raw/2014-12*/stereo/left/*.png"),
    "robotcar-tars": Road(robotcar_tars, "robotcar", pictures="datasets"),
    "nordland": Road(nordland, "nordland", pictures="raw/fall/*"),
    "nordland-zips": Road(nordland_zips, "nordland", pictures="datasets"),
    "csv": Road(csv, "folder"),
    "csv-cut": Road(csv, "folder", ("--cut", "0.6", "--buffer", "10")),
    "exif": Road(exif, "folder", ("--roles", "database:map,query:query"), pictures="raw/query/*.jpg"),
    "gpx": Road(track, "folder", ("--roles", "database:map,query:query"), pictures="raw/query/*.jpg"),
}


@pytest.fixture
def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Type a command in the work folder; it must end in a result. Returns its stderr and stdout."""

    def typed(*arguments: str, codes: tuple[int, ...] = OK) -> str:
        ended = here(tmp_path, *arguments)
        text = ended.stderr + ended.stdout
        assert ended.returncode in codes, f"seqdata {' '.join(arguments)}\n{text}"
        assert "Traceback" not in text
        return text

    return typed


@pytest.mark.parametrize("name", ROADS)
def test_a_dump_becomes_a_report(name: str, walk: Callable[..., str], tmp_path: Path, msls_dump: Path) -> None:
    road = ROADS[name]
    road.write(tmp_path / "raw", msls_dump)
    if not road.build:
        assert road.kind in walk("build", "auto", "raw", *road.build, "--dry-run")
    walk("build", road.kind, "raw", *road.build)
    walk("train", *MODEL)
    walk("index", "--pca", "8")
    walk("eval")
    walk("baseline")
    pictures = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.glob(road.pictures)) if path.is_file()]
    if pictures:
        walk("search", *pictures[:5], "-k", "3")
    walk("report")
    walk("pack")
    assert list(tmp_path.glob("reports/*.html"))
