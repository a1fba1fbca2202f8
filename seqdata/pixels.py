"""From a raw image's bytes to the bytes that are stored, and from stored bytes to pixels.

Convention: pixels are RGB, uint8, (H, W, 3) while decoding and (3, H, W) in every public result.
"""

import io
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageOps

Pixels = npt.NDArray[np.uint8]
Check = Literal["header", "decode"]

REENCODE_QUALITY = 95
_END_MARKER = b"\xff\xd9"
_TAIL = 1024
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_ORIENTATION_TAG = 0x0112
_GREATEST_JPEG_SIDE = 65_500
_GREATEST_PIXELS = 400_000_000
Image.MAX_IMAGE_PIXELS = _GREATEST_PIXELS
# Pillow warns from the limit on and refuses from twice the limit on; here the limit itself is refused.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class BadImageError(Exception):
    """An image that cannot be stored; `reason` is a quarantine code, the text says what was wrong."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class StoredImage:
    """Bytes to put into a shard, their file suffix (jpg or png) and the picture's size in pixels."""

    data: bytes
    suffix: str
    width: int
    height: int


def prepare(data: bytes, *, keep_png: bool = False, check: Check = "header") -> StoredImage:
    """The stored form of one raw image: an upright JPEG keeps its bytes, everything else becomes a JPEG of quality 95.

    `check="header"` reads the header and looks for the end marker; `"decode"` decodes every frame, which also finds
    damage inside a scan. With `keep_png` a PNG keeps its bytes. Raises: BadImageError.
    """
    if not data:
        raise BadImageError("empty_image", "the file has no bytes")
    if data.startswith(b"\xff\xd8"):
        return _prepare_jpeg(data, check)
    if data.startswith(_PNG_MAGIC) and keep_png:
        image = _open(data)
        return StoredImage(data, "png", *image.size)
    return _reencode(_open(data))


def _prepare_jpeg(data: bytes, check: Check) -> StoredImage:
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError) as error:  # the decoder answers a cut header with either
        raise BadImageError("bad_image", f"not a readable JPEG header ({error})") from error
    _refuse_bomb(width, height)
    complete = _END_MARKER in data[-_TAIL:]
    if check == "decode" or not complete:
        _decode_strictly(data)
    if _orientation(data) != 1:
        return _reencode(_open(data))
    return StoredImage(data, "jpg", width, height)


def _decode_strictly(data: bytes) -> None:
    """Decode a JPEG and raise BadImageError at the decoder's first warning (a cut file, damage inside a scan)."""
    try:
        simplejpeg.decode_jpeg(data, strict=True)
    except (ValueError, KeyError) as error:
        if "colorspace" in str(error).lower():
            _open(data)
            return
        raise BadImageError("bad_image", f"the JPEG does not decode ({error})") from error


def _orientation(data: bytes) -> int:
    """EXIF orientation, 1 (upright) when absent or unreadable: broken EXIF does not make pixels bad."""
    if b"Exif\x00" not in data[:65_536]:
        return 1
    try:
        with Image.open(io.BytesIO(data)) as image:
            return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # Pillow raises many kinds for broken EXIF; all mean "not known"
        return 1


def _open(data: bytes) -> Image.Image:
    """Decode with Pillow. Raises: BadImageError for anything Pillow cannot read, and for more pixels than the limit."""
    try:
        image = Image.open(io.BytesIO(data))
        _refuse_bomb(*image.size)
        image.load()
    except (BadImageError, MemoryError):
        raise
    except Exception as error:  # its readers raise many kinds for damaged bytes, a bomb is one of them
        raise BadImageError("bad_image", f"the image does not decode ({error})") from error
    return image


def _refuse_bomb(width: int, height: int) -> None:
    """Raise BadImageError for a picture whose pixels would fill the memory: few bytes can announce very many."""
    if width * height > _GREATEST_PIXELS:
        raise BadImageError("bad_image", f"{width}×{height} pixels are more than {_GREATEST_PIXELS:,}")


def _reencode(image: Image.Image) -> StoredImage:
    """One JPEG of quality 95, upright, three channels. Raises: BadImageError when it cannot be a JPEG."""
    if max(image.size) > _GREATEST_JPEG_SIDE:
        size = "×".join(map(str, image.size))
        raise BadImageError("bad_image", f"{size} pixels: a side of a JPEG is at most {_GREATEST_JPEG_SIDE:,}")
    try:
        upright = to_rgb(_upright(image))
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(upright), quality=REENCODE_QUALITY, colorsubsampling="444")
    except MemoryError:
        raise
    except Exception as error:  # Pillow's conversions and the encoder name no closed set of errors
        raise BadImageError("bad_image", f"the image cannot be written as JPEG ({error})") from error
    return StoredImage(data, "jpg", upright.shape[1], upright.shape[0])


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image) or image
    except Exception:  # broken EXIF: the pixels stand as they are
        return image


def to_rgb(image: Image.Image) -> Pixels:
    """RGB pixels uint8 (H, W, 3) of any Pillow image: grey, CMYK, alpha (on black) and 16-bit are converted."""
    if image.mode.startswith("I") or image.mode == "F":
        wide = np.asarray(image, dtype=np.float64)
        grey = np.clip(wide / 257.0 if wide.max(initial=0) > 255 else wide, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA"):
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def decode(data: bytes, size: tuple[int, int] | None = None) -> Pixels:
    """Pixels (3, H, W) uint8 RGB of a stored image, resized to `size` = (H, W) with Pillow's bilinear filter.

    Raises: BadImageError when the bytes do not decode.
    """
    pixels = _decode_rgb(data)
    if size is not None and pixels.shape[:2] != tuple(size):
        resized = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _decode_rgb(data: bytes) -> Pixels:
    if data.startswith(b"\xff\xd8"):
        try:
            decoded: Pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=False)
            return decoded
        except (ValueError, KeyError):
            pass  # CMYK and the like: Pillow knows more kinds
    return to_rgb(_open(data))
