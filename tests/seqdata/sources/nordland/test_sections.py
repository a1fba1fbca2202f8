"""Nordland's layouts: folders, zips and the sectioned split give the same records and the same bytes."""

import shutil
import zipfile
from pathlib import Path

import polars as pl
import pytest

import seqdata
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings
from seqdata.errors import InputError
from seqdata.sources import Listing, open_source
from tests.conftest import jpeg
from tests.seqdata.sources.test_sources import nordland_dump

NUMBERS = [1, 160, 163, 173, 183, 193]


def images(raw: Path) -> dict[tuple[str, int], bytes]:
    return {
        (folder.name, int(path.stem[-5:])): path.read_bytes()
        for folder in (raw / "summer", raw / "winter")
        for path in folder.iterdir()
    }


def place(layout: str, raw: Path, season: str, number: int, data: bytes) -> None:
    """Put one image where the layout has it; frames from 183 are the test part."""
    part = "test" if number >= 183 else "train"
    name = {
        "folder": f"{season}/images-{number:05d}.png",
        "zip": f"{season}.zip",
        "sections": f"{season}_images_{part}/{number}.png",
        "sections below": f"{part}/{season}_images_{part}/section1/{number}.png",
        "section zips": f"{season}_images_{part}.zip",
    }[layout]
    (raw / name).parent.mkdir(parents=True, exist_ok=True)
    if not name.endswith(".zip"):
        (raw / name).write_bytes(data)
        return
    with zipfile.ZipFile(raw / name, "a") as archive:
        member = f"images-{number:05d}.png" if layout == "zip" else f"section1/{number}.png"
        archive.writestr(f"{name[:-4]}/{member}", data)


def laid_out(layout: str, tmp_path: Path) -> tuple[Path, Path]:
    """The same frames as folders and as `layout`."""
    folders = nordland_dump(tmp_path / "folders", NUMBERS)
    (folders / "winter" / "images-00173.png").unlink()
    (folders / "clean_frames.txt").write_text("images-00163.png\nimages-00183.png\n")
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("summer.csv", "clean_frames.txt"):
        shutil.copy(folders / name, raw)
    for (season, number), data in images(folders).items():
        place(layout, raw, season, number, data)
    return folders, raw


def listing(raw: Path) -> Listing:
    return open_source("nordland", raw, {}).listing()


@pytest.mark.parametrize("layout", ["folder", "zip", "sections", "sections below", "section zips"])
def test_every_layout_gives_the_same_records_and_bytes(layout: str, tmp_path: Path) -> None:
    folders, raw = laid_out(layout, tmp_path)
    one, two = listing(folders), listing(raw)
    assert one.records.height == 2 * len(NUMBERS) - 1
    assert two.records.drop("source").equals(one.records.drop("source"))
    assert two.quarantine.height == 0
    here, there = open_source("nordland", folders, {}), open_source("nordland", raw, {})
    for a, b in zip(one.records["source"], two.records["source"], strict=True):
        assert here.read(a) == there.read(b)
    for name, place in (("one", folders), ("two", raw)):
        build(BuildRequest("nordland", place, tmp_path / name, protocol=protocols.load("nordland-tenth")))
    tables = [
        seqdata.open(tmp_path / name).frames.collect().select("key", "position", "hash") for name in ("one", "two")
    ]
    assert tables[0].equals(tables[1])


def test_a_frame_is_one_place_in_every_season(tmp_path: Path) -> None:
    records = listing(laid_out("sections", tmp_path)[1]).records
    number = pl.col("key").str.slice(-5).alias("number")
    place = ["latitude", "longitude", "easting", "northing", "zone", "position", "clean_position"]
    places = records.select(number, *place).unique()
    assert places.height == len(NUMBERS)


@pytest.mark.parametrize(
    "numbers", [{"train": [0, 1], "test": [500]}, {"train": [5, 6], "test": [6, 7]}, {"test": [0]}]
)
def test_numbers_that_count_within_the_split_are_refused(numbers: dict[str, list[int]], tmp_path: Path) -> None:
    raw = nordland_dump(tmp_path / "raw", [])
    for part, listed in numbers.items():
        for number in listed:
            path = raw / part / f"winter_images_{part}" / "section1" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(number))
    with pytest.raises(InputError, match="winter_images_train and _test sections count their images from 0 or anew"):
        listing(raw)


def test_the_whole_season_goes_before_its_sections(tmp_path: Path) -> None:
    raw = nordland_dump(tmp_path / "raw", [163, 173])
    place("sections", raw, "winter", 183, jpeg(1))
    place("sections", raw, "fall", 183, jpeg(1))
    sources = listing(raw).records.filter(pl.col("trajectory") != "summer")["source"].to_list()
    assert sources == ["fall_images_test/183.png", "winter/images-00163.png", "winter/images-00173.png"]


def test_members_that_lead_outside_are_left_out_by_name(tmp_path: Path) -> None:
    raw = nordland_dump(tmp_path / "raw", [163])
    with zipfile.ZipFile(raw / "fall.zip", "w") as archive:
        archive.writestr("../images-00163.png", jpeg(1))
        archive.writestr("fall/images-00173.png", jpeg(1))
    found = listing(raw)
    assert found.quarantine.select("source", "reason").rows() == [("fall.zip!../images-00163.png", "unreadable_image")]
    assert found.records.filter(trajectory="fall")["key"].to_list() == ["fall-00173"]
    source = open_source("nordland", raw, {})
    for name in ("fall.zip!../images-00163.png", "../raw/fall.zip!fall/images-00173.png", "../raw/summer.csv"):
        with pytest.raises(KeyError):
            source.read(name)


def test_a_bomb_is_one_frame_in_quarantine(tmp_path: Path) -> None:
    raw = nordland_dump(tmp_path / "raw", [163, 173])
    with zipfile.ZipFile(raw / "fall.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images-00163.png", bytes(64 << 20))
        archive.writestr("images-00173.png", jpeg(1))
    build(BuildRequest("nordland", raw, tmp_path / "out"))
    quarantine = seqdata.open(tmp_path / "out").quarantine
    assert quarantine.select("source", "reason").rows() == [("fall.zip!images-00163.png", "unreadable_image")]
    assert "bomb" in quarantine["message"][0]


def test_a_cut_zip_is_named(tmp_path: Path) -> None:
    raw = laid_out("zip", tmp_path)[1]
    (raw / "winter.zip").write_bytes((raw / "winter.zip").read_bytes()[:-60])
    with pytest.raises(InputError, match=r"winter.zip: .*download it again"):
        listing(raw)


def test_real_frames_at_two_metres_are_all_kept_but_where_the_train_stands(real: Path, tmp_path: Path) -> None:
    request = BuildRequest("nordland", real / "nordland", tmp_path / "out", settings=BuildSettings(resample_metres=2.0))
    assert build(request).counts.frames == 7152
    dataset = seqdata.open(tmp_path / "out")
    assert dataset.quarantine.height == 0
    frames = dataset.frames.collect().sort("trajectory", "position")
    for _, season in frames.group_by("trajectory"):
        metres = season["track_m"].diff().drop_nulls()
        moving = metres >= 2.0
        assert 200 < metres.median() < 300, "every tenth second at 25 m/s"
        kept = season["resampled"].sum()
        assert moving.sum() <= kept <= moving.sum() + 1 + (~moving).sum() // 20
    summer, winter = (frames.filter(trajectory=name) for name in ("summer", "winter"))
    assert summer["easting"].equals(winter["easting"])
