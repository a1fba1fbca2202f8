"""The one door to Pillow's file readers: which kinds of files are opened, and how large a picture may be.

Pillow knows more than forty formats, and one of them (PostScript) starts another program. Files come from strangers, so
every reader names the formats that it means, and the memory that a picture will take is known before it is decoded.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import simplejpeg
from PIL import Image

RAW_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM")
"""Formats of files in a raw dump and of queries; Pillow's PPM reads PGM and PBM too, its JPEG reads MPO."""
STORED_FORMATS = ("JPEG", "PNG")
"""Formats of stored frames: what a build writes."""

JPEG_MAGIC = b"\xff\xd8"
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Brands of ISO media files that hold pictures: HEIC and AVIF in their still and moving forms.
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")

GREATEST_BYTES = 810_000_000
"""Memory for one picture, so that it takes less than 1 GB with what the program itself takes."""

# Bytes a pixel while a picture is decoded, converted, turned and written, measured (tests/seqdata/frames/test_formats).
_RESULT_BYTES = 3
_LEAST_BYTES = 6
_STORAGE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
# WebP's reader holds two canvases and the pixels that it hands over; the others a strip that may be the whole picture.
_READER_BYTES = {"WEBP": 12, "TIFF": 8, "PPM": 8}
# A JPEG of several scans holds two bytes for each coefficient of each colour besides the pixels.
_COEFFICIENT_BYTES = {"444": 6, "422": 4, "440": 4, "420": 3, "411": 3, "441": 3, "Gray": 2}
_CMYK_BYTES = 8

# Pillow's own check refuses twice this and warns from once this on; `check_image` is the one that counts.
Image.MAX_IMAGE_PIXELS = GREATEST_BYTES // _LEAST_BYTES
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class BadImageError(Exception):
    """An image that cannot be stored; `reason` is a quarantine code, the text says what was wrong."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def open_header(source: bytes | Path, formats: tuple[str, ...] = RAW_FORMATS) -> Image.Image:
    """Open a picture without decoding it; the caller closes it.

    Args:
        source: A file's bytes, or its path.
        formats: Names of the formats, in Pillow's words, that are tried.

    Returns:
        A Pillow image whose pixels are not read yet.

    Raises:
        Exception: Whatever Pillow raises for damaged bytes and for other formats; it names no closed set.
    """
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats)


def open_image(data: bytes, formats: tuple[str, ...] = RAW_FORMATS) -> Image.Image:
    """Decode a file's bytes to a Pillow image, its first picture where it has several.

    Args:
        data: The bytes.
        formats: Formats that are tried, as in `open_header`.

    Raises:
        BadImageError: `bad_image`, if they do not decode, are of another format, or announce more than fits memory.
    """
    with naming_damage(data):
        image = open_header(data, formats)
        check_image(image, data)
        image.load()
    return image


def check_format(image: Image.Image) -> None:
    """Check that a Pillow image that a user opened is of a format that is read; one made of an array has none.

    Raises:
        BadImageError: If it is not: Pillow decodes when pixels are first used, and may start another program for it.
    """
    if image.format not in (None, "MPO", *RAW_FORMATS):
        raise BadImageError("bad_image", f"format {image.format} is not read; give one of {', '.join(RAW_FORMATS)}")


@contextmanager
def naming_damage(data: bytes) -> Iterator[None]:
    """Turn whatever Pillow raises for damaged bytes (many kinds, a bomb is one of them) into a BadImageError."""
    try:
        yield
    except (BadImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError("bad_image", f"it announces more pixels than {_gigabytes(GREATEST_BYTES)} hold") from error
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
    if data.startswith((JPEG_MAGIC, _PNG_MAGIC)):
        return "its data are damaged or cut short"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "it is a HEIC or AVIF picture, a kind that is not read; convert it to .jpg or .png"
    return "its bytes are no image of a kind that is read"


def check_image(image: Image.Image, data: bytes, drafted_from: tuple[int, int] | None = None) -> None:
    """Check that an opened Pillow image fits the memory until it is written as JPEG.

    Args:
        image: The image; its pixels are not read yet.
        data: The file's bytes.
        drafted_from: (width, height) in the file, where `Image.draft` has set a smaller size.

    Raises:
        BadImageError: If it does not.
    """
    width, height = drafted_from or image.size
    needed = len(data) + image.width * image.height * max(
        _LEAST_BYTES, _STORAGE_BYTES.get(image.mode, 4) + _RESULT_BYTES
    )
    if data.startswith(JPEG_MAGIC):
        needed += width * height * _CMYK_BYTES * _has_several_scans(data)
    _check_memory(width, height, needed + width * height * _READER_BYTES.get(image.format or "", 0))


def check_jpeg(data: bytes) -> tuple[int, int]:
    """Read the header of a JPEG and check that its pixels fit the memory.

    Returns:
        (width, height) in pixels.

    Raises:
        ValueError, KeyError: If the header cannot be read (the decoder answers a cut one with either).
        BadImageError: If the pixels would fill the memory.
    """
    height, width, colours, sampling = simplejpeg.decode_jpeg_header(data, strict=False)
    # Nearly all pictures are so small that their scans need not be counted.
    if width * height * (_RESULT_BYTES + _CMYK_BYTES) > GREATEST_BYTES and _has_several_scans(data):
        coefficients = _CMYK_BYTES if colours in ("CMYK", "YCCK") else _COEFFICIENT_BYTES.get(sampling, 6)
        _check_memory(width, height, width * height * (_RESULT_BYTES + coefficients))
    _check_memory(width, height, width * height * _RESULT_BYTES)
    return width, height


def _has_several_scans(data: bytes) -> bool:
    """Whether a JPEG is progressive, or has its colours one after the other: it is then decoded as a whole."""
    position = 2
    # The segments before the first scan are skipped: a thumbnail in one of them has a scan of its own.
    while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] != _SCAN[1:]:
        marker = data[position + 1 : position + 2]
        if marker == b"\xff":  # fill bytes may stand before a marker
            position += 1
        elif marker == b"\x01" or b"\xd0" <= marker <= b"\xd9":  # markers that stand alone
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    end = data.find(_END, position)
    return data.count(_SCAN, position, end if end >= 0 else len(data)) > 1


def _check_memory(width: int, height: int, needed: int) -> None:
    """Raise BadImageError for a picture that would fill the memory: few bytes can announce very many pixels."""
    if needed > GREATEST_BYTES:
        raise BadImageError(
            "bad_image",
            f"{width}×{height} pixels need {_gigabytes(needed)} of memory, more than the {_gigabytes(GREATEST_BYTES)} "
            "for one picture; make it smaller",
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
