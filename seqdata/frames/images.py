"""Pictures of any kind read with Pillow, turned upright, shrunk, and written as JPEG.

Convention: pixels are RGB, uint8, (H, W, 3). A picture's short side is the lesser of its width and height.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from seqdata.frames.formats import BadImageError as BadImageError
from seqdata.frames.formats import check_image, naming_damage, open_header

Pixels = npt.NDArray[np.uint8]

GREATEST_JPEG_SIDE = 65_500
_BAND_PIXELS = 4 << 20
"""Pixels that are converted at once: what a conversion holds besides its result stays below 100 MB."""

_ORIENTATION_TAG = 0x0112
# Quarter turns against the clock, then whether left and right are exchanged (EXIF 2.32, table of Orientation).
_TURNS = {
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (3, True),
    6: (3, False),
    7: (1, True),
    8: (1, False),
}
_SPARE = 2.0
"""A JPEG that is shrunk may be decoded at ½, ¼ or ⅛, but never below so many times the wanted size: at 2 the result is
within 45 dB of a full decode (at 1 within 36 dB, which is coarser than the JPEG that is written)."""
_FILTER = Image.Resampling.LANCZOS


def read_shrunk(data: bytes, size: tuple[int, int]) -> Pixels:
    """Read a JPEG at another size, as stored and not turned; it is decoded at a part of its size where that does.

    Args:
        data: Bytes of the JPEG.
        size: (width, height) in pixels.

    Returns:
        RGB, uint8 (H, W, 3).

    Raises:
        BadImageError: `bad_image`, if it does not decode.
    """
    with naming_damage(data):
        image = open_header(data)
        whole_size = image.size
        part = image.draft(None, (round(size[0] * _SPARE), round(size[1] * _SPARE)))
        check_image(image, data, whole_size)
        image.load()
        return shrink(to_rgb(image), size, part[1] if part else None)


def orientation(image: Image.Image) -> int:
    """EXIF orientation of an image, 1 (upright) when absent or unreadable: broken EXIF does not make pixels bad."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # Pillow raises many kinds for broken EXIF; all mean "not known"
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def header_orientation(data: bytes) -> int:
    """EXIF orientation of a file's bytes, as `orientation`, without decoding it."""
    try:
        with open_header(data) as image:
            return orientation(image)
    except Exception:  # as above
        return 1


def shrunk_size(width: int, height: int, short_side: int | None) -> tuple[int, int] | None:
    """Compute the size of a picture whose short side is to be at most so long.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        short_side: Greatest length of the short side, None for no limit.

    Returns:
        (width, height); None where the picture is no larger than that.

    Example:
        >>> shrunk_size(1280, 960, 480), shrunk_size(640, 480, 480)
        ((640, 480), None)
    """
    least = min(width, height)
    if short_side is None or least <= short_side:
        return None
    return max(1, round(width * short_side / least)), max(1, round(height * short_side / least))


def shrink(pixels: Pixels, size: tuple[int, int], box: tuple[float, float, float, float] | None = None) -> Pixels:
    """Resample pixels, antialiased.

    Args:
        pixels: RGB, uint8 (H, W, 3).
        size: (width, height) of the result.
        box: Left, upper, right and lower edge in pixels of the part that the picture is; None for all.
    """
    return np.asarray(Image.fromarray(pixels).resize(size, _FILTER, box))


def upright(pixels: Pixels, turn: int) -> Pixels:
    """Turn pixels (H, W, 3) upright by an EXIF orientation from 1 to 8, where 1 is upright."""
    if turn == 1:
        return pixels
    steps, is_mirrored = _TURNS[turn]
    turned = np.rot90(pixels, steps)
    return np.ascontiguousarray(turned[:, ::-1] if is_mirrored else turned)


def to_rgb(image: Image.Image) -> Pixels:
    """RGB pixels uint8 (H, W, 3) of any Pillow image: grey, CMYK, alpha (on black) and 16-bit are converted.

    Convention: 16 bits become 8 by their full range, also where an image uses a part of it, so that all frames of a
    drive stay comparable; wider integers and floats are taken as 8-bit values unless one is above 255.
    """
    convert = _rgb_of
    if image.mode.startswith("I") or image.mode == "F":
        convert = _sixteen_bits if _has_sixteen_bits(image) else _eight_bits
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top, band in _bands(image):
        pixels[top : top + band.height] = convert(band)
    return pixels


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Cut an image into bands of rows, each with the number of its first row; a small image is one band."""
    rows = max(1, _BAND_PIXELS // image.width)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _has_sixteen_bits(image: Image.Image) -> bool:
    """Whether the numbers of a wide grey image use sixteen bits."""
    if image.mode.startswith("I;16") or image.format == "PNG":
        return True
    return any(np.asarray(band).max(initial=0) > 255 for _, band in _bands(image))


def _sixteen_bits(band: Image.Image) -> Pixels:
    """Grey pixels (H, W, 1) of sixteen bits brought to eight."""
    wide = np.asarray(band)
    # Whole numbers are divided as such: the quotient is the same, and float64 would take four times the memory.
    quotient = wide / 257.0 if band.mode == "F" else wide // 257
    grey: Pixels = np.clip(quotient, 0, 255).astype(np.uint8)
    return grey[..., None]


def _eight_bits(band: Image.Image) -> Pixels:
    """Grey pixels (H, W, 1) of wide numbers that are eight-bit values."""
    grey: Pixels = np.clip(np.asarray(band), 0, 255).astype(np.uint8)
    return grey[..., None]


def _rgb_of(band: Image.Image) -> Pixels:
    """RGB pixels (H, W, 3) of a band of eight-bit colours; transparency is laid on black."""
    if band.has_transparency_data:
        band = Image.alpha_composite(Image.new("RGBA", band.size, (0, 0, 0, 255)), band.convert("RGBA"))
    return np.asarray(band if band.mode == "RGB" else band.convert("RGB"))


def encode(pixels: Pixels, quality: int) -> bytes:
    """A JPEG of RGB pixels without chroma subsampling.

    Raises:
        BadImageError: When a side is too long for one.
    """
    height, width = pixels.shape[:2]
    if max(height, width) > GREATEST_JPEG_SIDE:
        raise BadImageError("bad_image", f"{width}×{height} pixels: a side of a JPEG is at most {GREATEST_JPEG_SIDE:,}")
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality, colorsubsampling="444")
    return data


def rgb_array(array: npt.NDArray[Any]) -> Pixels:
    """`array` itself when it is RGB pixels.

    Raises:
        ValueError: When it is not: a defect of the source, not of a file.
    """
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ValueError(f"expected pixels uint8 (H, W, 3), found {array.dtype} {array.shape}")
    return array
