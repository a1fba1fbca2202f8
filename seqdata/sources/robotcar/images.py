"""RobotCar's raw Bayer pictures as RGB pixels: demosaiced, undistorted, cropped.

Convention: the stereo sensors are GBRG, the mono sensors RGGB, named from the picture's first row; OpenCV names a
pattern by the pixel one row and one column further, so these are its GR and BG. A lookup table is float64, W·H columns
u (or x) and then W·H rows v (or y): pixel i of the undistorted picture (row by row) is read at (v, u) of the raw one.
Source: the dataset's documentation and camera models.
"""

import re
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from seqdata.errors import ContractError, InputError, MissingDependencyError
from seqdata.frames.formats import BadImageError, open_image
from seqdata.frames.images import Pixels, to_rgb
from seqdata.geometry import Float32Array, IntArray
from seqdata.storage.faults import read_again

_CROP = re.compile(r"top([1-9]\d{0,4})x([1-9]\d{0,4})")
_MODELS = {
    "stereo_left": "stereo_wide_left",
    "stereo_centre": "stereo_narrow_left",
    "stereo_right": "stereo_wide_right",
}
_BAYER_MODES = ("L",)
_LEAST_SIDE = 4


@dataclass(frozen=True)
class Development:
    """What is done to a raw picture.

    Attributes:
        camera: The camera; it decides the Bayer pattern.
        undistort: File of a lookup table; None leaves the lens as it is.
        crop: Width and height in pixels of the upper part that is stored; None stores all.
    """

    camera: str
    undistort: Path | None = None
    crop: tuple[int, int] | None = None


def parse_crop(text: str) -> tuple[int, int] | None:
    """Parse a crop: the upper rows, of a wider picture the middle columns.

    Args:
        text: As in "top1280x800" (width x height), or "none".

    Returns:
        (width, height) in pixels, None for "none".

    Raises:
        ContractError: For anything else.

    Example:
        >>> parse_crop("top1280x800")
        (1280, 800)
    """
    if text in ("", "none"):
        return None
    match = _CROP.fullmatch(text)
    if match is None:
        raise ContractError(f"crop '{text}': expected none, or the upper part as in top1280x800 (width x height)")
    return int(match.group(1)), int(match.group(2))


def crop_text(crop: tuple[int, int] | None) -> str:
    """The text that `parse_crop` reads."""
    return "none" if crop is None else f"top{crop[0]}x{crop[1]}"


def lookup_file(place: str, camera: str) -> Path | None:
    """Find a lookup table.

    Args:
        place: A .bin file, the SDK's models folder, or "".
        camera: The camera whose table is taken from a folder.

    Returns:
        The file, None for "".

    Raises:
        InputError: If there is none.
    """
    if not place:
        return None
    path = Path(place)
    if path.is_dir():
        path /= f"{_MODELS.get(camera, camera)}_distortion_lut.bin"
    if not path.is_file():
        raise InputError(f"{path}: no such lookup table; name the SDK's models folder or a *_distortion_lut.bin")
    return path


def develop(data: bytes, development: Development) -> bytes | Pixels:
    """Bring one raw file to the form that is stored.

    Args:
        data: Bytes of the file.
        development: What is done to it.

    Returns:
        RGB pixels uint8 (H, W, 3); the file's own bytes where it has colours already and nothing is to be done.

    Raises:
        BadImageError: `empty_image` or `bad_image`, if it does not decode, or does not fit table and crop.
    """
    if not data:
        raise BadImageError("empty_image", "the file has no bytes")
    image = open_image(data)
    mosaic = is_mosaic(image)
    # Sixteen bits are no mosaic of this dataset: their scale is unknown, and a guess would change every grey level.
    if image.format == "PNG" and image.mode.startswith("I"):
        raise BadImageError("bad_image", "a 16-bit PNG of one channel is neither raw RobotCar nor a colour picture")
    if not mosaic and development.undistort is None and development.crop is None:
        return data
    pixels = demosaic(np.asarray(image), development.camera) if mosaic else to_rgb(image)
    if development.undistort is not None:
        pixels = undistort(pixels, development.undistort)
    return pixels if development.crop is None else crop_pixels(pixels, *development.crop)


def is_mosaic(image: Image.Image) -> bool:
    """Whether a picture file is a raw Bayer mosaic: RobotCar's are PNGs of one 8-bit channel."""
    return image.format == "PNG" and image.mode in _BAYER_MODES


def demosaic(mosaic: Pixels, camera: str) -> Pixels:
    """Turn a Bayer picture into colours, each colour's gaps filled bilinearly.

    Args:
        mosaic: uint8 (H, W).
        camera: The camera; stereo cameras are GBRG, mono cameras RGGB.

    Returns:
        RGB uint8 (H, W, 3).

    Raises:
        BadImageError: If a side is under 4 pixels.
        MissingDependencyError: Without OpenCV.
    """
    try:
        import cv2  # heavy and optional: only raw RobotCar pictures need it
    except ImportError as error:
        raise MissingDependencyError("raw RobotCar pictures need OpenCV: pip install opencv-python-headless") from error
    if min(mosaic.shape) < _LEAST_SIDE:
        raise BadImageError("bad_image", f"{mosaic.shape[1]}×{mosaic.shape[0]} pixels are no Bayer picture")
    # OpenCV names a pattern by the pixel one row and one column further: its GR is the sensor's GBRG.
    pattern = cv2.COLOR_BayerGR2RGB if camera.startswith("stereo") else cv2.COLOR_BayerBG2RGB
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(mosaic), pattern), np.uint8)


def undistort(pixels: Pixels, table: Path) -> Pixels:
    """Read a picture bilinearly at the positions of a lookup table; black outside, rounded.

    Args:
        pixels: uint8 (H, W, C).
        table: The lookup table's file, for H·W pixels.

    Returns:
        uint8 (H, W, C).

    Raises:
        InputError: If the table cannot be read.
        BadImageError: If it is for another number of pixels.
    """
    status = read_again(table.stat)
    height, width, channels = pixels.shape
    corners = _corners(table, height, width, status.st_size, status.st_mtime_ns)
    if corners is None:
        raise BadImageError(
            "bad_image", f"{width}×{height} pixels, but {table.name} is for {status.st_size // 16:,}: another camera's?"
        )
    flat = pixels.reshape(-1, channels)
    total = np.zeros((len(flat), channels), np.float32)
    # In 32 bits: weights are products of two fractions, and 24 bits of them decide no grey level of 8.
    for index, weight in corners:
        total += flat[index] * weight[:, None]
    return (total + np.float32(0.5)).astype(np.uint8).reshape(pixels.shape)


@lru_cache(maxsize=2)
def _corners(
    table: Path, height: int, width: int, size: int, changed: int
) -> list[tuple[IntArray, Float32Array]] | None:
    """Flat index and weight of the four pixels around every place of a table; weight 0 outside the picture.

    `size` and `changed` make the file's state part of the key. None when the table has another size.
    """
    if size != 16 * height * width:
        return None
    try:
        u, v = read_again(partial(np.fromfile, table, "<f8")).reshape(2, -1)
    except (OSError, ValueError) as error:
        raise InputError(f"{table}: the lookup table cannot be read ({error})") from error
    # False for NaN.
    inside = (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
    u, v = np.where(inside, u, 0.0), np.where(inside, v, 0.0)
    left, top = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    right, low = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = u - left, v - top
    parts = (
        (top, left, (1 - down) * (1 - across)),
        (top, right, (1 - down) * across),
        (low, left, down * (1 - across)),
        (low, right, down * across),
    )
    return [(row * width + column, np.asarray(weight * inside, np.float32)) for row, column, weight in parts]


def crop_pixels(pixels: Pixels, width: int, height: int) -> Pixels:
    """Cut out the upper `height` rows, and the middle `width` columns of a wider picture.

    Raises:
        BadImageError: When the picture is damaged.
    """
    if pixels.shape[0] < height or pixels.shape[1] < width:
        raise BadImageError(
            "bad_image", f"{pixels.shape[1]}×{pixels.shape[0]} pixels are less than the crop {width}×{height}"
        )
    first = (pixels.shape[1] - width) // 2
    return np.ascontiguousarray(pixels[:height, first : first + width])
