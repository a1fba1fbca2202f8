"""Pictures of any kind read with Pillow, turned upright, shrunk, and written as JPEG.

Convention: pixels are RGB, uint8, (H, W, 3). A picture's short side is the lesser of its width and height.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

Pixels = npt.NDArray[np.uint8]

JPEG_MAGIC = b"\xff\xd8"

GREATEST_JPEG_SIDE = 65_500
GREATEST_PIXELS = 400_000_000
Image.MAX_IMAGE_PIXELS = GREATEST_PIXELS
# Pillow warns from the limit on and refuses from twice the limit on; here the limit itself is refused.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SPARE = 2.0
"""A JPEG that is shrunk may be decoded at ½, ¼ or ⅛, but never below so many times the wanted size: at 2 the result is
within 45 dB of a full decode (at 1 within 36 dB, which is coarser than the JPEG that is written)."""
_FILTER = Image.Resampling.LANCZOS


class BadImageError(Exception):
    """An image that cannot be stored; `reason` is a quarantine code, the text says what was wrong."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def open_image(data: bytes) -> Image.Image:
    """A decoded Pillow image, its first frame where it moves.

    Raises: BadImageError (`bad_image`) for anything Pillow cannot read, and for more pixels than the limit.
    """
    with _damage_named(data):
        image = Image.open(io.BytesIO(data))
        refuse_bomb(*image.size)
        image.load()
    return image


def read_shrunk(data: bytes, size: tuple[int, int]) -> Pixels:
    """RGB pixels of a JPEG at `size` = (W, H), as stored and not turned; decoded at a part of its size where that does.

    Raises: BadImageError (`bad_image`).
    """
    with _damage_named(data):
        image = Image.open(io.BytesIO(data))
        refuse_bomb(*image.size)
        part = image.draft(None, (round(size[0] * _SPARE), round(size[1] * _SPARE)))
        image.load()
        return shrink(to_rgb(image), size, part[1] if part else None)


@contextmanager
def _damage_named(data: bytes) -> Iterator[None]:
    """Whatever Pillow raises for damaged bytes (many kinds, a bomb is one of them) becomes a BadImageError."""
    try:
        yield
    except (BadImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError("bad_image", f"it announces more than {GREATEST_PIXELS:,} pixels") from error
    except Exception as error:
        raise BadImageError("bad_image", f"the image does not decode: {_why_damaged(data)}") from error


def _why_damaged(data: bytes) -> str:
    """Our own reason why bytes are no image.

    Pillow's text is not stored: it carries a memory address, and changes with the version, so that one dump would get
    another dataset id in every build.
    """
    head = data[:1024].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "it is a web page, so download the image again"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, so run git lfs pull in the dump"
    if not any(head):
        return "it begins with zeros, as files of an interrupted download do"
    if data.startswith((JPEG_MAGIC, b"\x89PNG\r\n\x1a\n")):
        return "its data are damaged or cut short"
    return "its bytes are no image of a kind that is read"


def refuse_bomb(width: int, height: int) -> None:
    """Raise BadImageError for a picture whose pixels would fill the memory: few bytes can announce very many."""
    if width * height > GREATEST_PIXELS:
        raise BadImageError("bad_image", f"{width}×{height} pixels are more than {GREATEST_PIXELS:,}")


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
        with Image.open(io.BytesIO(data)) as image:
            return orientation(image)
    except Exception:  # as above
        return 1


def shrunk_size(width: int, height: int, short_side: int | None) -> tuple[int, int] | None:
    """(W, H) with the short side at `short_side` pixels; None where the picture is no larger than that."""
    least = min(width, height)
    if short_side is None or least <= short_side:
        return None
    return max(1, round(width * short_side / least)), max(1, round(height * short_side / least))


def shrink(pixels: Pixels, size: tuple[int, int], box: tuple[float, float, float, float] | None = None) -> Pixels:
    """RGB pixels resampled to `size` = (W, H), antialiased; `box` is the part of them (pixels) that the picture is."""
    return np.asarray(Image.fromarray(pixels).resize(size, _FILTER, box))


def upright(pixels: Pixels, turn: int) -> Pixels:
    """RGB pixels turned as the EXIF orientation `turn` asks."""
    return pixels if turn == 1 else np.asarray(Image.fromarray(pixels).transpose(_TURNS[turn]))


def to_rgb(image: Image.Image) -> Pixels:
    """RGB pixels uint8 (H, W, 3) of any Pillow image: grey, CMYK, alpha (on black) and 16-bit are converted.

    Convention: 16 bits become 8 by their full range, also where an image uses a part of it, so that all frames of a
    drive stay comparable; wider integers and floats are taken as 8-bit values unless one is above 255.
    """
    if image.mode.startswith("I") or image.mode == "F":
        wide = np.asarray(image, dtype=np.float64)
        sixteen = image.mode.startswith("I;16") or image.format == "PNG" or wide.max(initial=0) > 255
        grey = np.clip(wide / 257.0 if sixteen else wide, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def encode(pixels: Pixels, quality: int) -> bytes:
    """A JPEG of RGB pixels without chroma subsampling. Raises: BadImageError when a side is too long for one."""
    height, width = pixels.shape[:2]
    if max(height, width) > GREATEST_JPEG_SIDE:
        raise BadImageError("bad_image", f"{width}×{height} pixels: a side of a JPEG is at most {GREATEST_JPEG_SIDE:,}")
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality, colorsubsampling="444")
    return data


def rgb_array(array: npt.NDArray[Any]) -> Pixels:
    """`array` itself when it is RGB pixels. Raises: ValueError (a source's defect, not a file's) when it is not."""
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ValueError(f"expected pixels uint8 (H, W, 3), found {array.dtype} {array.shape}")
    return array
