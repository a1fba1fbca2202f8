"""EXIF positions and times, from blocks written byte by byte here (not by the library that reads them)."""

import struct
import warnings
from fractions import Fraction
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdata.sources.folder.exif import read_exif
from seqdata.sources.folder.times import parse_moment
from tests.conftest import jpeg

PLAIN = jpeg(5)
BYTE, ASCII, SHORT, LONG, RATIONAL = 1, 2, 3, 4, 5
Field = tuple[int, int, list]
NORTH, LATITUDE, EAST, LONGITUDE = (
    (1, ASCII, ["N"]),
    (2, RATIONAL, [50, 30, 36]),
    (3, ASCII, ["E"]),
    (4, RATIONAL, [5, 15, 0]),
)
PLACE = [NORTH, LATITUDE, EAST, LONGITUDE]


def packed(field: Field, order: str) -> tuple[int, bytes]:
    """Count and bytes of one field's values."""
    _, kind, values = field
    if kind == ASCII:
        data = values[0].encode() + b"\x00"
        return len(data), data
    if kind == RATIONAL:
        fractions = [value if isinstance(value, tuple) else Fraction(value).as_integer_ratio() for value in values]
        return len(values), b"".join(struct.pack(order + "II", *pair) for pair in fractions)
    return len(values), b"".join(struct.pack(order + {BYTE: "B", SHORT: "H", LONG: "I"}[kind], v) for v in values)


def directory(fields: list[Field], at: int, order: str) -> bytes:
    """A TIFF directory that starts at byte `at`, its long values behind it."""
    head, tail = struct.pack(order + "H", len(fields)), b""
    behind = at + 2 + 12 * len(fields) + 4
    for field in sorted(fields, key=lambda field: field[0]):
        count, data = packed(field, order)
        value = data.ljust(4, b"\x00") if len(data) <= 4 else struct.pack(order + "I", behind + len(tail))
        tail += data if len(data) > 4 else b""
        head += struct.pack(order + "HHI", field[0], field[1], count) + value
    return head + bytes(4) + tail


def photo(gps: list[Field] = (), camera: list[Field] = (), order: str = ">") -> bytes:
    """A JPEG whose EXIF holds these fields of the GPS block and of the camera's."""
    start = 8 + 2 + 2 * 12 + 4
    of_camera = directory(list(camera), start, order)
    of_gps = directory(list(gps), start + len(of_camera), order)
    root = directory([(0x8769, LONG, [start]), (0x8825, LONG, [start + len(of_camera)])], 8, order)
    mark = b"MM\x00*" if order == ">" else b"II*\x00"
    body = b"Exif\x00\x00" + mark + struct.pack(order + "I", 8) + root + of_camera + of_gps
    return PLAIN[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + PLAIN[2:]


def read(folder: Path, *photos: bytes, drives: list[str] | None = None) -> pl.DataFrame:
    names = [f"{number}.jpg" for number in range(len(photos))]
    for name, data in zip(names, photos, strict=True):
        (folder / name).write_bytes(data)
    return read_exif(folder, pl.DataFrame({"source": names, "drive": drives or ["d"] * len(names)}))


def place(folder: Path, gps: list[Field]) -> tuple[float | None, float | None]:
    return read(folder, photo(gps)).select("latitude", "longitude").row(0)


def clock(taken: str, fraction: str = "", offset: str = "") -> list[Field]:
    fields = [(0x9003, taken), (0x9291, fraction), (0x9011, offset)]
    return [(tag, ASCII, [text]) for tag, text in fields if text]


def gps_clock(date: str, hours: object, minutes: object, seconds: object) -> list[Field]:
    return [(0x1D, ASCII, [date]), (7, RATIONAL, [hours, minutes, seconds])]


@given(
    st.tuples(st.integers(0, 79), st.integers(0, 59), st.integers(0, 5999)),
    st.tuples(st.integers(0, 179), st.integers(0, 59), st.integers(0, 5999)),
    st.sampled_from("NS"),
    st.sampled_from("EW"),
    st.sampled_from("<>"),
)
@settings(deadline=None, max_examples=60)
def test_degrees_minutes_and_seconds_of_both_byte_orders(
    tmp_path_factory: pytest.TempPathFactory, lat: tuple, lon: tuple, north: str, east: str, order: str
) -> None:
    values = [[degrees, minutes, Fraction(hundredths, 100)] for degrees, minutes, hundredths in (lat, lon)]
    gps = [(1, ASCII, [north]), (2, RATIONAL, values[0]), (3, ASCII, [east]), (4, RATIONAL, values[1])]
    wanted = [float(d + Fraction(m, 60) + s / 3600) for d, m, s in values]
    folder = tmp_path_factory.getbasetemp() / "degrees"
    folder.mkdir(exist_ok=True)
    found = read(folder, photo(gps, order=order)).select("latitude", "longitude").row(0)
    if max(wanted) < 1e-3:
        assert found == (None, None)
        return
    signed = [wanted[0] if north == "N" else -wanted[0], wanted[1] if east == "E" else -wanted[1]]
    assert found == pytest.approx(signed, abs=1e-12)


@pytest.mark.parametrize(
    ("gps", "wanted"),
    [
        (PLACE, (50.51, 5.25)),
        ([*PLACE, (5, BYTE, [0]), (6, RATIONAL, [37]), (9, ASCII, ["A"])], (50.51, 5.25)),
        ([(1, ASCII, ["n"]), LATITUDE, (3, ASCII, ["w "]), LONGITUDE], (50.51, -5.25)),
        ([NORTH, (2, RATIONAL, [Fraction(5051, 100)]), EAST, (4, RATIONAL, [5, 15])], (50.51, 5.25)),
        ([NORTH, (2, RATIONAL, [(5051, 100), (0, 1), (0, 1)]), EAST, LONGITUDE], (50.51, 5.25)),
        ([NORTH, (2, RATIONAL, [0, 0, 0]), EAST, LONGITUDE], (0.0, 5.25)),
    ],
)
def test_usable_positions(gps: list[Field], wanted: tuple[float, float], tmp_path: Path) -> None:
    assert place(tmp_path, gps) == pytest.approx(wanted)


@pytest.mark.parametrize(
    "gps",
    [
        [],
        [NORTH, LATITUDE],
        [LATITUDE, LONGITUDE],
        [(1, ASCII, ["X"]), LATITUDE, EAST, LONGITUDE],
        [(1, ASCII, [""]), LATITUDE, EAST, LONGITUDE],
        [NORTH, (2, RATIONAL, [(50, 0), 30, 36]), EAST, LONGITUDE],
        [NORTH, (2, RATIONAL, [50, 61, 0]), EAST, LONGITUDE],
        [NORTH, (2, RATIONAL, [85, 0, 0]), EAST, LONGITUDE],
        [NORTH, (2, RATIONAL, [50, 1, 2, 3]), EAST, LONGITUDE],
        [NORTH, (2, ASCII, ["50.5"]), EAST, LONGITUDE],
        [NORTH, (2, RATIONAL, [0, 0, 0]), EAST, (4, RATIONAL, [0, 0, 0])],
        [*PLACE, (9, ASCII, ["V"])],
        [*PLACE, (5, RATIONAL, [0])],
        [*PLACE, (5, BYTE, [0, 100])],
    ],
)
def test_unusable_positions(gps: list[Field], tmp_path: Path) -> None:
    assert place(tmp_path, gps) == (None, None)


def test_times_by_their_own_offset_the_gps_clock_or_as_utc(tmp_path: Path) -> None:
    rows = read(
        tmp_path,
        photo(camera=clock("2014:06:07 10:24:05", "656", "+02:00")),
        photo(camera=clock("2014:06:07 10:24:05", "656")),
        photo(gps_clock("2014:06:07", 8, 24, Fraction(9, 2))),
        photo(camera=clock("2014:06:07 10:24:05", "x")),
        photo(camera=clock("    :  :     :  :  ")),
        photo(gps_clock("2014:06:07", 25, 0, 0)),
        photo(gps_clock("2014:06:07", 8, (1, 0), 0)),
        photo(camera=clock("2014:06:07 00:00:00", "", "-03:30")),
        drives=[f"d{number}" for number in range(8)],
    )
    wanted = [
        "2014-06-07T08:24:05.656", "2014-06-07T10:24:05.656", "2014-06-07T08:24:04.5", "2014-06-07T10:24:05",
        None, None, None, "2014-06-07T03:30:00",
    ]  # fmt: skip
    assert rows["time"].to_list() == [None if text is None else parse_moment(text) for text in wanted]


def test_a_drives_gps_clock_tells_the_cameras_zone_also_where_fixes_are_old(tmp_path: Path) -> None:
    taken = [f"2014:06:07 10:24:{second:02d}" for second in (5, 6, 7, 8)]
    rows = read(
        tmp_path,
        photo(gps_clock("2014:06:07", 8, 24, 4), clock(taken[0], "5")),
        photo(gps_clock("2014:06:07", 8, 2, 0), clock(taken[1])),
        photo(gps_clock("2014:06:07", 8, 24, 7), clock(taken[2])),
        photo(camera=clock(taken[3])),
        photo(camera=clock(taken[3])),
        drives=["a", "a", "a", "a", "b"],
    )
    texts = ["08:24:05.5", "08:24:06", "08:24:07", "08:24:08", "10:24:08"]
    assert rows["time"].to_list() == [parse_moment(f"2014-06-07T{text}") for text in texts]
    far = read(tmp_path, photo(gps_clock("1980:01:06", 0, 0, 0), clock(taken[0])))
    assert far["time"].to_list() == [parse_moment("2014-06-07T10:24:05")], "a GPS clock that was never set says nothing"


def test_files_that_are_no_photos_have_neither(tmp_path: Path) -> None:
    whole = photo(PLACE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = read(tmp_path, b"", b"no image", PLAIN, whole[:40], whole.replace(b"MM\x00*", b"MMxx"), whole)
    assert rows["latitude"].is_not_null().to_list() == [False] * 5 + [True]
    missing = read_exif(tmp_path, pl.DataFrame({"source": ["gone.jpg"], "drive": ["d"]}))
    assert missing.select("latitude", "longitude", "time").row(0) == (None, None, None)


FULL = photo([*PLACE, (5, BYTE, [0]), *gps_clock("2014:06:07", 8, 24, 4)], clock("2014:06:07 10:24:05", "5", "+02:00"))
BLOCK = FULL.index(b"Exif"), len(FULL) - len(PLAIN) + 2


@given(st.lists(st.tuples(st.integers(*BLOCK), st.integers(0, 255)), min_size=1, max_size=6))
@settings(deadline=None, max_examples=300)
def test_damaged_exif_is_read_or_absent_and_never_off_the_globe(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(FULL)
    for at, value in changes:
        data[at] = value
    folder = tmp_path_factory.getbasetemp() / "damaged-exif"
    folder.mkdir(exist_ok=True)
    latitude, longitude = read(folder, bytes(data)).select("latitude", "longitude").row(0)
    assert (latitude is None) == (longitude is None)
    assert latitude is None or (-80 <= latitude <= 84 and -180 <= longitude <= 180)


@pytest.mark.real
def test_real_photos_have_the_places_that_their_makers_wrote_beside(real: Path) -> None:
    """The app that took them writes latitude and longitude a second time, as text in the description."""
    import json

    from PIL import Image

    names = sorted(path.name for path in (real / "street-exif").glob("*.jpg"))
    rows = read_exif(real / "street-exif", pl.DataFrame({"source": names, "drive": "d"}))
    for name, latitude, longitude in rows.select("source", "latitude", "longitude").iter_rows():
        with Image.open(real / "street-exif" / name) as image:
            said = json.loads(image.getexif()[0x010E])
        assert latitude == pytest.approx(float(said["MAPLatitude"]), abs=5e-6)
        assert longitude == pytest.approx(float(said["MAPLongitude"]), abs=5e-6)
    assert rows["time"].null_count() == 29, "no clock stands in their EXIF"


@pytest.mark.real
def test_real_broken_exif_gives_no_position(real: Path) -> None:
    names = sorted(path.name for path in (real / "bad-images").glob("*.jpg"))
    rows = read_exif(real / "bad-images", pl.DataFrame({"source": names, "drive": "d"}))
    assert rows["latitude"].null_count() == rows.height == 5
