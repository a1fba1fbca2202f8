"""The folder source: own drives with a CSV of positions, as people and spreadsheets write them."""

import os
import shutil
from pathlib import Path

import pytest

import seqdata
from seqdata import geometry
from seqdata.build.builder import BuildRequest, build
from seqdata.errors import ContractError, InputError
from seqdata.sources import Listing, open_source
from seqdata.sources.folder.positions_csv import read_positions
from tests.conftest import jpeg, listed, write_drives


def test_a_file_name_that_is_no_text_is_in_quarantine(tmp_path: Path) -> None:
    raw = write_drives(tmp_path / "raw", {"map": 3})
    shutil.copy(raw / "map-000.jpg", os.fsencode(raw) + b"/\xff\xfe.jpg")
    shutil.copy(raw / "map-000.jpg", raw / "x:y.jpg")
    listing = open_source("folder", raw, {}).listing()
    assert listing.records.height == 3
    left_out = dict(listing.quarantine.select("source", "reason").iter_rows())
    assert left_out == {"\\xff\\xfe.jpg": "unreadable_image", "x:y.jpg": "no_row"}


def test_folder_takes_latitude_and_longitude_times_and_subfolders(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "a.b").mkdir(parents=True)
    (raw / "a_b").mkdir()
    for folder in ("a.b", "a_b"):
        (raw / folder / "1.jpg").write_bytes(jpeg(len(folder)))
    (raw / "late.jpg").write_bytes(jpeg(9))
    (raw / "positions.csv").write_text(
        "image,latitude,longitude,time\n"
        "late.jpg,-37.8136,144.9631,2024-01-02T10:00:05Z\n"
        "a.b/1.jpg,-37.8137,144.9631,2024-01-02T10:00:01Z\n"
        "a_b/1.jpg,-37.8138,144.9631,2024-01-02 10:00:03.5\n"
    )
    build(BuildRequest("folder", raw, tmp_path / "out"))
    frames = seqdata.open(tmp_path / "out").frames.collect()
    assert frames["source"].to_list() == ["a.b/1.jpg", "a_b/1.jpg", "late.jpg"]
    assert frames["key"].n_unique() == 3
    assert not frames["key"].str.contains(r"\.").any()
    assert frames["zone"].unique().to_list() == ["55S"]
    assert frames["time"].diff().to_list() == [None, 2_500_000, 1_500_000]


def test_paths_out_of_the_folder_are_not_read(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (tmp_path / "secret.jpg").write_bytes(jpeg(1))
    (raw / "1.jpg").write_bytes(jpeg(2))
    (raw / "positions.csv").write_text("image,latitude,longitude\n../secret.jpg,50,5\n1.jpg,50,5\n")
    listing = open_source("folder", raw, {}).listing()
    assert listing.records["source"].to_list() == ["1.jpg"]
    assert listing.quarantine["reason"].to_list() == ["missing_image"]
    with pytest.raises(KeyError):
        open_source("folder", raw, {}).read("../secret.jpg")


def test_utm_rows_without_a_place_are_left_out_one_by_one(shots: Path) -> None:
    listing = listed(
        shots,
        "image,easting,northing,zone\n"
        "0.jpg,500000,5000000, 32n \n1.jpg,500010,5000000,\n2.jpg,50,-5,32N\n3.jpg,1600000,5000000,32N\n"
        "4.jpg,90000,5000000,32N\n5.jpg,inf,5000000,32N\n",
    )
    assert listing.records["source"].to_list() == ["0.jpg", "4.jpg"]
    assert listing.records["zone"].to_list() == ["32N", "32N"]
    assert listing.records["easting"].to_list() == [500_000, 90_000], "published metres stay as they are"
    assert listing.quarantine["reason"].to_list() == ["no_position"] * 4
    with pytest.raises(ContractError, match=r"positions.csv: column 'zone'.*99X"):
        listed(shots, "image,easting,northing,zone\n0.jpg,500000,5000000,99X\n")
    nowhere = listed(shots, "image,easting,northing,zone\n0.jpg,500000,5000000,\n1.jpg,500000,9900000,32N\n")
    assert nowhere.records.height == 0
    assert nowhere.quarantine["reason"].to_list() == ["no_position"] * 2 + ["no_row"] * 4


def test_rows_of_several_zones_are_brought_into_the_median_positions(shots: Path) -> None:
    longitudes = [5.9990, 5.9995, 6.0005, 6.0010, 6.0015]
    rows, wanted = ["image,easting,northing,zone"], []
    for number, longitude in enumerate(longitudes):
        zone = geometry.choose_zone([50.0], [longitude])
        easting, northing = geometry.to_utm([50.0], [longitude], zone)
        rows.append(f"{number}.jpg,{easting[0]},{northing[0]},{zone}")
        wanted.append(float(geometry.to_utm([50.0], [longitude], "32N")[0][0]))
    order = [0, 4, 2, 1, 3]
    records = listed(shots, "\n".join([rows[0], *(rows[1 + n] for n in order)])).records
    assert records["source"].to_list() == [f"{n}.jpg" for n in order]
    assert set(records["zone"]) == {"32N"}
    assert records["easting"].to_list() == pytest.approx([wanted[n] for n in order], abs=0.01)
    assert records["longitude"].to_list() == pytest.approx([longitudes[n] for n in order], abs=1e-7)


def test_a_positions_file_without_rows_or_names_is_one_clear_error(shots: Path) -> None:
    for header in (
        "image,latitude,longitude",
        "image,easting,northing,zone,time,role,drive",
        "image,latitude,longitude\n\n",
    ):
        with pytest.raises(InputError, match=r"positions.csv: no row below the header"):
            listed(shots, header + "\n")
    with pytest.raises(ContractError, match="'image' is there twice"):
        listed(shots, "image, image ,latitude,longitude\n0.jpg,1.jpg,50,5\n")
    with pytest.raises(ContractError, match="'easting' is missing"):
        listed(shots, "image,latitude\n0.jpg,50\n")
    with pytest.raises(InputError, match="not readable as CSV"):
        listed(shots, "")


def test_a_row_without_an_image_name_is_named_by_its_number(shots: Path) -> None:
    text = "image,latitude,longitude\n0.jpg,50,5\n,50,5\n1.jpg,50,5\n\n  ,50,5\n2.jpg,50,5\n"
    listing = listed(shots, text)
    nameless = listing.quarantine.filter(reason="missing_image")
    assert nameless["source"].to_list() == ["positions.csv row 2", "positions.csv row 5"]
    assert listing.records["position"].to_list() == [0, 2, 4], "windows do not cross the nameless frame"


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfimage,latitude,longitude\n0.jpg,50.5,5.25\n",
        b"image;latitude;longitude\r\n0.jpg;50,5;5,25\r\n",
        b"image\tlatitude\tlongitude\n0.jpg\t50.5\t5.25\n",
        b" image , latitude,longitude \n 0.jpg , 50.5, 5.25 \n",
        b"image,latitude,longitude\n./0.jpg,50.5,5.25\n",
    ],
)
def test_csv_files_as_spreadsheets_write_them(text: bytes, shots: Path) -> None:
    records = listed(shots, text).records
    assert records.select("source", "latitude", "longitude").rows() == [("0.jpg", 50.5, 5.25)]


def test_windows_paths_and_upper_case_endings(shots: Path) -> None:
    (shots / "Cam" / "a").mkdir(parents=True)
    (shots / "0.jpg").rename(shots / "Cam" / "a" / "X.JPG")
    listing = listed(shots, "image,latitude,longitude\nCam\\a\\X.JPG,50,5\n")
    assert listing.records.select("source", "key").rows() == [("Cam/a/X.JPG", "Cam_a_X")]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-01-01T10:00:00Z", 0),
        ("2024-01-01T12:00:00+02:00", 0),
        ("2024-01-01 04:30:00.25-0530", 0.25),
        ("2024-01-01T12:00+02", 0),
        ("2024-01-01 10:00", 0),
        ("2024-01-01t10:00:01.123456789z", 1.123456),
        ("2024-01-01", -36_000),
        ("1704103200.5", 0.5),
        ("1.7041032e9", 0),
    ],
)
def test_times_are_read(text: str, seconds: float, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(f"image,latitude,longitude,time\n0.jpg,50,5,{text}\n")
    assert read_positions(tmp_path / "p.csv")["time"].to_list() == [1_704_103_200_000_000 + round(seconds * 1e6)]


@pytest.mark.parametrize(
    "text", ["noon", "2024-13-01T10:00:00", "2024-01-01T25:00", "nan", "1704103200000", "0000-01-01", "2024-01-01T10"]
)
def test_a_time_that_is_none_is_named(text: str, shots: Path) -> None:
    with pytest.raises(ContractError, match=rf"positions.csv: column 'time' has '{text}'"):
        listed(shots, f"image,latitude,longitude,time\n0.jpg,50,5,{text}\n")


def test_each_drive_decides_for_itself_whether_time_orders_it(shots: Path) -> None:
    records = listed(
        shots,
        "image,latitude,longitude,time,drive\n0.jpg,50,5,30,timed\n1.jpg,50,5,40,partly\n2.jpg,50,5,20,timed\n"
        "3.jpg,50,5,,partly\n4.jpg,50,5,10,timed\n5.jpg,50,5,10,partly\n",
    ).records
    assert records.filter(trajectory="timed")["source"].to_list() == ["4.jpg", "2.jpg", "0.jpg"]
    assert records.filter(trajectory="partly")["source"].to_list() == ["1.jpg", "3.jpg", "5.jpg"]


def test_a_drive_with_both_roles_is_split_and_windows_do_not_cross_the_gap(shots: Path) -> None:
    head = "image,latitude,longitude,drive,role\n"
    roles = ["database", "database", "query", "database", "query", "query"]
    rows = "".join(f"{n}.jpg,50.000{n},5,a,{role}\n" for n, role in enumerate(roles))
    records = listed(shots, head + rows).records
    assert records.filter(trajectory="a/database")["position"].to_list() == [0, 1, 3]
    assert records.filter(trajectory="a/query")["position"].to_list() == [2, 4, 5]
    whole = listed(shots, head + rows.replace("query", "database")).records
    assert set(whole["trajectory"]) == {"a"}
    partly = listed(shots, head + rows.replace("query", "")).records
    assert set(partly["trajectory"]) == {"a", "a/database"}, "frames without a role are no part of the database's"
    with pytest.raises(ContractError, match="'a/query'"):
        listed(shots, head + rows.replace("5.jpg,50.0005,5,a,", "5.jpg,50.0005,5,a/query,"))


def listing_of(raw: Path, names: list[str], table: str) -> Listing:
    raw.mkdir()
    for number, name in enumerate(names):
        (raw / name).write_bytes(jpeg(number))
    (raw / "positions.csv").write_text(table)
    return open_source("folder", raw, {}).listing()


def test_comments_between_rows_take_no_position(tmp_path: Path) -> None:
    """Only where nothing stands beside them: an image may be called #2.jpg."""
    table = "image,latitude,longitude\n1.jpg,48,16\n# a pause\n#2.jpg,48.0001,16\n#,,\n3.jpg,48.0002,16\n"
    listing = listing_of(tmp_path / "raw", ["1.jpg", "#2.jpg", "3.jpg"], table)
    assert listing.records.select("source", "position").rows() == [("1.jpg", 0), ("#2.jpg", 1), ("3.jpg", 2)]
    assert not listing.quarantine.height


def test_headings_that_are_no_angle_are_told(tmp_path: Path) -> None:
    cells = enumerate(["90", "N", "1e9", "nan"], start=1)
    rows = "".join(f"{number}.jpg,48.000{number},16,{heading}\n" for number, heading in cells)
    table = f"image,latitude,longitude,heading\n{rows}"
    listing = listing_of(tmp_path / "raw", ["1.jpg", "2.jpg", "3.jpg", "4.jpg"], table)
    assert listing.notes == (
        "positions.csv row 2: column 'heading' has 'N', which is no angle; the direction of driving is taken in 2 of 4 "
        "rows",
    )
    assert listing.records["heading"][0] == 90


def test_accented_names_in_either_form_are_one_name(tmp_path: Path) -> None:
    composed, parted = "caf\u00e9.jpg", "cafe\u0301.jpg"
    for number, (on_disk, listed_name) in enumerate([(composed, parted), (parted, composed), (parted, parted)]):
        table = f"image,latitude,longitude\n{listed_name},48,16\n2.jpg,48.0001,16\n"
        listing = listing_of(tmp_path / f"raw-{number}", [on_disk, "2.jpg"], table)
        assert listing.records["source"].to_list() == [on_disk, "2.jpg"]
        assert not listing.quarantine.height
    both = listing_of(
        tmp_path / "both", [composed, parted], f"image,latitude,longitude\n{parted},48,16\n{composed},48.0001,16\n"
    )
    assert both.records["source"].to_list() == [parted, composed]


def test_an_image_listed_at_two_places_is_told_from_one_listed_twice(tmp_path: Path) -> None:
    table = "image,latitude,longitude\n1.jpg,48,16\n1.jpg,48,16\n1.jpg,48.5,16\n2.jpg,48.0001,16\n"
    listing = listing_of(tmp_path / "raw", ["1.jpg", "2.jpg"], table)
    assert listing.quarantine["message"].to_list() == [
        "positions.csv row 2 lists the image of row 1 again",
        "positions.csv row 3 lists the image of row 1 again, at another place",
    ]
