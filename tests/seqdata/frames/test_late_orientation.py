"""Orientation wherever a file says it: behind long segments of a JPEG, and in a PNG that keeps its format."""

import io

import numpy as np
import pytest
from PIL import Image

from seqdata.frames.encode import prepare

ORIENTATION = 0x0112


def turned(kind: str, orientation: int) -> bytes:
    """A picture of 64×48 whose EXIF asks for a turn."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = io.BytesIO()
    pixels = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3) % 251
    Image.fromarray(pixels.astype(np.uint8)).save(file, kind, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("segments", [0, 1, 3])
@pytest.mark.parametrize("marker", [b"\xff\xe2", b"\xff\xe1"])
def test_orientation_behind_profiles_and_xmp_is_followed(segments: int, marker: bytes) -> None:
    data = turned("JPEG", 6)
    filler = marker + (65_000).to_bytes(2, "big") + b"ICC_PROFILE\0\1\1" + bytes(65_000 - 16)
    stored = prepare(data[:2] + filler * segments + data[2:])
    assert (stored.width, stored.height) == (48, 64)


def test_fill_bytes_before_a_marker_are_passed_over() -> None:
    data = turned("JPEG", 6)
    stored = prepare(data[:2] + b"\xff\xff" + data[2:])
    assert (stored.width, stored.height) == (48, 64)


@pytest.mark.parametrize(("orientation", "suffix", "size"), [(6, "jpg", (48, 64)), (1, "png", (64, 48))])
def test_a_png_that_is_to_be_turned_does_not_keep_its_bytes(
    orientation: int, suffix: str, size: tuple[int, int]
) -> None:
    stored = prepare(turned("PNG", orientation), keep_png=True)
    assert (stored.suffix, (stored.width, stored.height)) == (suffix, size)
