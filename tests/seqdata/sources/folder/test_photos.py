"""The folder source without a table: drives from folders, positions from EXIF or a GPX track, roles and cuts."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import seqdata
from seqdata import geometry
from seqdata.build.builder import BuildRequest, build
from seqdata.errors import ContractError, InputError, SeqdataError
from seqdata.sequences import resampling
from seqdata.sources import Listing, open_source
from tests.conftest import jpeg, listed
from tests.seqdata.sources.folder.test_exif import ASCII, RATIONAL, clock, photo
from tests.seqdata.sources.folder.test_gpx import gpx, point


def placed_photo(latitude: float, longitude: float, taken: str = "") -> bytes:
    """A photo with a position (north and east) to a ten-millionth of a degree, and a camera clock."""
    places = [(1, ASCII, ["N"]), (2, RATIONAL, [(round(latitude * 1e7), 10**7)]), (3, ASCII, ["E"])]
    return photo([*places, (4, RATIONAL, [(round(longitude * 1e7), 10**7)])], clock(taken) if taken else [])


def listing(raw: Path, **options: str) -> Listing:
    return open_source("folder", raw, options).listing()


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """Twelve photos by number, 1.jpg … 12.jpg, eleven metres apart, without a clock; 7.jpg has no position."""
    for number in range(1, 13):
        data = jpeg(number) if number == 7 else placed_photo(50 + number * 1e-4, 5.5)
        (tmp_path / f"{number}.jpg").write_bytes(data)
    return tmp_path


def test_photos_without_a_clock_follow_their_numbers_and_windows_break_where_one_has_no_place(drive: Path) -> None:
    found = listing(drive)
    records = found.records
    assert records["source"].to_list() == [f"{n}.jpg" for n in range(1, 13) if n != 7]
    assert records["position"].to_list() == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    assert set(records["trajectory"]) == {"drive"}
    assert set(records["city"]) == {"own"}
    assert records["latitude"].to_list() == pytest.approx([50 + n * 1e-4 for n in range(1, 13) if n != 7])
    assert found.quarantine.select("source", "trajectory", "position", "reason").row(0) == (
        "7.jpg", "drive", 6, "no_position",
    )  # fmt: skip
    assert records.equals(listing(drive, positions="exif").records)


def test_folders_are_drives_and_clocks_order_them(tmp_path: Path) -> None:
    for name, second in (("b/x/1", 30), ("b/x/2", 10), ("a/3", 20), ("4", 5), ("a/1", 20)):
        path = tmp_path / f"{name}.JPG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(placed_photo(50 + second * 1e-5, 5.5, f"2024:01:31 10:00:{second:02d}"))
    records = listing(tmp_path).records
    assert records.select("trajectory", "position", "source").rows() == [
        ("a", 0, "a/1.JPG"), ("a", 1, "a/3.JPG"), ("b/x", 0, "b/x/2.JPG"), ("b/x", 1, "b/x/1.JPG"),
        ("drive", 0, "4.JPG"),
    ]  # fmt: skip
    assert records["time"].null_count() == 0


def test_a_csv_wins_over_a_track_and_a_track_over_exif(drive: Path) -> None:
    assert listing(drive).records["longitude"][0] == 5.5
    (drive / "t.GPX").write_text(gpx([point(0, 50, 7), point(10, 50, 7)]))
    (drive / "20240131_100005.jpg").write_bytes(jpeg(99))
    by_track = listing(drive)
    assert by_track.records.select("source", "longitude").rows() == [("20240131_100005.jpg", 7.0)]
    assert set(by_track.quarantine["reason"]) == {"no_time"}
    (drive / "positions.csv").write_text("image,latitude,longitude\n1.jpg,50,8\n")
    assert listing(drive).records["longitude"].to_list() == [8.0]
    assert listing(drive, positions=str(drive / "t.GPX")).records.height == 1
    assert listing(drive, positions="exif").records.height == 11
    (drive / "positions.csv").unlink()
    (drive / "u.gpx").write_text(gpx([point(0, 50, 7)]))
    with pytest.raises(InputError, match=r"holds 2 GPX tracks \(t.GPX, u.gpx\)"):
        listing(drive)


def test_a_folder_without_any_position_says_what_would_help(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg(1))
    with pytest.raises(InputError, match=r"no positions\.csv and no \.gpx, and none of its 1 images"):
        listing(tmp_path)
    asked = listing(tmp_path, positions="exif")
    assert asked.records.height == 0
    assert asked.quarantine["reason"].to_list() == ["no_position"]
    assert listing(tmp_path, positions="exif", cut="0.5").records.height == 0
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.jpg or \.png"):
        listing(tmp_path / "empty")


def test_images_on_a_track_are_interpolated_and_the_others_say_why_not(tmp_path: Path) -> None:
    (tmp_path / "log.gpx").write_text(
        gpx(
            [point(0, 50, 5), point(4, 50.0004, 5), point(30, 50.003, 5)],
            [point(31, 50.0031, 5), point(32, 50.0032, 5)],
        )
    )
    names = {
        "20240131_100001": 50.0001, "20240131_100003500": 50.00035, "20240131_100010": "pose_gap",
        "20240131_100030": 50.003, "20240131_100030500": "pose_gap", "20240131_100031500": 50.00315,
        "20240131_095959": "outside_track", "20240131_100033": "outside_track", "0001": "no_time",
    }  # fmt: skip
    for number, name in enumerate(names):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(number))
    found = listing(tmp_path)
    latitudes = dict(found.records.select(pl.col("source").str.head(-4), "latitude").rows())
    assert latitudes == pytest.approx({name: value for name, value in names.items() if isinstance(value, float)})
    reasons = dict(found.quarantine.select(pl.col("source").str.head(-4), "reason").rows())
    assert reasons == {name: value for name, value in names.items() if isinstance(value, str)}
    assert found.records["heading"].null_count() == found.records.height
    message = found.quarantine.filter(reason="outside_track")["message"][0]
    assert "2024-01-31T10:00:00Z to 2024-01-31T10:00:32Z" in message
    assert "time_offset" in message
    wide = listing(tmp_path, pose_gap="26")
    assert set(wide.quarantine["source"]) == set(found.quarantine["source"]) - {"20240131_100010.jpg"}
    strict = listing(tmp_path, pose_gap="0")
    assert strict.records["source"].to_list() == ["20240131_100030.jpg"], "a point's own time needs no second one"


def test_a_camera_clock_is_put_right_by_its_offset(tmp_path: Path) -> None:
    (tmp_path / "log.gpx").write_text(gpx([point(0, 50, 5), point(10, 50.001, 5)]))
    (tmp_path / "a.jpg").write_bytes(placed_photo(1, 1, "2024:01:31 12:00:03"))
    assert listing(tmp_path).quarantine["reason"].to_list() == ["outside_track"]
    for offset, latitude in (("-7200", 50.0003), ("-7199.5", 50.00035)):
        records = listing(tmp_path, time_offset=offset).records
        assert records["latitude"].to_list() == pytest.approx([latitude])
        assert records["time"].to_list() == [1_706_695_203_000_000 + round((float(offset) + 7200) * 1e6)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pose_gap": "wide"}, "option pose_gap has 'wide'"),
        ({"pose_gap": "-1"}, "a number of 0 or more"),
        ({"time_offset": "nan"}, "option time_offset has 'nan'"),
        ({"time_offset": "5"}, "option time_offset belongs to a GPX track"),
        ({"buffer": "5"}, "option buffer belongs to a cut"),
        ({"cut": "0.5", "buffer": "x"}, "option buffer has 'x'"),
        ({"cut": "2"}, "option cut has '2'"),
        ({"roles": "map:a"}, "option roles has 'map:a'"),
        ({"roles": "query:b"}, "no drive 'b'; there are drive"),
        ({"zone": "32N"}, "no option 'zone'"),
    ],
)
def test_options_that_are_none_are_named(options: dict[str, str], message: str, drive: Path) -> None:
    with pytest.raises(ContractError, match=message):
        listing(drive, **options)


def csv_of(rows: list[tuple[str, float, float, str]], columns: str = "drive") -> str:
    return f"image,latitude,longitude,{columns}\n" + "".join(f"{n},{a},{b},{c}\n" for n, a, b, c in rows)


def test_drives_far_apart_are_cities_in_their_own_zones(shots: Path) -> None:
    near = [("0.jpg", 50.0, 5.9, "a"), ("1.jpg", 50.0, 6.1, "b"), ("2.jpg", 51.2, 6.1, "c")]
    one = listed(shots, csv_of(near)).records
    assert set(one["city"]) == {"own"}, "drives that a step of 150 km connects stay one city, over a zone's edge too"
    assert one["zone"].n_unique() == 1
    far = [*near, ("3.jpg", -37.8, 144.9, "d"), ("4.jpg", 51.5, -0.1, "e"), ("5.jpg", 51.5, -0.1, "e")]
    records = listed(shots, csv_of(far)).records
    cities = dict(records.select("trajectory", "city").unique().rows())
    assert cities == {"a": "own-32N", "b": "own-32N", "c": "own-32N", "d": "own-55S", "e": "own-30N"}
    assert records.select(pl.col("city").str.tail(3) == pl.col("zone")).to_series().all()
    for row in records.iter_rows(named=True):
        easting, northing = geometry.to_utm([row["latitude"]], [row["longitude"]], row["zone"])
        assert (row["easting"], row["northing"]) == pytest.approx((easting[0], northing[0]))
    assert records["city"].rle_id().n_unique() == 3, "cities lie side by side"


def test_far_drives_of_one_zone_are_one_city(shots: Path) -> None:
    records = listed(shots, csv_of([("0.jpg", 48.0, 9.0, "a"), ("1.jpg", 52.0, 9.0, "b")])).records
    assert set(records["city"]) == {"own-32N"}


def test_the_column_city_says_which_drives_belong_together(shots: Path) -> None:
    rows = [("0.jpg", 50.0, 5.9, "a,west"), ("1.jpg", 50.0, 6.1, "b,east"), ("2.jpg", 50.0, 6.1, "c,")]
    records = listed(shots, csv_of(rows, "drive,city")).records
    assert records.select("source", "city", "zone").rows() == [
        ("1.jpg", "east", "32N"), ("2.jpg", "own", "32N"), ("0.jpg", "west", "31N"),
    ]  # fmt: skip
    with pytest.raises(ContractError, match="drive 'a' lies in several cities"):
        listed(shots, csv_of([("0.jpg", 50, 5, "a,west"), ("1.jpg", 50, 5, "a,east")], "drive,city"))


def test_published_metres_stay_in_every_city_of_one_zone(shots: Path) -> None:
    records = listed(
        shots,
        "image,easting,northing,zone,drive\n0.jpg,500000,5000000,32N,a\n1.jpg,500010,5000000,32N,a\n"
        "2.jpg,300000,5800000,55S,b\n",
    ).records
    assert records.select("city", "zone", "easting").rows() == [
        ("own-32N", "32N", 500_000.0), ("own-32N", "32N", 500_010.0), ("own-55S", "55S", 300_000.0),
    ]  # fmt: skip


@given(st.lists(st.tuples(st.floats(-70, 70), st.floats(-180, 180)), min_size=1, max_size=6))
@settings(deadline=None, max_examples=40)
def test_groups_of_drives_are_those_that_short_steps_connect(places: list[tuple[float, float]]) -> None:
    from seqdata.sources.folder.drives import with_places

    names = [f"d{number}" for number in range(len(places))]
    rows = pl.DataFrame({"row": range(len(places)), "drive": names, "latitude": [p[0] for p in places]})
    found = with_places(rows.with_columns(pl.Series("longitude", [p[1] for p in places])))
    lat, lon = np.radians(np.array(places)).T
    globe = np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]) * 6371
    apart = np.linalg.norm(globe[:, None] - globe[None], axis=2)
    if (np.abs(apart - 150) < 2).any():
        return
    joined = np.linalg.matrix_power((apart < 150).astype(int), len(places)) > 0
    cities = found["city"].to_numpy()
    for first in range(len(places)):
        for second in range(len(places)):
            assert not joined[first, second] or cities[first] == cities[second]
            if not joined[first, second] and cities[first] == cities[second]:
                assert cities[first].startswith("own-"), "only a shared zone joins groups that lie apart"
    assert (set(cities) == {"own"}) == joined.all()


def two_drives(folder: Path, count: int = 40) -> Path:
    """Two drives of one street of 1 km in photos, one of them 3 m aside."""
    for name, shift in (("first", 0.0), ("second", 3e-5)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}.jpg").write_bytes(placed_photo(50 + number * 0.009 / count, 5.5 + shift))
    return folder


def test_roles_are_given_to_drives(tmp_path: Path) -> None:
    raw = two_drives(tmp_path, 4)
    records = listing(raw, roles="database:first,query:second").records
    assert dict(records.select("trajectory", "role").unique().rows()) == {"first": "database", "second": "query"}
    assert listing(raw, roles="query:second").records["role"].null_count() == 4
    assert listing(raw).records["role"].null_count() == 8


def test_the_option_overrules_the_roles_of_the_table(shots: Path) -> None:
    (shots / "positions.csv").write_text(
        "image,latitude,longitude,drive,role\n0.jpg,50,5,a,query\n1.jpg,50,5,b,query\n2.jpg,50,5,b,database\n"
    )
    records = listing(shots, roles="database:a").records
    assert dict(records.select("trajectory", "role").rows()) == {
        "a": "database", "b/query": "query", "b/database": "database",
    }  # fmt: skip


def test_a_cut_makes_train_and_test_parts_that_keep_the_drives_roles(tmp_path: Path) -> None:
    raw = two_drives(tmp_path)
    records = listing(raw, roles="database:first,query:second", cut="0.6", buffer="60").records
    spans = records.group_by("trajectory", "role").agg(pl.col("position").min(), pl.col("position").max().alias("last"))
    assert spans.sort("trajectory").rows() == [
        ("first/buffer", None, 22, 23), ("first/test", "database", 24, 39), ("first/train", "database", 0, 21),
        ("second/buffer", None, 22, 23), ("second/test", "query", 24, 39), ("second/train", "query", 0, 21),
    ]  # fmt: skip
    assert records.height == 80, "frames of the buffer are kept"
    places = {
        side: records.filter(pl.col("trajectory").str.ends_with(side)).select("easting", "northing").to_numpy()
        for side in ("/train", "/test")
    }
    assert np.linalg.norm(places["/train"][:, None] - places["/test"][None], axis=2).min() > 60
    with pytest.raises(ContractError, match="leaves no frame to train"):
        listing(raw, cut="0.6", buffer="5000")
    with pytest.raises(ContractError, match="leaves no frame to test"):
        listing(raw, cut="5000m")


def test_mixed_roles_and_a_cut_name_each_part(shots: Path) -> None:
    rows = "".join(f"{n}.jpg,50.00{n},5,{'query' if n % 2 else 'database'}\n" for n in range(6))
    (shots / "positions.csv").write_text("image,latitude,longitude,role\n" + rows)
    records = listing(shots, cut="0.5", buffer="120").records
    assert dict(records.select("source", "trajectory").rows()) == {
        "0.jpg": "drive/database/train", "1.jpg": "drive/query/train", "2.jpg": "drive/buffer",
        "3.jpg": "drive/query/test", "4.jpg": "drive/database/test", "5.jpg": "drive/query/test",
    }  # fmt: skip


def test_a_cut_dataset_is_split_by_a_protocol_that_names_the_parts(tmp_path: Path) -> None:
    raw = two_drives(tmp_path / "raw")
    protocol = tmp_path / "cut.toml"
    protocol.write_text(
        'name = "cut"\nsource = "folder"\nlength = 3\n'
        + "".join(
            f'[splits.{side}]\ndatabase = ["first/{side}"]\nquery = ["second/{side}"]\n' for side in ("train", "test")
        )
    )
    options = {"cut": "0.6", "buffer": "60"}
    rules = seqdata.protocols.load(protocol)
    build(BuildRequest("folder", raw, tmp_path / "out", options=options, protocol=rules))
    dataset = seqdata.open(tmp_path / "out")
    assert dataset.frames.collect().height == 80
    positives = {path.name: pl.read_parquet(path).height for path in (tmp_path / "out").glob("positives-*")}
    assert sorted(name.rsplit("-", 1)[1] for name in positives) == ["test.parquet", "train.parquet"]
    assert min(positives.values()) > 0


CSV = "image,latitude,longitude,time,heading,drive,role,city\n0.jpg,50,5,2024-01-31,10,a,query,x\n1.jpg,51,6,,,b,,y\n"


@given(
    st.lists(st.tuples(st.integers(0, len(CSV) - 1), st.sampled_from('0,;"\n\t-.eNaté²∞\x00/')), max_size=6),
    st.sampled_from([{}, {"cut": "0.5", "buffer": "1"}, {"roles": "database:a"}]),
)
@settings(deadline=None, max_examples=150)
def test_any_table_is_listed_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, str]], options: dict[str, str]
) -> None:
    raw = tmp_path_factory.getbasetemp() / "fuzzed-table"
    raw.mkdir(exist_ok=True)
    for number in range(2):
        (raw / f"{number}.jpg").write_bytes(jpeg(number))
    text = list(CSV)
    for at, character in changes:
        text[at] = character
    (raw / "positions.csv").write_text("".join(text))
    try:
        found = listing(raw, **options)
    except SeqdataError:
        return
    assert found.records.select("easting", "northing", "zone", "city").null_count().sum_horizontal().sum() == 0
    assert {*found.records["source"], *found.quarantine["source"]} >= {"0.jpg", "1.jpg"}


@pytest.mark.real
def test_real_street_photos_are_built_by_their_exif(real: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(real / "street-exif", raw / "street")
    shutil.copytree(real / "bad-images", raw / "bad")
    manifest = build(BuildRequest("folder", raw, tmp_path / "out"))
    assert (manifest.counts.frames, manifest.counts.quarantined) == (29, {"no_position": 5})
    frames = seqdata.open(tmp_path / "out").frames.collect()
    assert set(frames["trajectory"]) == {"street"}
    assert set(frames["zone"]) == {"33N"}
    assert frames["source"].to_list() == sorted(frames["source"])
    steps = geometry.steps(frames["easting"], frames["northing"])[1:]
    assert (steps == 0).sum() == 2, "repeated fixes stay frames of their own"
    assert 15.5 < steps.max() < 16.5
    assert frames["resampled"].sum() == 26
    assert resampling.keep_mask(frames["easting"], frames["northing"], 2.0, "arc").sum() == 27
    assert frames["heading"].null_count() == 0
    assert frames["length"].sum() == sum(path.stat().st_size for path in (real / "street-exif").glob("*.jpg"))


@pytest.mark.real
def test_real_broken_exif_is_kept_where_a_table_gives_the_places(real: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(real / "bad-images", raw)
    with pytest.raises(InputError, match="none of its 5 images"):
        listing(raw)
    assert listing(raw, positions="exif").quarantine["reason"].to_list() == ["no_position"] * 5
    names = sorted(path.name for path in raw.glob("*.jpg"))
    (raw / "positions.csv").write_text(
        "image,latitude,longitude\n" + "".join(f"{name},50.000{n},5\n" for n, name in enumerate(names))
    )
    manifest = build(BuildRequest("folder", raw, tmp_path / "out"))
    assert (manifest.counts.frames, manifest.counts.quarantined) == (5, {})
