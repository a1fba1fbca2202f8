"""The roads of the README, walked from an empty folder over every kind of dump: build, train, index, …, pack.

Each command is typed as the documents write it. It ends in a result, or in one line whose advice, typed, does.
"""

import io
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from seqdata.synth import NordlandSettings, RobotcarSettings, write_nordland, write_robotcar
from tests.cli.test_commands import here
from tests.conftest import jpeg, write_drives
from tests.seqdata.sources.folder.test_exif import clock, photo
from tests.seqdata.sources.folder.test_gpx import gpx, point
from tests.seqdata.sources.folder.test_photos import placed_photo

REAL_NORDLAND = Path(__file__).resolve().parents[3] / "shared" / "data" / "nordland"
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


def write_photo(path: Path, tags: bytes, seed: int) -> None:
    """A picture of its own with the EXIF tags of the photo `tags`."""
    with Image.open(io.BytesIO(tags)) as tagged, Image.open(io.BytesIO(jpeg(seed))) as picture:
        picture.save(path, exif=tagged.info["exif"])


def exif(raw: Path, _: Path) -> None:
    for drive in ("map", "query"):
        (raw / drive).mkdir(parents=True)
        for number in range(20):
            write_photo(raw / drive / f"{number}.jpg", placed_photo(50 + number * 3e-5, 5.5), number)


def track(raw: Path, _: Path) -> None:
    """Photos of two drives, a second apart, along one GPX track."""
    for drive, minute in (("map", 0), ("query", 10)):
        (raw / drive).mkdir(parents=True)
        for number in range(20):
            taken = clock(f"2024:01:31 10:{minute:02d}:{number:02d}")
            write_photo(raw / drive / f"{number}.jpg", photo([], taken), number)
    points = [point(second, 50 + second % 600 * 3e-5, 5.5) for second in (*range(20), *range(600, 620))]
    (raw / "drive.gpx").write_text(gpx(points[:20], points[20:]))


@dataclass(frozen=True)
class Road:
    """A dump, the kind as the README names it, the options of its build and index, and pictures to search with."""

    write: Callable[[Path, Path], None]
    kind: str
    build: tuple[str, ...] = ()
    index: tuple[str, ...] = ()
    pictures: str = "raw/query*.jpg"


ROLES = ("--roles", "database:map,query:query")
TRAIN_SEASONS = ("--split", "train")
"""The splits of Nordland are hours apart: a minute of synthetic journey lies in the first, which trains."""
ROADS = {
    "msls": Road(
        msls, "msls", ("--protocol", "raw/protocol.toml"), pictures="raw/train_val/southport/query/images/*.jpg"
    ),
    "robotcar": Road(robotcar, "robotcar", ("--pose", "rtk"), pictures="raw/2014-12*/stereo/left/*.png"),
    "robotcar-tars": Road(robotcar_tars, "robotcar"),
    "nordland": Road(nordland, "nordland", index=TRAIN_SEASONS, pictures="raw/winter/*.png"),
    "nordland-zips": Road(nordland_zips, "nordland", index=TRAIN_SEASONS),
    "csv": Road(csv, "folder"),
    "csv-cut": Road(csv, "folder", ("--cut", "0.6", "--buffer", "5")),
    "exif": Road(exif, "folder", ROLES, pictures="raw/query/*.jpg"),
    "gpx": Road(track, "folder", ROLES, pictures="raw/query/*.jpg"),
}


@pytest.fixture
def walk(tmp_path: Path) -> Callable[..., str]:
    """Type a command in the work folder, which is to end with one of `codes`; returns what it printed."""

    def typed(*arguments: str, codes: tuple[int, ...] = OK) -> str:
        ended = here(tmp_path, *arguments)
        text = ended.stderr + ended.stdout
        assert ended.returncode in codes, f"seqdata {' '.join(arguments)}\n{text}"
        assert "Traceback" not in text
        return text

    return typed


def flags_of(line: str, start: str) -> list[str]:
    """The flags with their values that a line advises, from the word `start` on."""
    match = re.search(r"(--[a-z-]+) ([\w./-]+)", line[line.index(start) :])
    assert match, line
    return list(match.groups())


def rest_of_the_road(walk: Callable[..., str], tmp_path: Path, road: Road) -> None:
    walk("index", "--pca", "4", *road.index)
    walk("eval")
    walk("baseline", *road.index)
    pictures = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.glob(road.pictures))]
    if pictures:
        walk("search", *pictures[:5], "-k", "3")
    walk("report")
    walk("pack")
    assert list(tmp_path.glob("reports/*.html"))


@pytest.mark.parametrize("name", ROADS)
def test_a_dump_becomes_a_report(name: str, walk: Callable[..., str], tmp_path: Path, msls_dump: Path) -> None:
    road = ROADS[name]
    road.write(tmp_path / "raw", msls_dump)
    assert road.kind in walk("build", "auto", "raw", *road.build, "--dry-run")
    walk("build", road.kind, "raw", *road.build)
    walk("train", *MODEL)
    rest_of_the_road(walk, tmp_path, road)


def test_training_laps_alone_are_indexed_by_the_split_that_the_line_names(
    walk: Callable[..., str], tmp_path: Path, msls_dump: Path
) -> None:
    robotcar_training_laps(tmp_path / "raw", msls_dump)
    walk("build", "robotcar", "raw", "--pose", "rtk")
    walk("train", *MODEL)
    line = walk("index", "--pca", "4", codes=(8,))
    advised = flags_of(line, "give")
    assert advised == ["--split", "train"]
    rest_of_the_road(walk, tmp_path, Road(robotcar_training_laps, "robotcar", index=tuple(advised)))


@pytest.mark.parametrize("write", [robotcar_one_lap, nordland_one_season])
def test_one_drive_alone_ends_in_a_line(
    write: Callable[[Path, Path], None], walk: Callable[..., str], tmp_path: Path, msls_dump: Path
) -> None:
    """A database without queries, or the other way round: built and said, then refused in one line."""
    write(tmp_path / "raw", msls_dump)
    built = walk("build", "auto", "raw")
    assert "no split serves: test lacks" in built
    assert "add the drives that the protocol names: seqdata protocols show" in built or "this command gives" in built
    assert len(walk("train", *MODEL, codes=(0, 8)).splitlines()) <= 4


def test_own_drives_without_queries(walk: Callable[..., str], tmp_path: Path, msls_dump: Path) -> None:
    """An index of a map needs no query; what needs one says so."""
    csv_without_queries(tmp_path / "raw", msls_dump)
    built = walk("build", "folder", "raw")
    assert "no split serves: test lacks query windows" in built
    assert "add images of a second drive over the same ground" in built
    walk("train", *MODEL)
    walk("index", "--pca", "4")
    walk("search", *[f"raw/map-{number:03d}.jpg" for number in range(5)], "-k", "3")
    line = walk("eval", codes=(3, 4, 8))
    assert "query" in line


def advised(text: str) -> list[str]:
    """The words of the command that a text advises, as a shell reads them."""
    line = next(line for line in text.splitlines() if "seqdata build " in line)
    return shlex.split(line[line.index("seqdata build ") + len("seqdata ") :])


def without_roles(raw: Path, lengths: dict[str, int]) -> None:
    """Drives over one street, without roles in their table."""
    write_drives(raw, lengths)
    table = pl.read_csv(raw / "positions.csv")
    table.drop("role").write_csv(raw / "positions.csv")


def test_own_drives_without_roles_end_in_a_command_that_works(walk: Callable[..., str], tmp_path: Path) -> None:
    without_roles(tmp_path / "raw", {"mon day": 40, "query": 30})
    built = walk("build", "folder", "raw")
    assert "this command gives 36 database and 26 query windows in test:" in built
    again = walk(*advised(built))
    assert "test: 36 database and 26 query windows" in again
    assert "no split serves" not in again
    assert (tmp_path / "datasets" / "raw" / "manifest.json").is_file()  # named after the folder


def test_a_cut_of_short_drives_ends_in_a_command_that_trains(walk: Callable[..., str], tmp_path: Path) -> None:
    without_roles(tmp_path / "raw", {"map": 40, "query": 30})
    built = walk("build", "folder", "raw", "--cut", "0.6")
    assert "no split serves: test lacks database and query windows, train lacks" in built
    words = advised(built)
    assert "train: 0" not in walk(*words)
    walk("train", *MODEL[:-4], "--epochs", "0", words[words.index("--out") + 1])


def test_a_cut_that_leaves_nothing_ends_in_a_command(walk: Callable[..., str], tmp_path: Path) -> None:
    write_drives(tmp_path / "raw", {"map": 24, "query": 20})
    line = walk("build", "folder", "raw", "--cut", "0.6", "--buffer", "50", codes=(4,))
    assert len(line.splitlines()) == 1
    assert "leaves no frame to train" in line
    assert "train: 0" not in walk(*advised(line))


def test_a_dataset_without_a_part_to_train_says_how_to_get_one(walk: Callable[..., str], tmp_path: Path) -> None:
    write_drives(tmp_path / "raw", {"map": 40, "query": 30})
    walk("init", "--raw", "raw", "--out", ".")
    walk("build", "folder")
    line = walk("train", *MODEL[:-4], "--epochs", "1", codes=(8,))
    assert "nothing to train on under protocol own (no split train; 36 database and 26 query windows in test)" in line
    assert "train: 0" not in walk(*advised(line))


def test_one_own_drive_is_told_what_is_missing_and_becomes_an_index(walk: Callable[..., str], tmp_path: Path) -> None:
    without_roles(tmp_path / "raw", {"map": 24})
    built = walk("build", "folder", "raw")
    assert "add images of a second drive over the same ground" in built
    again = walk(*advised(built))
    assert "test: 20 database and 0 query windows" in again


@pytest.mark.real
def test_nordland_at_every_tenth_second_names_its_protocol(walk: Callable[..., str]) -> None:
    if not REAL_NORDLAND.is_dir():
        pytest.skip("the real material is not here")
    planned = walk("build", "nordland", str(REAL_NORDLAND), "--dry-run")
    assert "test lacks database and query windows" in planned
    assert advised(planned)[-4:] == ["--protocol", "nordland-tenth", "--out", "datasets/nordland-tenth"]


def test_contradicting_flags_are_refused_under_a_named_protocol_alone(
    walk: Callable[..., str], tmp_path: Path, msls_dump: Path
) -> None:
    robotcar_one_lap(tmp_path / "raw", msls_dump)
    taken = walk("build", "robotcar", "raw", "--dry-run")
    assert "--pose-mode nearest: taken from protocol robotcar-seqvlad@" in taken
    assert "built under own" in walk("build", "robotcar", "raw", "--rule", "arc")
    named = ("build", "robotcar", "raw", "--protocol", "robotcar-2m", "--out", "named")
    for flags in (("--rule", "arc"), ("--pose-mode", "interpolate"), ("--pose", "ins"), ("--pose-gap", "3")):
        line = walk(*named, *flags, codes=(3,))
        assert len(line.splitlines()) == 1
        advised = flags_of(line, "give")
        assert advised[0] == flags[0]
        walk(*named, *advised, "--dry-run")


def test_names_of_cities_may_have_blanks(walk: Callable[..., str], tmp_path: Path, msls_dump: Path) -> None:
    assert walk("build", "msls", str(msls_dump), "--cities", "northfield, southport", "--dry-run")
