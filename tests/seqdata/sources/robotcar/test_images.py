"""RobotCar's pictures: colours of the Bayer pattern, lookup tables, the crop, and what passes through."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seqdata.errors import ContractError, InputError
from seqdata.frames.images import BadImageError
from seqdata.sources.robotcar.images import Development, demosaic, develop, lookup_file, parse_crop, undistort

PATTERNS = {"stereo_left": "GBRG", "stereo_centre": "GBRG", "mono_rear": "RGGB"}


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def raw_mosaic(photo: Any, pattern: str) -> Any:
    """One colour a pixel, by the letters of the pattern, pixel by pixel."""
    raw = np.zeros(photo.shape[:2], np.uint8)
    for y in range(photo.shape[0]):
        for x in range(photo.shape[1]):
            raw[y, x] = photo[y, x, "RGB".index(pattern[2 * (y % 2) + x % 2])]
    return raw


def literal_demosaic(raw: Any, pattern: str) -> Any:
    """The mean of the pixel's 3×3 neighbours of a colour: beside or above for a cross, diagonal for the other."""
    height, width = raw.shape
    out = np.zeros((height, width, 3))
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            for c in range(3):
                near = [
                    (abs(dy) + abs(dx), int(raw[y + dy, x + dx]))
                    for dy in (-1, 0, 1)
                    for dx in (-1, 0, 1)
                    if pattern[2 * ((y + dy) % 2) + (x + dx) % 2] == "RGB"[c]
                ]
                least = min(distance for distance, _ in near)
                values = [value for distance, value in near if distance == least]
                out[y, x, c] = sum(values) / len(values)
    return out


@pytest.mark.parametrize(("camera", "pattern"), PATTERNS.items())
def test_plain_colours_stay_what_they_are(camera: str, pattern: str) -> None:
    """A red sign is red: the commonest mistake is an exchange of red and blue."""
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40)):
        photo = np.full((8, 12, 3), colour, np.uint8)
        assert (demosaic(raw_mosaic(photo, pattern), camera) == np.array(colour)).all()


@pytest.mark.parametrize(("camera", "pattern"), PATTERNS.items())
def test_demosaic_against_a_literal_one(camera: str, pattern: str) -> None:
    raw = np.random.default_rng(3).integers(0, 256, (10, 14), dtype=np.uint8)
    ours = demosaic(raw, camera)[1:-1, 1:-1]
    assert np.abs(ours - literal_demosaic(raw, pattern)[1:-1, 1:-1]).max() <= 0.51


def write_table(path: Path, u: Any, v: Any) -> Path:
    np.concatenate([u.ravel(), v.ravel()]).astype("<f8").tofile(path)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table for 9×7 pixels with places on, between and outside of them."""
    rng = np.random.default_rng(5)
    u, v = rng.uniform(-1, 9, (7, 9)), rng.uniform(-1, 7, (7, 9))
    u[0, :3], v[0, :3] = (0, 8, 8), (0, 6, 0)
    u[1, :3], v[1, :3] = (8.001, np.nan, 4), (2, 2, -0.001)
    return write_table(tmp_path / "lut.bin", u, v)


def test_undistort_against_a_literal_one(table: Path) -> None:
    photo = np.random.default_rng(7).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    ours = undistort(photo, table)
    values = np.fromfile(table, "<f8")
    for place in range(63):
        u, v = values[place], values[63 + place]
        for c in range(3):
            wanted = 0.0
            if 0 <= u <= 8 and 0 <= v <= 6:
                x, y = min(int(u), 7), min(int(v), 5)
                for dy in (0, 1):
                    for dx in (0, 1):
                        weight = (1 - abs(u - x - dx)) * (1 - abs(v - y - dy))
                        wanted += weight * photo[y + dy, x + dx, c]
            assert abs(int(ours[place // 9, place % 9, c]) - wanted) <= 0.5001
    assert (ours[0, 0] == photo[0, 0]).all()
    assert (ours[0, 1] == photo[6, 8]).all()


def test_table_of_another_camera_is_named(table: Path) -> None:
    with pytest.raises(BadImageError, match=r"lut\.bin is for 63"):
        undistort(np.zeros((9, 9, 3), np.uint8), table)


def test_lookup_file_by_camera(tmp_path: Path) -> None:
    for name in ("stereo_wide_left", "stereo_narrow_left", "stereo_wide_right", "mono_rear"):
        (tmp_path / f"{name}_distortion_lut.bin").touch()
    cameras = {"stereo_left": "stereo_wide_left", "stereo_centre": "stereo_narrow_left"}
    cameras |= {"stereo_right": "stereo_wide_right", "mono_rear": "mono_rear"}
    for camera, model in cameras.items():
        assert lookup_file(str(tmp_path), camera) == tmp_path / f"{model}_distortion_lut.bin"
    assert lookup_file("", "mono_rear") is None
    with pytest.raises(InputError, match="mono_left_distortion_lut"):
        lookup_file(str(tmp_path), "mono_left")


def test_crop_takes_the_top(tmp_path: Path) -> None:
    assert parse_crop("none") is None
    for bad in ("top0x5", "bottom2x2", "top1280", "1280x800"):
        with pytest.raises(ContractError, match="top1280x800"):
            parse_crop(bad)
    photo = np.random.default_rng(1).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    ours = develop(png(photo), Development("stereo_left", crop=parse_crop("top8x6")))
    assert isinstance(ours, np.ndarray)
    assert (ours == photo[:6, 2:10]).all()
    with pytest.raises(BadImageError, match="less than the crop"):
        develop(png(photo), Development("stereo_left", crop=(12, 11)))


def test_colour_pictures_pass_through_and_bad_ones_are_named() -> None:
    """Exports that somebody demosaiced already are common: they must not be taken for Bayer."""
    how = Development("stereo_left")
    photo = np.random.default_rng(2).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert develop(png(photo), how) == png(photo)
    file = io.BytesIO()
    Image.fromarray(photo).convert("L").save(file, "JPEG")
    assert develop(file.getvalue(), how) == file.getvalue()
    grey16 = np.zeros((8, 8), np.uint16)
    for data, reason in ((b"", "empty_image"), (b"\x89PNG\r\n\x1a\nxx", "bad_image"), (png(grey16), "bad_image")):
        with pytest.raises(BadImageError) as caught:
            develop(data, how)
        assert caught.value.reason == reason
    with pytest.raises(BadImageError, match="no Bayer"):
        develop(png(np.zeros((2, 2), np.uint8)), how)
