"""In which order images of a folder are searched for: tables, EXIF, counting names, and what is refused."""

from pathlib import Path

import polars as pl
import pytest

from seqdata.errors import ContractError, InputError
from seqdata.sources.driving_order import image_drives
from tests.conftest import jpeg
from tests.seqdata.sources.folder.test_exif import clock, photo


def write(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def names_of(folder: Path, **options: object) -> list[list[str]]:
    return [[path.name for path in drive.images] for drive in image_drives(folder, **options)]


def test_msls_images_are_read_drive_by_drive(msls_dump: Path) -> None:
    """Against the dump's own tables: neighbours in a drive are one frame number apart in one sequence."""
    city = msls_dump / "train_val" / "southport" / "query"
    table = pl.read_csv(city / "seq_info.csv")
    rows = {key: (sequence, number) for key, sequence, number in table["key", "sequence_key", "frame_number"].rows()}
    for drive in (drives := image_drives(city / "images")):
        steps = [rows[path.stem] for path in drive.images]
        assert [(sequence, number - steps[0][1]) for sequence, number in steps] == [
            (steps[0][0], position) for position in range(len(steps))
        ]
        assert drive.order == "seq_info.csv"
    images = {path.name for path in (city / "images").iterdir()}
    assert {path.name for drive in drives for path in drive.images} == images
    assert len({drive.name for drive in drives}) == len(drives)
    assert image_drives(city) == drives  # the folder above holds the same images
    assert len(image_drives(msls_dump)) > len(drives)


def test_a_removed_image_ends_a_drive(tmp_path: Path) -> None:
    images = write(tmp_path / "query" / "images", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    (tmp_path / "query" / "seq_info.csv").write_text("key,sequence_key,frame_number\nd,S,1\na,S,2\nc,S,4\nb,T,5\n")
    assert names_of(images) == [["d.jpg", "a.jpg"], ["c.jpg"], ["b.jpg"]]


def test_a_positions_table_above_the_folder(tmp_path: Path) -> None:
    images = write(tmp_path / "raw" / "monday", "x.jpg", "y.jpg", "z.jpg")
    (tmp_path / "raw" / "positions.csv").write_text(
        "image,drive,time\nmonday/z.jpg,one,\nmonday/x.jpg,one,\nother/y.jpg,one,\nmonday/y.jpg,two,5\n"
    )
    assert names_of(images) == [["z.jpg", "x.jpg"], ["y.jpg"]]


def test_a_table_by_time_or_by_its_rows(tmp_path: Path) -> None:
    images = write(tmp_path / "images", "x.jpg", "y.jpg", "z.jpg")
    table = tmp_path / "order.csv"
    table.write_text("image,time\nx.jpg,30\ny.jpg,10\nz.jpg,20\n")
    assert names_of(images, table=table) == [["y.jpg", "z.jpg", "x.jpg"]]
    table.write_text("image\nz.jpg\nx.jpg\n")
    assert names_of(images, table=table) == [["z.jpg", "x.jpg"]]
    table.write_text("image\nw.jpg\n")
    with pytest.raises(ContractError, match="lists none of the images"):
        image_drives(images, table=table)


def test_times_in_exif_come_before_names(tmp_path: Path) -> None:
    for name, second in (("1.jpg", 30), ("2.jpg", 20), ("3.jpg", 10)):
        (tmp_path / name).write_bytes(photo([], clock(f"2024:01:31 10:00:{second}")))
    assert names_of(tmp_path) == [["3.jpg", "2.jpg", "1.jpg"]]
    assert names_of(tmp_path, order="name") == [["1.jpg", "2.jpg", "3.jpg"]]
    (tmp_path / "4.jpg").write_bytes(jpeg(4))
    assert names_of(tmp_path) == [["1.jpg", "2.jpg", "3.jpg", "4.jpg"]]  # not all have a time: the names count
    with pytest.raises(InputError, match=r"4\.jpg: neither its EXIF nor its name says when"):
        image_drives(tmp_path, "time")


@pytest.mark.parametrize(
    ("names", "drives"),
    [
        (["10.jpg", "9.jpg", "1.jpg"], [["1.jpg", "9.jpg", "10.jpg"]]),
        (["map-1.jpg", "map-2.jpg", "q-1.jpg", "q-2.jpg"], [["map-1.jpg", "map-2.jpg"], ["q-1.jpg", "q-2.jpg"]]),
        (["1418381798086398.png", "1418381798024000.png"], [["1418381798024000.png", "1418381798086398.png"]]),
        (["0000000000010.png", "0000000000009.png"], [["0000000000009.png", "0000000000010.png"]]),
    ],
)
def test_names_that_count(names: list[str], drives: list[list[str]], tmp_path: Path) -> None:
    assert names_of(write(tmp_path / "images", *names)) == drives


@pytest.mark.parametrize(
    "names",
    [
        ["-OPT_LPsEYjssg0WP1tv5Y.jpg", "vRfo0GNVlehBUeoOhM0wYB.jpg"],  # MSLS keys
        ["498763468214164.jpg", "1933525276802129.jpg"],  # Mapillary's image numbers
        ["9f86d081884c7d65.jpg", "60303ae22b998861.jpg", "fd61a03af4f77d87.jpg"],  # hashes
        ["north.jpg", "south.jpg"],
        ["1.jpg", "2.jpg", "cover.jpg"],
    ],
)
def test_names_that_count_nothing_are_refused(names: list[str], tmp_path: Path) -> None:
    images = write(tmp_path / "images", *names)
    with pytest.raises(InputError, match=f"order its {len(names)} images were taken .*give --order name, or"):
        image_drives(images)
    assert names_of(images, order="name") == [sorted(names)] or len(names_of(images, order="name")) == 1


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "images" / ".thumbnails", "1.jpg")
    with pytest.raises(InputError, match=r"images: no \.jpg or \.png image there"):
        image_drives(tmp_path / "images")
