"""Naming the kind of a dump, and saying so when another kind was asked for."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seqdata.errors import InputError
from seqdata.sources import open_source
from seqdata.sources.detect import looks_like_another, recognise
from tests.conftest import jpeg
from tests.seqdata.sources.test_sources import nordland_dump

LAP = "2014-12-16-09-14-09"


def touch(raw: Path, *names: str) -> Path:
    for name in names:
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(jpeg(1) if name.endswith(".jpg") else b"")
    return raw


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("msls", ["train_val/boston/query/seq_info.csv"]),
        ("msls", ["test/miami/database/seq_info.csv"]),
        ("msls", ["msls_images_vol_3.zip"]),
        ("msls", ["msls_metadata.zip"]),
        ("msls", ["msls_patch_v1.1.zip", "msls_checksums.md5"]),
        ("robotcar", [f"{LAP}/stereo.timestamps"]),
        ("robotcar", [f"{LAP}_stereo_left_01.tar"]),
        ("nordland", ["summer.zip", "summer.csv"]),
        ("nordland", ["winter/images-00001.png", "summer.csv", "clean_frames.txt"]),
        ("nordland", ["fall_images_train/section1/1.png"]),
        ("nordland", ["test/spring_images_test/1.png"]),
        ("nordland", ["spring_images_test.zip"]),
        ("folder", ["a.jpg", "positions.csv"]),
        ("folder", ["drive/deep/a.jpg", "drive.gpx"]),
        ("folder", ["summer/a.jpg", "winter/b.jpg", "positions.csv"]),
    ],
)
def test_kinds_are_told_by_names(kind: str, names: list[str], tmp_path: Path) -> None:
    assert recognise(touch(tmp_path, *names)) == kind


def test_the_dumps_of_the_tests_are_told(msls_dump: Path, drives: Path, tmp_path: Path) -> None:
    assert recognise(msls_dump) == "msls"
    assert recognise(drives) == "folder"
    assert recognise(nordland_dump(tmp_path / "raw", [163])) == "nordland"


def test_images_with_positions_of_their_own_are_a_folder(tmp_path: Path) -> None:
    picture = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    picture.save(tmp_path / "plain.jpg")
    with pytest.raises(InputError, match="images, but no position"):
        recognise(tmp_path)
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"
    picture.save(tmp_path / "placed.jpg", exif=exif)
    assert recognise(tmp_path) == "folder"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no dump that is known; looked for MSLS .*RobotCar .*Nordland .*EXIF"),
        (["notes.txt", "train_val/readme.txt", "2014/x.bin"], "no dump that is known"),
        (["summer/._a.jpg", "__MACOSX/b.jpg"], "no dump that is known"),
        (["summer.zip", "summer.csv", f"{LAP}/x.csv"], "holds nordland and robotcar dumps; name the kind"),
    ],
)
def test_nothing_and_ambiguity_are_one_clear_error(names: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as raised:
        recognise(touch(tmp_path, *names))
    assert "\n" not in str(raised.value)


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        recognise(tmp_path / "gone")
    (tmp_path / "file.zip").write_bytes(b"")
    with pytest.raises(InputError, match="a file; name the folder that it lies in"):
        open_source("msls", tmp_path / "file.zip", {})


def test_a_wrong_kind_is_named(msls_dump: Path, drives: Path, tmp_path: Path) -> None:
    train = nordland_dump(tmp_path / "raw", [163])
    for kind, raw, other in (
        ("msls", train, "nordland"),
        ("nordland", msls_dump, "msls"),
        ("nordland", drives, "folder"),
        ("msls", drives, "folder"),
    ):
        with pytest.raises(InputError, match=f"this looks like a {other} dump: use seqdata build {other}$"):
            open_source(kind, raw, {}).listing()
    assert looks_like_another(train, "nordland") == ""
    assert looks_like_another(tmp_path / "gone", "nordland") == ""


def test_a_right_kind_is_never_probed(msls_dump: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqdata.sources.detect.recognise", lambda _: pytest.fail("probed"))
    assert open_source("msls", msls_dump, {}).listing().records.height


def test_a_link_to_a_dump_is_followed(msls_dump: Path, tmp_path: Path) -> None:
    (tmp_path / "train_val").symlink_to(msls_dump / "train_val", target_is_directory=True)
    assert recognise(tmp_path) == "msls"


def test_real_dumps_are_told(real: Path) -> None:
    assert recognise(real / "nordland") == "nordland"
    assert recognise(real / "corridor") == "folder"
    assert recognise(real / "street-exif") == "folder"
    with pytest.raises(InputError, match="no dump that is known"):
        recognise(real / "robotcar-positions")
