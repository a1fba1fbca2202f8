"""Clocks of cameras and times in file names, as single cameras and programs write them."""

from pathlib import Path

import polars as pl
import pytest

from seqdata.sources import open_source
from seqdata.sources.folder.exif_times import parse_gps_clock, parse_taken
from seqdata.sources.folder.name_times import shared_times, stamped_times
from seqdata.sources.folder.times import parse_moment
from tests.conftest import jpeg
from tests.seqdata.sources.folder.test_exif import ASCII, Field, clock, gps_clock, photo, read
from tests.seqdata.sources.folder.test_gpx import gpx, point
from tests.seqdata.sources.folder.test_photos import placed_photo

HOUR = 3_600_000_000


@pytest.mark.parametrize(
    ("fields", "moment", "hours"),
    [
        (("2021:06:01 10:00:01", "25", "+02:00"), "2021-06-01T10:00:01.25", 2),
        (("2021:06:01 10:00:01", " 50", "+0200"), "2021-06-01T10:00:01.050", 2),
        (("2021:06:01 10:00:01", "  5", "-03"), "2021-06-01T10:00:01.005", -3),
        (("2021:06:01 10:00:01", "50 ", "Z"), "2021-06-01T10:00:01.5", 0),
        (("2021:06:01 10:00:01", "250 x", "+2:00"), "2021-06-01T10:00:01", 2),
        (("2021:06:01 10:00:01\0\0", "123456789", "   :  "), "2021-06-01T10:00:01.123456", None),
        ((b"2021:06:01 10:00:01", b"5\0", b"+05:45\0"), "2021-06-01T10:00:01.5", 5.75),
        (("2021:06:01 24:00:00", None, None), "2021-06-02T00:00:00", None),
        (("2021:12:31 23:59:60", None, None), "2022-01-01T00:00:00", None),
        (("2021-06-01 10:00:01", None, None), "2021-06-01T10:00:01", None),
        (("2021-06-01T10:00:01.25+02:00", None, None), "2021-06-01T10:00:01.25", 2),
        (("2021/06/01 10:00:01", None, "+19:00"), "2021-06-01T10:00:01", None),
        (("2021:6:1 9:05:01", None, None), "2021-06-01T09:05:01", None),
        (("1970:01:01 00:00:00", None, None), None, None),
        (("1980:01:06 00:00:00", None, None), None, None),
        (("0000:00:00 00:00:00", None, None), None, None),
        (("    :  :     :  :  ", None, None), None, None),
        (("2021:06:31 10:00:01", None, None), None, None),
        (("2021:06:01", None, None), None, None),
        ((7, 7, 7), None, None),
    ],
)
def test_a_cameras_clock(fields: tuple, moment: str | None, hours: float | None) -> None:
    time, offset = parse_taken(*fields)
    assert time == (None if moment is None else parse_moment(moment))
    assert offset == (None if hours is None else round(hours * HOUR))


@pytest.mark.parametrize(
    ("date", "seconds", "moment"),
    [
        ("2021:06:01", 36_001.5, "2021-06-01T10:00:01.5"),
        ("2021-06-01", 36_001.5, "2021-06-01T10:00:01.5"),
        (b"2021/06/01\0", 0.0, "2021-06-01"),
        ("2021:06:01", None, None),
        ("1970:01:01", 1.0, None),
        ("1980:01:06", 1.0, None),
        ("", 1.0, None),
    ],
)
def test_a_gps_clock(date: object, seconds: float | None, moment: str | None) -> None:
    assert parse_gps_clock(date, seconds) == (None if moment is None else parse_moment(moment))


def times_of(folder: Path, cameras: list[list[Field]], clocks: list[list[Field]]) -> list[int]:
    rows = read(folder, *(photo(gps, camera) for camera, gps in zip(cameras, clocks, strict=True)))
    return rows["time"].to_list()


@pytest.mark.parametrize(
    ("date", "hour"), [("2021:06:02", 23), ("2021:06:01", 23), ("2021-06-01", 23), ("2021:06:03", 23)]
)
def test_a_gps_date_that_is_local_or_a_day_off_still_says_the_zone(date: str, hour: int, tmp_path: Path) -> None:
    cameras = [clock(f"2021:06:02 01:00:0{second}") for second in range(3)]
    clocks = [gps_clock(date, hour, 0, second) for second in range(3)]
    wanted = [parse_moment(f"2021-06-01T23:00:0{second}") for second in range(3)]
    assert times_of(tmp_path, cameras, clocks) == wanted


def test_a_camera_clock_that_is_off_by_itself_is_replaced_by_gps_time_and_said(tmp_path: Path) -> None:
    """As in photos of a Nikon P6000: 22 hours, and a minute or two that vary from photo to photo."""
    seconds = [0, 30, 61, 95]
    fixes = [(seconds[n] + (120, 125, 118, 130)[n]) for n in range(4)]
    place = [(1, ASCII, ["N"]), (2, 5, [50, 0, 0]), (3, ASCII, ["E"]), (4, 5, [5, 0, 0])]
    for number, (second, fix) in enumerate(zip(seconds, fixes, strict=True)):
        taken = f"2008:10:22 16:{28 + second // 60:02d}:{second % 60:02d}"
        gps = gps_clock("2008:10:23", 14, 28 + fix // 60, fix % 60)
        (tmp_path / f"{number}.jpg").write_bytes(photo([*place, *gps], clock(taken)))
    listing = open_source("folder", tmp_path, {}).listing()
    start = parse_moment("2008-10-23T14:28:00")
    assert listing.records["time"].to_list() == [start + fix * 1_000_000 for fix in fixes]
    assert len(listing.notes) == 1
    assert listing.notes[0].startswith("drive 'drive': the camera's clock is 22 h 2 min ")
    assert listing.notes[0].endswith("behind its GPS clock; GPS time is used")


def test_a_camera_clock_seven_minutes_off_is_put_right_but_old_fixes_are_not_followed(tmp_path: Path) -> None:
    taken = [clock(f"2021:06:01 12:07:{second:02d}", "5") for second in range(4)]
    steady = [gps_clock("2021:06:01", 10, 0, second) for second in range(4)]
    start = parse_moment("2021-06-01T10:00:00")
    assert times_of(tmp_path, taken, steady) == [start + second * 1_000_000 for second in range(4)]
    old = [gps_clock("2021:06:01", 10, minute, 0) for minute in (0, 2, 4, 6)]
    start = parse_moment("2021-06-01T10:07:00.5")
    assert times_of(tmp_path, taken, old) == [start + second * 1_000_000 for second in range(4)]


def test_an_offset_that_disagrees_with_gps_time_by_hours_is_put_right(tmp_path: Path) -> None:
    taken = [clock(f"2021:06:01 15:00:{second:02d}", "", "+02:00") for second in range(3)]
    fixes = [gps_clock("2021:06:01", 10, 0, second) for second in range(3)]
    start = parse_moment("2021-06-01T10:00:00")
    assert times_of(tmp_path, taken, fixes) == [start + second * 1_000_000 for second in range(3)]


def test_other_clocks_of_a_photo_are_used_where_the_first_is_empty(tmp_path: Path) -> None:
    cameras = [
        [(0x9004, ASCII, ["2021:06:01 10:00:05"]), (0x9292, ASCII, ["5"]), (0x9012, ASCII, ["+02:00"])],
        [(0x9003, ASCII, ["0000:00:00 00:00:00"]), (0x9004, ASCII, ["2021:06:01 10:00:06"])],
        [(0x9003, ASCII, ["2021:06:01 10:00:07"]), (0x9004, ASCII, ["2001:06:01 10:00:06"])],
    ]
    wanted = ["2021-06-01T08:00:05.5", "2021-06-01T10:00:06", "2021-06-01T10:00:07"]
    assert times_of(tmp_path, cameras, [[]] * 3) == [parse_moment(text) for text in wanted]


def test_padded_frame_numbers_are_no_seconds() -> None:
    """KITTI's ten digits."""
    assert stamped_times(pl.Series(["0000000000", "0000000123"]))["time"].to_list() == [None, None]


def stamped(*names: str) -> list[int | None]:
    start = parse_moment("2021-06-01T10:00:00")
    times = stamped_times(pl.Series(names))["time"]
    return [None if time is None else time - start for time in times]


@pytest.mark.parametrize(
    ("names", "microseconds"),
    [
        (("1622541600.000000", "1622541600.250000", "1622541601.5"), (0, 250_000, 1_500_000)),
        (("1622541600_000000000", "1622541600_250000000"), (0, 250_000)),
        (("1622541600_5000000", "1622541600_250000000"), (5_000, 250_000)),
        (("1622541600-250", "1622541601-500"), (250_000, 1_500_000)),
        (("20210601_100000_250", "20210601_100000_750"), (250_000, 750_000)),
        (("2021-06-01T10.00.00.25", "2021-06-01T10.00.00.75"), (250_000, 750_000)),
        (("IMG_20210601_100000250_left", "IMG_20210601_100000 (1)"), (250_000, 0)),
        (("clip_20210601_100000_1", "clip_20210601_100000_10"), (0, 0)),
        (("20210601_100000_frame000030", "20210601_100000-F90", "1622541600 nf_7"), (0, 0, 0)),
        (("clip_20210601_100000_0001", "clip_20210601_100000_0002"), (0, 0)),
        (("clip_20210601_100000_001", "clip_20210601_100000_002"), (0, 0)),
        (("clip_20210601_100000_000001", "clip_20210601_100000_000002"), (0, 0)),
        (("1622541600_1", "1622541600_2", "1622541600_10"), (0, 0, 0)),
        (("1622541600.9", "1622541600.10"), (0, 0)),
        (("1622541600250_0001", "1622541600500_0002"), (250_000, 500_000)),
        (("CLIP_NF_000025", "000025"), (None, None)),
    ],
)
def test_digits_behind_a_stamp_are_a_fraction_or_a_counter(
    names: tuple[str, ...], microseconds: tuple[int | None, ...]
) -> None:
    assert stamped(*names) == list(microseconds)


def on_track(folder: Path, *names: str) -> dict[str, object]:
    (folder / "t.gpx").write_text(gpx([point(second, 50 + second * 1e-5, 5) for second in range(60)]))
    for number, name in enumerate(names):
        (folder / f"{name}.jpg").write_bytes(jpeg(number))
    listing = open_source("folder", folder, {}).listing()
    seconds = ((listing.records["latitude"] - 50) * 1e5).round(3)
    good = dict(zip(listing.records["source"].str.head(-4), seconds, strict=True))
    return good | dict(listing.quarantine.select(pl.col("source").str.head(-4), "reason").rows())


def test_frames_of_a_clip_never_share_its_start(tmp_path: Path) -> None:
    names = [f"20240131_100005_{number}" for number in (1, 2, 10)]
    singles = ["20240131_100010", "20240131_100011"]
    burst = ["20240131_100020", "20240131_100020 (1)", "20240131_100021_2", "20240131_100021_1"]
    reasons = on_track(tmp_path, *names, *singles, *burst)
    assert reasons == {
        **dict.fromkeys(names, "no_time"),
        **{"20240131_100010": 10.0, "20240131_100011": 11.0, "20240131_100020": 20.0, "20240131_100020 (1)": 20.0},
        **{"20240131_100021_1": 21.0, "20240131_100021_2": 21.0},
    }


def test_frames_before_whose_stamp_the_counter_stands_are_a_clip_too(tmp_path: Path) -> None:
    names = [f"frame{number:04d}_20240131_100005" for number in range(4)]
    assert on_track(tmp_path, *names) == dict.fromkeys(names, "no_time")


def test_names_order_a_drive_without_their_suffix_and_with_whole_numbers(tmp_path: Path) -> None:
    names = ["a 2", "a 10", "b", "b (1)", "b (2)", "b-1", "c_9", "c_10"]
    for number, name in enumerate(names):
        (tmp_path / f"{name}.JPG").write_bytes(placed_photo(50 + number * 1e-4, 5.5))
    records = open_source("folder", tmp_path, {}).listing().records
    assert records["source"].str.head(-4).to_list() == names


@pytest.mark.parametrize(("width", "last"), [(4, 9999), (3, 999)])
def test_counters_that_roll_over_go_on(width: int, last: int, tmp_path: Path) -> None:
    numbers = [last - 2, last - 1, last, 1, 2]
    for order, number in enumerate(numbers):
        (tmp_path / f"DSC_{number:0{width}d}.JPG").write_bytes(placed_photo(50 + order * 1e-4, 5.5))
    records = open_source("folder", tmp_path, {}).listing().records
    assert records["source"].to_list() == [f"DSC_{number:0{width}d}.JPG" for number in numbers]


def test_one_photo_that_is_left_out_does_not_turn_the_drive_to_order_of_names(tmp_path: Path) -> None:
    order = ["d", "b", "a", "c"]
    for second, name in enumerate(order):
        (tmp_path / f"{name}.jpg").write_bytes(placed_photo(50 + second * 1e-4, 5.5, f"2021:06:01 10:00:0{second}"))
    (tmp_path / "b2.jpg").write_bytes(jpeg(9))
    records = open_source("folder", tmp_path, {}).listing().records
    assert records["source"].str.head(-4).to_list() == order
    assert records["position"].to_list() == [0, 1, 3, 4], "it lies behind b.jpg, and windows break there"


def test_frames_that_are_numbered_by_a_word_never_share_a_start_and_cameras_do() -> None:
    """Two frames of a clip are enough; two cameras of a rig take their pictures at one time."""
    for names, numbered in ((["frame000030", "frame000060"], True), (["cam1", "cam2"], False)):
        stamps = stamped_times(pl.Series([f"20210601_100000_{name}" for name in names]))
        assert stamps["numbered"].to_list() == [numbered] * 2
        shared = shared_times(stamps["time"], pl.Series(["drive"] * 2), stamps["numbered"])
        assert shared.to_list() == ([2, 2] if numbered else [None, None])
