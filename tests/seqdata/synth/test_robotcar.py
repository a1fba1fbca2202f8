"""The synthetic RobotCar dump: the real layout, colours through Bayer and back, true positions, and a whole build."""

import csv
import io
import tarfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings
from seqdata.dataset.dataset import open as open_dataset
from seqdata.errors import OutputError
from seqdata.geometry import heading_difference
from seqdata.sources.registry import open_source
from seqdata.sources.robotcar.images import demosaic
from seqdata.synth.dumps.robotcar import RobotcarSettings, RobotcarSummary, mosaic, write_robotcar
from seqdata.synth.tracks import Track

LAPS = ("2014-11-18-13-20-12", "2014-12-16-18-44-24")
SMALL = RobotcarSettings(seconds=12, stop=2.0, dropout=1.0, absent=0.05, chunk=60, width=32, height=24)
COLUMNS = {
    "gps/gps.csv": "timestamp,num_satellites,latitude,longitude,altitude,latitude_sigma,longitude_sigma,altitude_sigma,"
    "northing,easting,down,utm_zone",
    "gps/ins.csv": "timestamp,ins_status,latitude,longitude,altitude,northing,easting,down,utm_zone,velocity_north,"
    "velocity_east,velocity_down,roll,pitch,yaw",
    "rtk.csv": "timestamp,latitude,longitude,altitude,northing,easting,down,utm_zone,velocity_north,velocity_east,"
    "velocity_down,roll,pitch,yaw",
}


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> RobotcarSummary:
    """Two small laps in folders."""
    return write_robotcar(tmp_path_factory.mktemp("synth") / "raw", settings=SMALL, seed=3)


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same laps as downloaded."""
    settings = RobotcarSettings(**{**vars(SMALL), "layout": "tar"})
    return write_robotcar(tmp_path_factory.mktemp("tars") / "raw", settings=settings, seed=3).root


def test_the_real_layout(dump: RobotcarSummary) -> None:
    assert sorted(path.name for path in dump.root.iterdir()) == [*LAPS, "protocol.toml"]
    for lap in LAPS:
        folder = dump.root / lap
        for name, header in COLUMNS.items():
            with (folder / name).open() as file:
                rows = list(csv.reader(file))
            assert ",".join(rows[0]) == header
            assert {row[rows[0].index("utm_zone")] for row in rows[1:]} == {"30U"}
        lines = [line.split() for line in (folder / "stereo.timestamps").read_text().splitlines()]
        assert [chunk for _, chunk in lines] == [str(i // 60 + 1) for i in range(len(lines))]
        stamps = [int(stamp) for stamp, _ in lines]
        assert np.median(np.diff(stamps)) == pytest.approx(62_500, abs=500)
        pictures = {int(path.stem) for path in (folder / "stereo/left").iterdir()}
        assert pictures < set(stamps)
        image = Image.open(next((folder / "stereo/left").iterdir()))
        assert (image.mode, image.size) == ("L", (32, 24))
    found = sum(1 for _ in dump.root.glob("*/stereo/left/*.png"))
    assert (dump.frames, dump.frames + dump.absent) == (found, sum(len(_stamps(dump.root, lap)) for lap in LAPS))


def _stamps(root: Path, lap: str) -> list[str]:
    return (root / lap / "stereo.timestamps").read_text().splitlines()


def test_the_same_bytes_for_one_seed(dump: RobotcarSummary, tmp_path: Path) -> None:
    again = write_robotcar(tmp_path / "again", settings=SMALL, seed=3).root
    names = sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(dump.root) for path in dump.root.rglob("*") if path.is_file())
    assert all((again / name).read_bytes() == (dump.root / name).read_bytes() for name in names)


def test_tars_hold_the_same_files(dump: RobotcarSummary, tars: Path) -> None:
    seen = {}
    for path in sorted(tars.glob("*.tar")):
        with tarfile.open(path) as tar:
            for info in tar.getmembers():
                file = tar.extractfile(info)
                assert file is not None
                seen[info.name] = file.read()
    seen |= {path.relative_to(tars).as_posix(): path.read_bytes() for path in tars.rglob("rtk.csv")}
    seen["protocol.toml"] = (tars / "protocol.toml").read_bytes()
    own = {p.relative_to(dump.root).as_posix(): p.read_bytes() for p in dump.root.rglob("*") if p.is_file()}
    assert seen == own
    first = tars / f"{LAPS[0]}_stereo_left_01.tar"
    with tarfile.open(first) as tar:
        assert sum(name.endswith(".png") for name in tar.getnames()) <= 60


@pytest.mark.parametrize("camera", ["stereo_centre", "mono_right"])
def test_mosaic_is_what_demosaic_takes(camera: str) -> None:
    photo = np.zeros((16, 16, 3), np.uint8)
    photo[:, 8:] = (250, 20, 90)
    assert (demosaic(mosaic(photo, camera), camera)[2:-2, 10:] == (250, 20, 90)).all()
    assert (demosaic(mosaic(photo, camera), camera)[2:-2, :6] == 0).all()


@pytest.mark.parametrize(("pose", "noise"), [("rtk", 0.1), ("ins", 1.3), ("gps", 9.0)])
def test_positions_stop_and_dropout(dump: RobotcarSummary, pose: str, noise: float) -> None:
    """Positions of the three logs agree as far as their noise, nothing lies in the dropout, and the car stands once."""
    true = open_source("robotcar", dump.root, {"pose": "rtk", "pose_gap": "60"}).listing().records
    listing = open_source("robotcar", dump.root, {"pose": pose}).listing()
    joined = listing.records.join(true, on="key", suffix="_true")
    off = np.hypot(joined["easting"] - joined["easting_true"], joined["northing"] - joined["northing_true"])
    assert off.max() < noise
    lost = listing.quarantine.filter(reason="pose_gap").group_by("trajectory").len()
    assert set(lost["trajectory"]) == set(LAPS)
    assert lost["len"].is_between(10, 28).all()
    for lap in LAPS:
        one = true.filter(trajectory=lap)
        steps = np.hypot(np.diff(one["easting"]), np.diff(one["northing"]))
        assert 24 <= (steps < 0.08).sum() <= 45  # two seconds at 16 Hz
        if pose != "gps":
            moving = np.flatnonzero(steps > 0.2)
            course = np.degrees(np.arctan2(np.diff(one["easting"]), np.diff(one["northing"])))[moving]
            assert np.median(heading_difference(course, one["heading"].to_numpy()[moving])) < 6


def test_laps_share_their_ground(dump: RobotcarSummary) -> None:
    records = open_source("robotcar", dump.root, {}).listing().records
    places = [records.filter(trajectory=lap, position=0).select("easting", "northing").row(0) for lap in LAPS]
    assert 0.0 < np.hypot(*np.subtract(*places)) < 6.0


def test_follows_a_track(tmp_path: Path) -> None:
    time = np.arange(15.0)
    track = Track(time, 380_000 + 9.0 * time, 6_500_000 + 3.0 * time, "33N")
    laps = (("2019-01-10-11-46-21", "spring"),)
    settings = RobotcarSettings(laps=laps, width=16, height=16, stop=0, dropout=0, absent=0, camera="mono_rear")
    root = write_robotcar(tmp_path / "raw", settings=settings, track=track).root
    records = open_source("robotcar", root, {"camera": "mono_rear"}).listing().records
    assert records["zone"].unique().to_list() == ["33N"]
    away = np.abs(3.0 * (records["easting"] - 380_000) - 9.0 * (records["northing"] - 6_500_000)) / np.hypot(3, 9)
    assert away.max() < 3.5  # the lane
    assert records["easting"].max() - records["easting"].min() > 100
    assert records.height == pytest.approx(14 * 11.1 / 1.0, rel=0.15)


def test_wrong_sizes_and_full_folders_are_refused(tmp_path: Path) -> None:
    for wrong in (
        {"width": 15},
        {"width": 33},
        {"seconds": 1},
        {"absent": 2.0},
        {"laps": ()},
        {"laps": (("x", "night"),)},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))[:3]):
            RobotcarSettings(**wrong)  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="not empty"):
        write_robotcar(tmp_path, settings=SMALL)


def test_a_whole_build_from_folders_and_from_tars(dump: RobotcarSummary, tars: Path, tmp_path: Path) -> None:
    """The same dataset, id and all; colours are right in the shards; frames of the dropout break windows."""
    protocol = protocols.load("robotcar-seqvlad")
    options = {"pose_mode": "nearest"}
    small = BuildSettings(shard_bytes=1 << 16)
    manifests = [
        build(BuildRequest("robotcar", raw, tmp_path / name, options, small, protocol, workers))
        for name, raw, workers in (("a", dump.root, 1), ("b", tars, 2))
    ]
    assert manifests[0].id == manifests[1].id
    assert len(manifests[0].shards) > 1
    frames = pl.read_parquet(tmp_path / "a" / "frames.parquet")
    quarantine = pl.read_parquet(tmp_path / "a" / "quarantine.parquet")
    assert frames.height + quarantine.height == dump.frames + dump.absent
    assert set(quarantine["reason"]) == {"absent_image", "pose_gap"}
    assert open_dataset(tmp_path / "a").manifest.id == manifests[0].id
    row = frames.row(5, named=True)
    tar = (tmp_path / "a" / "shards" / f"part-{row['shard']:06d}.tar").read_bytes()
    stored = np.asarray(Image.open(io.BytesIO(tar[row["offset"] : row["offset"] + row["length"]])))
    read = open_source("robotcar", dump.root, {}).read(row["source"])
    assert isinstance(read, np.ndarray)
    assert np.abs(stored.astype(int) - read).mean() < 4
    assert np.ptp(stored.mean((0, 1))) > 2  # not grey
