"""GPX tracks: against another reader, interpolation against a literal version, hostile files refused."""

import math
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdata.errors import InputError, SeqdataError
from seqdata.sources.folder.gpx import Track, place_on, read_track
from seqdata.sources.folder.name_times import stamped_times
from seqdata.sources.folder.times import parse_moment, show_moment

START = datetime(2024, 1, 31, 10, 0, 0, tzinfo=timezone.utc)
ZERO = round(START.timestamp() * 1e6)


def point(second: float, latitude: float, longitude: float) -> str:
    moment = (START + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return f'<trkpt lat="{latitude}" lon="{longitude}"><ele>3</ele><time>{moment}</time></trkpt>'


def gpx(*segments: list[str], head: str = '<?xml version="1.0" encoding="UTF-8"?>') -> str:
    body = "".join(f"<trkseg>{''.join(points)}</trkseg>" for points in segments)
    return f'{head}<gpx version="1.1" xmlns="http://www.topografix.com/GPX/1/1"><trk><name>a</name>{body}</trk></gpx>'


def track_of(tmp_path: Path, text: str | bytes) -> Track:
    path = tmp_path / "track.gpx"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_track(path)


positions = st.tuples(st.floats(-79, 83), st.floats(-179, 179)).filter(lambda pair: abs(pair[0]) > 0.01)
places = st.lists(positions, min_size=1, max_size=6)


@given(st.lists(places, min_size=1, max_size=3))
@settings(deadline=None, max_examples=40)
def test_a_track_is_read_as_another_reader_reads_it(
    tmp_path_factory: pytest.TempPathFactory, segments: list[list[tuple[float, float]]]
) -> None:
    gpxpy = pytest.importorskip("gpxpy")
    second, parts = 0.0, []
    for segment in segments:
        points = []
        for latitude, longitude in segment:
            points.append(point(second, latitude, longitude))
            second += 1.25
        parts.append(points)
    text = gpx(*parts)
    track = track_of(tmp_path_factory.mktemp("gpx"), text)
    other = [
        (round(point.time.timestamp() * 1e6), point.latitude, point.longitude, number)
        for number, segment in enumerate(gpxpy.parse(text).tracks[0].segments, 1)
        for point in segment.points
    ]
    assert (
        list(
            zip(*(getattr(track, name).tolist() for name in ("time", "latitude", "longitude", "segment")), strict=True)
        )
        == other
    )


def slow_place(points: list[tuple[float, float, float, int]], second: float, gap: float) -> tuple[float, float] | str:
    """The rule word by word: seconds, latitude, longitude, segment."""
    for time, latitude, longitude, _ in points:
        if time == second:
            return latitude, longitude
    before = [point for point in points if point[0] < second]
    after = [point for point in points if point[0] > second]
    if not before or not after:
        return "outside"
    first, last = before[-1], after[0]
    if last[0] - first[0] > gap or first[3] != last[3]:
        return "gap"
    share = (second - first[0]) / (last[0] - first[0])
    return first[1] + share * (last[1] - first[1]), first[2] + share * (last[2] - first[2])


@given(
    st.lists(st.tuples(st.integers(0, 60), st.floats(-60, 60), st.floats(-60, 60), st.integers(0, 9)), min_size=1),
    st.lists(st.integers(-20, 320), min_size=1, max_size=20),
    st.sampled_from([0.0, 1.0, 5.0, 100.0]),
)
@settings(deadline=None, max_examples=150)
def test_places_are_interpolated_in_time_within_a_segment(
    rows: list[tuple[int, float, float, int]], fifths: list[int], gap: float
) -> None:
    by_time = {row[0]: row for row in rows}
    points = [(float(time), *by_time[time][1:3], time // 13) for time in sorted(by_time)]
    columns = [np.array(column) for column in zip(*points, strict=True)]
    track = Track((columns[0] * 1e6).astype(np.int64), columns[1], columns[2], columns[3])
    placed = place_on(track, np.array(fifths, np.int64) * 200_000, gap)
    for number, fifth in enumerate(fifths):
        wanted = slow_place(points, fifth / 5, gap)
        assert bool(placed.outside[number]) == (wanted == "outside")
        assert bool(placed.in_gap[number]) == (wanted == "gap")
        if isinstance(wanted, tuple):
            assert (placed.latitude[number], placed.longitude[number]) == pytest.approx(wanted, abs=1e-9)
        else:
            assert math.isnan(placed.latitude[number])
            assert math.isnan(placed.longitude[number])


def test_a_track_across_the_antimeridian_is_followed_the_short_way(tmp_path: Path) -> None:
    track = track_of(tmp_path, gpx([point(0, -18, 179.9), point(10, -18, -179.9)]))
    middle = place_on(track, np.array([ZERO + 2_500_000]), 10.0)
    assert middle.longitude.tolist() == pytest.approx([179.95])


def test_what_has_no_place_or_time_is_passed_over(tmp_path: Path) -> None:
    bad = [
        '<trkpt lat="50" lon="5"/>',
        '<trkpt lat="50" lon="5"><time>noon</time></trkpt>',
        '<trkpt lat="x" lon="5"><time>2024-01-31T10:00:00Z</time></trkpt>',
        '<trkpt lon="5"><time>2024-01-31T10:00:00Z</time></trkpt>',
        '<trkpt lat="nan" lon="5"><time>2024-01-31T10:00:00Z</time></trkpt>',
        '<trkpt lat="89" lon="5"><time>2024-01-31T10:00:00Z</time></trkpt>',
        '<trkpt lat="50" lon="5"><extensions><time>2024-01-31T10:00:00Z</time></extensions></trkpt>',
    ]
    track = track_of(tmp_path, gpx([*bad, point(5, 50, 5)]))
    assert track.time.tolist() == [ZERO + 5_000_000]
    with pytest.raises(InputError, match=r"track.gpx: no track point"):
        track_of(tmp_path, gpx(bad))
    waypoint = '<gpx><wpt lat="50" lon="5"><time>2024-01-31T10:00:00Z</time></wpt></gpx>'
    with pytest.raises(InputError, match="waypoints and routes are not read"):
        track_of(tmp_path, waypoint)


def test_points_out_of_order_and_twice_are_put_in_order(tmp_path: Path) -> None:
    track = track_of(tmp_path, gpx([point(2, 50.2, 5), point(1, 50.1, 5), point(1, 50.1, 5), point(3, 50.3, 5)]))
    assert (track.time - ZERO).tolist() == [1_000_000, 1_000_000, 2_000_000, 3_000_000]
    placed = place_on(track, np.array([ZERO + 1_500_000]), 10)
    assert placed.latitude.tolist() == pytest.approx([50.15])


def test_tracks_that_overlap_in_time_are_refused(tmp_path: Path) -> None:
    one = [point(0, 50, 5), point(10, 50.1, 5)]
    assert len(track_of(tmp_path, gpx(one, [point(10, 50.1, 5), point(20, 50.2, 5)])).time) == 4
    with pytest.raises(InputError, match="overlap in time"):
        track_of(tmp_path, gpx(one, [point(5, 50, 6), point(15, 50, 6)]))


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE gpx [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{("&" + chr(97 + n) + ";") * 10}">' for n in range(12))
    + "]>"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    "head",
    [
        BOMB,
        '<?xml version="1.0"?><!DOCTYPE gpx [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<?xml version="1.0"?><!DOCTYPE gpx SYSTEM "http://127.0.0.1:1/gpx.dtd">',
    ],
)
def test_entities_are_refused_before_they_are_expanded(head: str, encoding: str, tmp_path: Path) -> None:
    text = gpx([point(0, 50, 5)], head=head).replace("<name>a", "<name>&m;" if head is BOMB else "<name>&x;")
    with pytest.raises(InputError, match="document type declaration"):
        track_of(tmp_path, text.encode(encoding))


@pytest.mark.parametrize(
    "data",
    [b"", b"image,latitude,longitude\n", b"<gpx><trk>", b"\xff\xfe\x00", b'<?xml version="1.0" encoding="x"?><g/>'],
)
def test_what_is_no_gpx_is_one_clear_error(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"track.gpx: not readable as GPX") as raised:
        track_of(tmp_path, data)
    assert "\n" not in str(raised.value)


def test_a_missing_track_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.gpx: no such file"):
        read_track(tmp_path / "gone.gpx")
    with pytest.raises(InputError, match="not readable"):
        read_track(tmp_path)


WHOLE = gpx([point(0, 50, 5), point(10, 50.1, 5.1)], [point(20, 50, 5)]).encode()


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
@settings(deadline=None, max_examples=200)
def test_a_damaged_track_is_read_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(WHOLE)
    for place, value in changes:
        data[place] = value
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    try:
        track = track_of(folder, bytes(data))
    except SeqdataError:
        return
    assert np.isfinite(track.latitude).all()
    assert (np.diff(track.time) >= 0).all()
    place_on(track, track.time, 10.0)


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("20240131_100005", "2024-01-31T10:00:05"),
        ("IMG_20240131_100005", "2024-01-31T10:00:05"),
        ("PXL_20240131_100005250", "2024-01-31T10:00:05.25"),
        ("2024-01-31T10-00-05.5", "2024-01-31T10:00:05.5"),
        ("2024-01-31 10.00.05", "2024-01-31T10:00:05"),
        ("cam0-2024_01_31-10h00m05s", "2024-01-31T10:00:05"),
        ("20240131100005", "2024-01-31T10:00:05"),
        ("1706695205", "2024-01-31T10:00:05"),
        ("frame-1706695205250", "2024-01-31T10:00:05.25"),
        ("1706695205250000", "2024-01-31T10:00:05.25"),
        ("1706695205250000000_left", "2024-01-31T10:00:05.25"),
        ("1418755480528820", "2014-12-16T18:44:40.528820"),
    ],
)
def test_stamps_in_file_names_are_read(name: str, moment: str) -> None:
    assert stamped_times(pl.Series([name]))["time"].to_list() == [parse_moment(moment)]


@pytest.mark.parametrize(
    "name", ["", "IMG_0001", "000123", "20241331_100005", "20240131", "12345678901", "x20240131_256161"]
)
def test_names_without_a_stamp_have_no_time(name: str) -> None:
    assert stamped_times(pl.Series([name]))["time"].to_list() == [None]


@given(st.lists(st.text(max_size=30), max_size=5))
@settings(deadline=None, max_examples=100)
def test_any_file_name_has_a_time_or_none(names: list[str]) -> None:
    times = stamped_times(pl.Series(names, dtype=pl.String))["time"]
    assert len(times) == len(names)
    assert times.dtype == pl.Int64


def test_moments_are_shown_as_they_are_read() -> None:
    assert show_moment(ZERO) == "2024-01-31T10:00:00Z"
    assert show_moment(2**62).endswith("µs")


def test_points_of_one_whole_second_are_spread_over_it(tmp_path: Path) -> None:
    """Five points a second with whole seconds, at 2e-5 degrees a point."""
    points = [point(number // 5, 50 + number * 2e-5, 5) for number in range(15)]
    seconds = np.array([0.5, 1.0, 1.5, 2.3])
    wanted = 50 + seconds * 1e-4
    for track in (gpx(points), gpx([text for text in points for _ in (0, 1)])):
        placed = place_on(track_of(tmp_path, track), ZERO + (seconds * 1e6).astype(np.int64), 10.0)
        assert placed.latitude.tolist() == pytest.approx(wanted.tolist(), abs=1e-9)


def test_a_second_pass_under_an_earlier_clock_is_refused_within_a_segment_too(tmp_path: Path) -> None:
    first = [point(second, 50 + second * 1e-4, 5) for second in range(11)]
    second = [point(5 + step, 50.01 + step * 1e-4, 5) for step in range(11)]
    with pytest.raises(InputError, match="overlap in time"):
        track_of(tmp_path, gpx(first + second))
    later = [point(20 + step, 50.01 + step * 1e-4, 5) for step in range(11)]
    assert track_of(tmp_path, gpx(later + first)).latitude.tolist() == pytest.approx(
        track_of(tmp_path, gpx(first + later)).latitude.tolist()
    )
    backward = track_of(tmp_path, gpx(first[::-1]))
    assert backward.latitude.tolist() == sorted(backward.latitude.tolist())
    assert set(backward.segment.tolist()) == {1}


@pytest.mark.parametrize(
    "time", ["2024-1-31T10:0:5Z", "2024-01-31T10:00:05", "2024-01-31 10:00:05", "2024-01-31T12:00:05+02:00"]
)
def test_times_of_points_as_programs_write_them(time: str, tmp_path: Path) -> None:
    text = f'<trkpt lat="50" lon="5"><time> {time} </time></trkpt>'
    track = track_of(tmp_path, gpx([text, '<trkpt lat="50" lon="5"/>']))
    assert (track.time - ZERO).tolist() == [5_000_000]
    assert track.notes("t.gpx")[0] == "t.gpx: 1 points have no fix or no time, and are passed over"
    assert [note for note in track.notes("t.gpx") if "UTC" in note] == (
        []
        if time[-1] == "Z" or "+" in time
        else ["t.gpx: the times of 1 points name no time zone, and are taken for UTC"]
    )
