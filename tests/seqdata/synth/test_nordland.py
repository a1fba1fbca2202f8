"""The synthetic Nordland, and synthetic drives that follow a given GNSS track."""

import csv
import io
import math
import re
import zipfile
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import utm
from PIL import Image

from seqdata.errors import InputError, NotEnoughDataError, OutputError, SeqdataError
from seqdata.sources import Listing, open_source
from seqdata.sources.nordland.gps import read_log
from seqdata.synth import CitySettings, NordlandSettings, Track, city_along, read_track, write_msls, write_nordland
from seqdata.synth.drives.along import course_of, made_track

SEASONS = ("spring", "summer", "fall", "winter")
TINY = NordlandSettings(seconds=40, width=32, height=24, dirt=0.05, speed=7.0)


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nordland(tmp_path_factory.mktemp("nordland") / "raw", settings=TINY, seed=3).root


def listing(raw: Path) -> Listing:
    return open_source("nordland", raw, {}).listing()


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), np.float64)


def test_the_dump_has_the_real_layout(dump: Path) -> None:
    for season in SEASONS:
        names = sorted(path.name for path in (dump / season).iterdir())
        assert names == [f"images-{n:05d}.png" for n in range(161, 203)]
        with Image.open(dump / season / names[0]) as image:
            assert (image.format, image.size, image.mode) == ("PNG", (32, 24), "RGB")
        log = (dump / f"{season}.csv").read_bytes()
        assert log.startswith(b"tid,lat,lon,speed,course,alt\r") and b"\n" not in log
    assert (dump / "summer.csv").read_bytes().split(b"\r")[1].startswith(b"5380000,6343670,1040070,")
    clean = (dump / "clean_frames.txt").read_text().split()
    assert all(re.fullmatch(r"images-\d{5}\.png", name) for name in clean)


def test_the_log_is_dirty_and_the_reader_repairs_it(tmp_path: Path) -> None:
    track = made_track(900, speed=25, latitude=63.4, longitude=10.4, seed=1)
    from seqdata.synth.dumps.nordland_log import log_bytes

    data = log_bytes(track, "summer", 0.04, 5)
    (tmp_path / "summer.csv").write_bytes(data)
    lines = data.decode().split("\r")[1:]
    whole = [row for row in (line.split(",") for line in lines) if len(row) == 6 and all(map(str.isdigit, row))]
    assert len(lines) < 890, "seconds are missing"
    assert len(whole) < len(lines) - 5, "rows are damaged"
    log = read_log(tmp_path / "summer.csv")
    assert 0.88 * 900 < len(log.second) < 0.97 * 900
    at = log.second - log.second[0]
    lat, lon = utm.to_latlon(track.easting, track.northing, int(track.zone[:-1]), track.zone[-1] and "V")
    assert np.abs(log.latitude - lat[at]).max() < 1e-5
    assert np.abs(log.longitude - lon[at]).max() < 1e-5


def test_seasons_are_aligned_and_look_different(dump: Path) -> None:
    records = listing(dump).records
    assert records.height == 4 * 42
    assert records.select(pl.col("key").str.slice(-5), "easting", "northing", "position").unique().height == 42
    colours = [pixels(dump / season / "images-00165.png").mean((0, 1)) for season in SEASONS]
    assert min(np.abs(a - b).max() for a, b in combinations(colours, 2)) > 4
    pictures = {season: [pixels(dump / season / f"images-{n:05d}.png") for n in range(163, 173)] for season in SEASONS}
    centred = {season: [p - p.mean() for p in shown] for season, shown in pictures.items()}
    for i, query in enumerate(centred["fall"]):
        likeness = [(query * other).sum() / np.sqrt((query**2).sum() * (other**2).sum()) for other in centred["spring"]]
        assert int(np.argmax(likeness)) == i, "the same frame is the same place"


def test_the_tunnel_is_dark_and_out_of_the_clean_list_and_so_is_the_stop(dump: Path) -> None:
    clean = set((dump / "clean_frames.txt").read_text().split())
    light = {p.name: pixels(p).mean() for p in sorted((dump / "summer").iterdir())}
    dark = {name for name, value in light.items() if value < 40}
    assert 2 <= len(dark) <= 8 and not dark & clean
    standing = {f"images-{n:05d}.png" for n in (161, 162, 163, *range(163 + 31, 163 + 39))}
    assert clean == light.keys() - dark - standing
    records = listing(dump).records.filter(trajectory="summer")
    stop = records.filter(pl.col("key").str.slice(-5).cast(pl.Int32).is_between(163 + 32, 163 + 38))
    assert np.ptp(stop["northing"].to_numpy()) < 12


@pytest.mark.parametrize("layout", ["zip", "sections"])
def test_layouts_give_the_same_records_and_pixels(layout: str, dump: Path, tmp_path: Path) -> None:
    settings = NordlandSettings(seconds=40, width=32, height=24, dirt=0.05, speed=7.0, layout=layout)  # type: ignore[arg-type]
    raw = write_nordland(tmp_path / "raw", settings=settings, seed=3).root
    one, two = listing(dump).records, listing(raw).records
    assert two.drop("source").equals(one.drop("source"))
    source, other = open_source("nordland", dump, {}), open_source("nordland", raw, {})
    for here, there in list(zip(one["source"], two["source"], strict=True))[::10]:
        assert source.read(here) == other.read(there)
    if layout == "zip":
        assert len(zipfile.ZipFile(raw / "fall.zip").namelist()) == 42
    else:
        assert sorted(p.name for p in raw.iterdir() if p.is_dir())[:2] == ["fall_images_test", "fall_images_train"]


def test_one_seed_gives_the_same_bytes_and_another_other_ones(dump: Path, tmp_path: Path) -> None:
    again = write_nordland(tmp_path / "again", settings=TINY, seed=3).root
    other = write_nordland(tmp_path / "other", settings=TINY, seed=4).root
    names = [path.relative_to(dump) for path in sorted(dump.rglob("*")) if path.is_file()]
    assert [(again / name).read_bytes() for name in names] == [(dump / name).read_bytes() for name in names]
    assert (other / "winter/images-00170.png").read_bytes() != (dump / "winter/images-00170.png").read_bytes()


def test_a_folder_in_use_is_refused_and_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "mine").write_text("x")
    with pytest.raises(OutputError, match="not empty"):
        write_nordland(tmp_path / "raw", settings=TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize("wrong", [{"seconds": 5}, {"width": 3}, {"dirt": 0.9}, {"speed": 0.0}, {"every": 0}])
def test_impossible_sizes_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NordlandSettings(**wrong)  # type: ignore[arg-type]


GPX = """<?xml version="1.0"?><gpx version="1.1" creator="t" xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>
{points}</trkseg></trk></gpx>"""


def bend(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """A quarter circle of 300 m radius in zone 55S, metres."""
    turn = np.linspace(0, math.pi / 2, count)
    return 320_000 + 300 * np.sin(turn), 5_812_000 + 300 * (1 - np.cos(turn))


def written(kind: str, folder: Path) -> Path:
    """The bend as a file: a fix every two seconds from 2020-01-01."""
    east, north = bend()
    lat, lon = utm.to_latlon(east, north, 55, northern=False)
    stamps = [f"2020-01-01T00:{2 * i // 60:02d}:{2 * i % 60:02d}Z" for i in range(len(east))]
    path = folder / f"track-{kind}.{'gpx' if kind == 'gpx' else 'csv'}"
    rows = io.StringIO()
    table = csv.writer(rows)
    if kind == "gpx":
        points = (
            f'<trkpt lat="{a}" lon="{b}"><time>{t}</time></trkpt>' for a, b, t in zip(lat, lon, stamps, strict=True)
        )
        path.write_text(GPX.format(points="\n".join(points)))
        return path
    if kind == "degrees":
        table.writerows([("time", "Latitude", "lon"), *zip(stamps, lat, lon, strict=True)])
    elif kind == "utm":
        table.writerows(
            [
                ("time", "easting", "northing", "zone"),
                *((2 * i, *p, "55S") for i, p in enumerate(zip(east, north, strict=True))),
            ]
        )
    else:
        table.writerows(
            [
                ("timestamp_us", "northing", "easting"),
                *((2_000_000 * i, n, e) for i, (e, n) in enumerate(zip(east, north, strict=True))),
            ]
        )
    path.write_text(rows.getvalue())
    return path


@pytest.mark.parametrize("kind", ["gpx", "degrees", "utm", "microseconds"])
def test_a_track_is_read_from_every_format(kind: str, tmp_path: Path) -> None:
    track = read_track(written(kind, tmp_path), zone="55S" if kind == "microseconds" else None)
    east, north = bend()
    assert track.zone == "55S"
    assert np.abs(track.easting - east).max() < 0.01 and np.abs(track.northing - north).max() < 0.01
    assert np.abs(np.diff(track.time) - 2.0).max() < 1e-6
    if kind in ("gpx", "degrees"):
        assert track.time[0] == 1_577_836_800


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.gpx", "<gpx", "not readable as GPX"),
        ("t.gpx", GPX.format(points=""), "no track point"),
        ("t.csv", "a,b\n1,2\n", "needs columns latitude and longitude"),
        ("t.csv", "easting,northing\n1,2\n3,4\n", "need one UTM zone"),
        ("t.csv", "latitude,longitude\n1,2\n", "1 usable fixes"),
        ("t.csv", "latitude,longitude\n91,2\nx,3\n", "no usable fix"),
        ("t.csv", "easting,northing,zone\n1,2,99X\n3,4,99X\n", "UTM zone"),
        ("gone.csv", None, "no such file"),
        ("gone.gpx", None, "no such file"),
    ],
)
def test_a_track_that_is_none_is_one_clear_line(name: str, text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(SeqdataError, match=message) as raised:
        read_track(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value) and "\n" not in str(raised.value)


def test_fixes_out_of_order_and_twice_are_put_right_and_untimed_ones_keep_theirs(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time,easting,northing,zone\n3,30,0,32N\n1,10,0,32N\n1,11,0,32N\n2,,0,32N\n")
    track = read_track(tmp_path / "t.csv")
    assert track.easting.tolist() == [10, 30] and track.time.tolist() == [1, 3]
    (tmp_path / "u.csv").write_text("easting,northing,zone\n0,30,32N\n0,10,32N\n0,10,32N\n")
    assert read_track(tmp_path / "u.csv").time.tolist() == [0, 2]
    with pytest.raises(InputError, match="do not rise"):
        Track(np.array([1.0, 1.0]), np.zeros(2), np.zeros(2), "32N")


def test_a_course_follows_the_fixes_and_ends_streets_at_sharp_turns_and_gaps() -> None:
    leg = np.arange(0, 200, 5.0)
    east = np.concatenate([leg, np.full(40, 195.0), 195 - leg[1:], np.arange(900, 1000, 5.0)])
    north = np.concatenate([np.zeros(40), leg, np.full(39, 195.0), np.full(20, 195.0)])
    track = Track(np.arange(len(east), dtype=float), 5e5 + east, 5e6 + north, "32N")
    course = course_of(track, "square", 0)
    assert len(course.streets) == 4
    _, position, heading = course.place(course.metres, np.zeros(len(east)))
    away = np.hypot(*(position - track.local).T)
    assert away.max() < 11 and np.median(away) < 0.5
    assert np.abs(heading[10:30] - 90).max() < 1 and np.minimum(heading[50:70], 360 - heading[50:70]).max() < 1
    assert (np.diff(course.metres) >= 0).all()
    there = np.arange(0, 101, 5.0)
    back = Track(np.arange(42.0), 5e5 + np.append(there, there[::-1]), np.full(42, 5e6), "32N")
    turned = course_of(back, "turn", 0)
    assert [street.length for street in turned.streets] == [100, 100] and turned.length == 200
    with pytest.raises(NotEnoughDataError, match="a street needs at least"):
        course_of(Track(np.arange(2.0), np.array([0.0, 30.0]), np.zeros(2), "32N"), "short", 0)


def test_a_synthetic_city_follows_a_southern_track(tmp_path: Path) -> None:
    track = read_track(written("gpx", tmp_path))
    settings = CitySettings(width=32, height=24, cities=(city_along("bend", "test", track),), sequences=1)
    summary = write_msls(tmp_path / "raw", settings=settings)
    records = open_source("msls", summary.root, {}).listing().records
    assert records["zone"].unique().to_list() == ["55S"] and records.height > 200
    east, north = bend(2000)
    for frame in records.rows(named=True):
        assert np.hypot(east - frame["easting"], north - frame["northing"]).min() < 15
    reach = records["easting"].max() - records["easting"].min()
    assert reach > 280, "from its beginning to its end"


def test_a_synthetic_nordland_follows_a_track(tmp_path: Path) -> None:
    track = read_track(written("utm", tmp_path))
    raw = write_nordland(tmp_path / "raw", settings=TINY, track=track).root
    records = listing(raw).records
    assert records["zone"].unique().to_list() == ["55S"]
    east, north = bend(2000)
    away = [np.hypot(east - e, north - n).min() for e, n in records.select("easting", "northing").rows()]
    assert max(away) < 3
