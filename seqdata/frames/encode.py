"""From a raw image to the bytes that are stored, and from stored bytes to pixels.

Convention: pixels are RGB, uint8, (H, W, 3) while decoding and (3, H, W) in every public result.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import simplejpeg

from seqdata.frames.formats import JPEG_MAGIC, BadImageError, check_jpeg, open_image
from seqdata.frames.images import (
    Pixels,
    encode,
    header_orientation,
    orientation,
    read_shrunk,
    rgb_array,
    shrink,
    shrunk_size,
    to_rgb,
    upright,
)

__all__ = ["BadImageError", "Check", "Pixels", "StoredImage", "prepare"]

Check = Literal["header", "decode"]

REENCODE_QUALITY = 95
_END_MARKER = b"\xff\xd9"
_TAIL = 1024
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_EXIF_MAGIC = b"Exif\x00"
_HEADER = 65_536


@dataclass(frozen=True)
class StoredImage:
    """Bytes to put into a shard, their file suffix (jpg or png) and the picture's size in pixels."""

    data: bytes
    suffix: str
    width: int
    height: int


def prepare(
    data: bytes | Pixels,
    *,
    keep_png: bool = False,
    check: Check = "header",
    short_side: int | None = None,
    quality: int = REENCODE_QUALITY,
) -> StoredImage:
    """Prepare one raw image for a shard: an upright JPEG keeps its bytes, everything else becomes a JPEG.

    The bytes say what a file is, not its suffix; of moving pictures the first is taken.

    Args:
        data: Bytes of a file, or RGB pixels uint8 (H, W, 3) of a source that decodes by itself.
        keep_png: Whether an upright PNG that is not shrunk keeps its bytes.
        check: "header" reads the header and looks for the end marker; "decode" decodes, and finds damage in a scan too.
        short_side: Greatest length in pixels of the shorter side; a larger picture is shrunk, antialiased, in one step
            with the other changes. None is enlarged.
        quality: Quality of the JPEGs that are written.

    Raises:
        BadImageError: If the image cannot be stored; its reason is a quarantine code.
    """
    if isinstance(data, np.ndarray):
        return _written(_fitted(rgb_array(data), short_side), 1, quality)
    if not data:
        raise BadImageError("empty_image", "the file has no bytes")
    if data.startswith(JPEG_MAGIC):
        return _prepare_jpeg(data, check, short_side, quality)
    image = open_image(data)
    turn = orientation(image)
    if data.startswith(_PNG_MAGIC) and keep_png and turn == 1 and shrunk_size(*image.size, short_side) is None:
        return StoredImage(data, "png", *image.size)
    with _writing():
        pixels = to_rgb(image)
        image.close()  # frees Pillow's copy of the pixels before more are made
        return _written(_fitted(pixels, short_side), turn, quality)


def _prepare_jpeg(data: bytes, check: Check, short_side: int | None, quality: int) -> StoredImage:
    try:
        width, height = check_jpeg(data)
    except (ValueError, KeyError) as error:  # the decoder answers a cut header with either
        raise BadImageError("bad_image", "not a readable JPEG header: it is damaged or cut short") from error
    # Some cameras write bytes behind the end marker, so it is looked for in the last KiB and not at the very end.
    complete = _END_MARKER in data[-_TAIL:]
    if check == "decode" or not complete:
        _decode_strictly(data, complete=complete)
    turn = header_orientation(data) if _has_exif(data) else 1
    size = shrunk_size(width, height, short_side)
    if turn == 1 and size is None:
        return StoredImage(data, "jpg", width, height)
    with _writing():
        return _written(to_rgb(open_image(data)) if size is None else read_shrunk(data, size), turn, quality)


def _has_exif(data: bytes) -> bool:
    """Whether a JPEG has an EXIF segment before its scan; where its segments cannot be followed, bytes are searched.

    Searching alone would take longer than all else that is done with a frame that passes through.
    """
    position = 2
    # Colour profiles and XMP may fill many segments of 64 KiB before it.
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        kind, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if kind == 0xFF:  # fill bytes may stand before a marker
            position += 1
            continue
        if kind == 0xE1 and data.startswith(_EXIF_MAGIC, position + 4):
            return True
        if kind == 0xDA:
            return False
        if not 0xC0 <= kind <= 0xFE or length < 2:
            break
        position += 2 + length
    return _EXIF_MAGIC in data[:_HEADER]


def _decode_strictly(data: bytes, *, complete: bool) -> None:
    """Decode a JPEG and raise BadImageError at the decoder's first warning (a cut file, damage inside a scan)."""
    try:
        simplejpeg.decode_jpeg(data, strict=True)
    except (ValueError, KeyError) as error:
        if "colorspace" in str(error).lower():
            open_image(data)
            return
        raise BadImageError(
            "bad_image", f"the JPEG does not decode: {'its data are damaged' if complete else 'it is cut short'}"
        ) from error


def _fitted(pixels: Pixels, short_side: int | None) -> Pixels:
    size = shrunk_size(pixels.shape[1], pixels.shape[0], short_side)
    return pixels if size is None else shrink(pixels, size)


def _written(pixels: Pixels, turn: int, quality: int) -> StoredImage:
    ready = upright(pixels, turn)
    return StoredImage(encode(ready, quality), "jpg", ready.shape[1], ready.shape[0])


@contextmanager
def _writing() -> Iterator[None]:
    """What conversions and the encoder raise (they name no closed set of errors) becomes a BadImageError."""
    try:
        yield
    except (BadImageError, MemoryError):
        raise
    except Exception as error:
        raise BadImageError("bad_image", "the image cannot be written as JPEG: it does not convert") from error
