"""Own drives with what goes wrong in the field: positions, zones, headings, repeated rows, links, other files."""

import re
import shutil
from pathlib import Path

import polars as pl
import pytest

import seqdata
from seqdata.build.builder import BuildRequest, build
from seqdata.errors import ContractError, InputError
from seqdata.sources import Listing, open_source
from seqdata.sources.files import is_image, walk
from seqdata.sources.folder.positions_csv import read_positions
from tests.conftest import jpeg, listed
from tests.seqdata.sources.folder.test_gpx import gpx, point
from tests.seqdata.sources.folder.test_photos import placed_photo


def listing(raw: Path, **options: str) -> Listing:
    return open_source("folder", raw, options).listing()


@pytest.mark.parametrize("position", ["0,0", "0.0,-0.0", "0.00001,0.00002", "91,5", "50,181"])
def test_a_position_without_a_fix_is_none_whatever_writes_it(position: str, shots: Path) -> None:
    rows = [f"0.jpg,{position}", "1.jpg,50,5", "2.jpg,0,5", "3.jpg,50,0"]
    by_table = listed(shots, "image,latitude,longitude\n" + "\n".join(rows))
    assert by_table.records["source"].to_list() == ["1.jpg", "2.jpg", "3.jpg"]
    fault = by_table.quarantine.filter(reason="no_position")
    assert fault["source"].to_list() == ["0.jpg"]
    assert "no GPS fix" in fault["message"][0]


def test_points_of_a_track_without_a_fix_are_passed_over(tmp_path: Path) -> None:
    points = [point(0, 0, 0), point(1, 0, 0), point(2, 50.002, 5), point(3, 50.003, 5)]
    points.append(point(4, 50.003, 5).replace("<ele>", "<fix>none</fix><ele>"))
    (tmp_path / "t.gpx").write_text(gpx(points))
    for second in range(5):
        (tmp_path / f"20240131_10000{second}500.jpg").write_bytes(jpeg(second))
    got = listing(tmp_path)
    assert got.records["latitude"].to_list() == pytest.approx([50.0025])
    assert set(got.quarantine["reason"]) == {"outside_track"}


def utm_rows(zone: str, northing: float) -> str:
    return "image,easting,northing,zone\n" + "".join(f"{n}.jpg,551081,{northing + n},{zone}\n" for n in range(3))


@pytest.mark.parametrize(
    ("zone", "northing", "options", "stored", "latitude"),
    [
        ("32U", 5_339_437, {}, "32N", 48.2),
        ("10s", 4_180_454, {"zone_letters": "band"}, "10N", 37.77),
        ("10S", 4_180_454, {"zone_letters": "hemisphere"}, "10S", -52.5),
        ("56S", 6_250_000, {}, "56S", -33.9),
        ("56 H", 6_250_000, {}, "56S", -33.9),
        ("1N", 110_000, {}, "1N", 1.0),
    ],
)
def test_zone_letters_are_bands_or_hemispheres(
    zone: str, northing: float, options: dict[str, str], stored: str, latitude: float, shots: Path
) -> None:
    (shots / "positions.csv").write_text(utm_rows(zone, northing))
    records = listing(shots, **options).records
    assert set(records["zone"]) == {stored}
    assert records["latitude"].to_list() == pytest.approx([latitude] * 3, abs=0.1)


def test_a_zone_letter_with_two_meanings_is_refused_naming_the_option(shots: Path) -> None:
    (shots / "positions.csv").write_text(utm_rows("10S", 4_180_454))
    with pytest.raises(ContractError, match=r"'10S' the latitude band .*--option zone_letters=band"):
        listing(shots)
    with pytest.raises(ContractError, match="zone_letters has 'x'; it takes band or hemisphere"):
        listing(shots, zone_letters="x")
    (shots / "positions.csv").write_text(utm_rows("10S", 4_180_454) + "3.jpg,551081,4500000,10T\n")
    assert set(listing(shots).records["zone"]) == {"10N"}, "another row writes bands"
    (shots / "positions.csv").write_text(utm_rows("10I", 4_180_454))
    with pytest.raises(ContractError, match="zone '10I'"):
        listing(shots)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("5,0,33N", "local coordinates"),
        ("5000,3000,33N", "local coordinates"),
        ("16.37,48.2,33N", "local coordinates"),
        ("333471,-3746981,56S", "add 10,000,000"),
        ("333471,12000000,56S", "out of the range"),
        ("333471,5000000,", "no zone"),
        ("33x,5000000,33N", r"positions.csv row 1: column 'easting' has '33x', which is no number"),
    ],
)
def test_metres_that_are_none_say_why(row: str, message: str, shots: Path) -> None:
    got = listed(shots, f"image,easting,northing,zone\n0.jpg,{row}\n")
    assert got.records.height == 0
    assert got.quarantine["reason"][0] == "no_position"
    assert message in got.quarantine["message"][0]


def test_a_cell_that_is_no_number_is_named_and_the_others_are_read(shots: Path) -> None:
    got = listed(shots, 'image,latitude,longitude\n0.jpg,"48,2","16,37"\n1.jpg,4 8.2,16.37\n2.jpg,48.3,16.37\n')
    assert got.records["latitude"].to_list() == [48.2, 48.3]
    fault = got.quarantine.filter(reason="no_position")
    assert fault["message"].to_list() == ["positions.csv row 2: column 'latitude' has '4 8.2', which is no number"]


def test_where_no_frame_is_usable_each_reason_is_told_once_with_its_count(shots: Path, tmp_path: Path) -> None:
    (shots / "positions.csv").write_text("image,latitude,longitude\n0.jpg,x,5\n1.jpg,y,5\ngone.jpg,5,5\n")
    with pytest.raises(InputError) as raised:
        build(BuildRequest("folder", shots, tmp_path / "out"))
    message = str(raised.value)
    assert "2 no_position (0.jpg: positions.csv row 1: column 'latitude' has 'x'" in message
    assert "1 missing_image (gone.jpg: listed in positions.csv, but no such image file)" in message


def test_headings_are_brought_into_one_turn(shots: Path) -> None:
    cells = ["-90", "370", "360", "359.9999999", "1e9", "NaN"]
    rows = "".join(f"{n}.jpg,50,5,{cell}\n" for n, cell in enumerate(cells))
    headings = listed(shots, "image,latitude,longitude,heading\n" + rows).records["heading"].to_list()
    assert headings == [270.0, 10.0, 0.0, 0.0, None, None]


@pytest.mark.parametrize(
    "times", [["1.62E+09"] * 3, ["44348.41666", "44348.41667", "44348.41668"], ["1.62254e+09"] * 3]
)
def test_times_that_a_spreadsheet_has_changed_are_refused(times: list[str], tmp_path: Path) -> None:
    rows = "".join(f"{n}.jpg,50,5,{time}\n" for n, time in enumerate(times))
    (tmp_path / "p.csv").write_text("image,latitude,longitude,time\n" + rows)
    with pytest.raises(ContractError, match=rf"column 'time' has '{re.escape(times[0])}.*spreadsheet"):
        read_positions(tmp_path / "p.csv")


@pytest.mark.parametrize("text", ["2024-1-1T10:0:0Z", "2024/01/01 10:00:00", "2023-12-31T34:00:00".replace("34", "24")])
def test_more_iso_times_are_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(f"image,latitude,longitude,time\n0.jpg,50,5,{text}\n")
    hours = 0 if text.startswith("2023") else 10
    assert read_positions(tmp_path / "p.csv")["time"].to_list() == [1_704_067_200_000_000 + hours * 3_600_000_000]


def test_an_image_that_is_listed_twice_takes_one_position(shots: Path, tmp_path: Path) -> None:
    rows = [f"{n}.jpg,50.000{n},5" for n in range(6)]
    twice = [text for row in rows for text in (row, ".//" + row)]
    got = listed(shots, "image,latitude,longitude\n" + "\n".join(twice))
    assert got.records["position"].to_list() == list(range(6))
    assert got.records["key"].to_list() == [str(n) for n in range(6)]
    assert got.quarantine["reason"].to_list() == ["duplicate_key"] * 6
    assert got.quarantine["message"][0] == "positions.csv row 2 lists the image of row 1 again"


def test_a_drive_far_beyond_its_zone_is_said(shots: Path) -> None:
    rows = "".join(f"{n}.jpg,50,{n * 8}\n" for n in range(6))
    notes = listed(shots, "image,latitude,longitude\n" + rows).notes
    assert len(notes) == 1
    assert "drive 'drive' reaches" in notes[0]
    assert "too long" in notes[0]
    assert listed(shots, "image,latitude,longitude\n0.jpg,50,5\n1.jpg,50.1,5\n").notes == ()


def make_drive(folder: Path, first: int = 0) -> None:
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(placed_photo(50 + (first + number) * 1e-4, 5.5))


def test_links_to_drives_are_followed_and_loops_end(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    make_drive(raw / "d1")
    make_drive(tmp_path / "elsewhere" / "d2", 3)
    (raw / "d2").symlink_to("../elsewhere/d2")
    (raw / "d1" / "up").symlink_to(raw)
    (raw / "self").symlink_to("self")
    records = listing(raw).records
    assert records.group_by("trajectory").len().sort("trajectory").rows() == [("d1", 3), ("d2", 3)]
    rows = "".join(f"{drive}/{n}.jpg,50,5\n" for drive in ("d1", "d2") for n in range(3))
    assert listed(raw, "image,latitude,longitude\n" + rows).records.height == 6
    build(BuildRequest("folder", raw, tmp_path / "out"))
    assert seqdata.open(tmp_path / "out").frames.collect().height == 6


def test_a_link_to_a_drive_of_the_same_dump_is_no_second_drive(tmp_path: Path) -> None:
    make_drive(tmp_path / "d1")
    (tmp_path / "latest").symlink_to("d1")
    got = listing(tmp_path)
    assert set(got.records["trajectory"]) == {"d1"}
    assert got.quarantine.height == 0
    named = listed(tmp_path, "image,latitude,longitude\n" + "".join(f"latest/{n}.jpg,50,5\n" for n in range(3)))
    assert named.records.height == 3, "a table may name images by way of the link"


def test_a_link_that_leads_nowhere_is_in_quarantine(tmp_path: Path) -> None:
    make_drive(tmp_path / "d1")
    (tmp_path / "d1" / "9.jpg").symlink_to("gone.jpg")
    assert listing(tmp_path).quarantine.select("source", "reason").rows() == [("d1/9.jpg", "missing_image")]


@pytest.mark.parametrize(
    "folder", [".thumbnails", "a/@eaDir", "Thumbnails", "#recycle", ".Trash-1000/files", "__MACOSX"]
)
def test_folders_of_thumbnails_are_no_drives(folder: str, tmp_path: Path) -> None:
    make_drive(tmp_path / "d1")
    make_drive(tmp_path / folder)
    got = listing(tmp_path)
    assert set(got.records["trajectory"]) == {"d1"}
    assert got.quarantine.height == 0
    hidden = listed(tmp_path, f"image,latitude,longitude\n{folder}/0.jpg,50,5\nd1/0.jpg,50,5\n").quarantine
    assert "hidden files and folders" in hidden.filter(source=f"{folder}/0.jpg")["message"].item()


KINDS = ["c.jpe", "d.jfif", "e.webp", "f.tif", "g.BMP", "i.pgm", "j.avif", "k.heic", "l.dng", "m.gif", "n.jxl"]


def test_images_of_other_kinds_are_there_but_not_read(shots: Path) -> None:
    for name in KINDS:
        shutil.copy(shots / "0.jpg", shots / name)
    rows = "".join(f"{name},50,5\n" for name in ["0.jpg", *KINDS[:6]])
    left_out = listed(shots, "image,latitude,longitude\n" + rows).quarantine
    reasons = dict(left_out.filter(pl.col("source").is_in(KINDS)).select("source", "reason").rows())
    assert reasons == dict.fromkeys(KINDS, "unreadable_image")
    assert left_out["message"].str.contains("this kind of image is not read").sum() == len(KINDS)
    for path in shots.glob("*.jpg"):
        path.unlink()
    with pytest.raises(
        InputError, match=r"no \.jpg or \.png image below it, but 1 of .*this kind of image is not read"
    ):
        listing(shots)


def test_a_dump_with_files_that_are_no_images_has_one_id(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    picture = jpeg(1)
    broken = {
        "html": b"<!DOCTYPE html><html>404</html>", "lfs": b"version https://git-lfs.github.com/spec/v1\n",
        "noise": b"GIF87b" + bytes(range(64)), "png": b"\x89PNG\r\n\x1a\n" + b"cut", "zeros": bytes(500),
        "cut": picture[: len(picture) // 2], "scan": picture[:-200] + bytes(198) + picture[-2:], "header": picture[:30],
    }  # fmt: skip
    for name, data in {"good": picture, **broken}.items():
        (raw / f"{name}.jpg").write_bytes(data)
    rows = "".join(f"{name}.jpg,50,5\n" for name in ("good", *broken))
    (raw / "positions.csv").write_text("image,latitude,longitude\n" + rows)
    manifests = [build(BuildRequest("folder", raw, tmp_path / name)) for name in ("a", "b")]
    assert manifests[0].id == manifests[1].id
    messages = seqdata.open(tmp_path / "a").quarantine["message"]
    assert not messages.str.contains(r"0x[0-9a-f]{6}|BytesIO|Pillow|libjpeg").any()
    assert messages.str.contains("web page").any()
    assert messages.str.contains("git lfs pull").any()


def test_a_walk_knows_its_files_without_links(tmp_path: Path) -> None:
    make_drive(tmp_path / "d1")
    assert [file.name for file in walk(tmp_path) if is_image(file.name)] == ["d1/0.jpg", "d1/1.jpg", "d1/2.jpg"]
