"""RobotCar's raw Bayer pictures as RGB pixels: demosaiced, undistorted, cropped.

Convention: the stereo sensors are GBRG, the mono sensors RGGB, named from the picture's first row; OpenCV names a
pattern by the pixel one row and one column further, so these are its GR and BG. A lookup table is float64, W·H columns
u (or x) and then W·H rows v (or y): pixel i of the undistorted picture (row by row) is read at (v, u) of the raw one.
Source: the dataset's documentation and camera models.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from seqdata.errors import ContractError, InputError, MissingDependencyError
from seqdata.frames.images import BadImageError, Pixels, open_image, to_rgb

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
    """What is done to a raw picture: the camera (its Bayer pattern), a lookup table's file, (width, height) to keep."""

    camera: str
    undistort: Path | None = None
    crop: tuple[int, int] | None = None


def parse_crop(text: str) -> tuple[int, int] | None:
    """Width and height of "top1280x800": the upper rows, of a wider picture the middle columns; None for "none".

    Raises: ContractError for anything else.
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
    """The lookup table that `place` names: a .bin file, or a folder that holds the one of `camera`; None for "".

    Raises: InputError when there is none.
    """
    if not place:
        return None
    path = Path(place)
    if path.is_dir():
        path /= f"{_MODELS.get(camera, camera)}_distortion_lut.bin"
    if not path.is_file():
        raise InputError(f"{path}: no such lookup table; name the SDK's models folder or a *_distortion_lut.bin")
    return path


def develop(data: bytes, how: Development) -> bytes | Pixels:
    """RGB pixels uint8 (H, W, 3) of one raw file; its own bytes where it has colours already and nothing else is to do.

    Raises: BadImageError (`empty_image`, `bad_image`) for what does not decode or does not fit table and crop.
    """
    if not data:
        raise BadImageError("empty_image", "the file has no bytes")
    image = open_image(data)
    mosaic = is_mosaic(image)
    if image.format == "PNG" and image.mode.startswith("I"):
        raise BadImageError("bad_image", "a 16-bit PNG of one channel is neither raw RobotCar nor a colour picture")
    if not mosaic and how.undistort is None and how.crop is None:
        return data
    pixels = demosaic(np.asarray(image), how.camera) if mosaic else to_rgb(image)
    if how.undistort is not None:
        pixels = undistort(pixels, how.undistort)
    return pixels if how.crop is None else crop_pixels(pixels, *how.crop)


def is_mosaic(image: Image.Image) -> bool:
    """Whether a picture file is a raw Bayer mosaic: RobotCar's are PNGs of one 8-bit channel."""
    return image.format == "PNG" and image.mode in _BAYER_MODES


def demosaic(mosaic: Pixels, camera: str) -> Pixels:
    """RGB uint8 (H, W, 3) of a Bayer picture uint8 (H, W) of `camera`, each colour's gaps filled bilinearly.

    Raises: BadImageError under 4 pixels a side, MissingDependencyError without OpenCV.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError("raw RobotCar pictures need OpenCV: pip install opencv-python-headless") from error
    if min(mosaic.shape) < _LEAST_SIDE:
        raise BadImageError("bad_image", f"{mosaic.shape[1]}×{mosaic.shape[0]} pixels are no Bayer picture")
    pattern = cv2.COLOR_BayerGR2RGB if camera.startswith("stereo") else cv2.COLOR_BayerBG2RGB
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(mosaic), pattern), np.uint8)


def undistort(pixels: Pixels, table: Path) -> Pixels:
    """The picture (H, W, C) uint8 read bilinearly at the places of a lookup table; black outside, rounded.

    Raises: InputError when the table cannot be read, BadImageError when it is for another number of pixels.
    """
    status = table.stat()
    height, width, channels = pixels.shape
    corners = _corners(table, height, width, status.st_size, status.st_mtime_ns)
    if corners is None:
        raise BadImageError(
            "bad_image", f"{width}×{height} pixels, but {table.name} is for {status.st_size // 16:,}: another camera's?"
        )
    flat = pixels.reshape(-1, channels)
    total = np.zeros((len(flat), channels), np.float32)
    for index, weight in corners:
        total += flat[index] * weight[:, None]
    return (total + np.float32(0.5)).astype(np.uint8).reshape(pixels.shape)


@lru_cache(maxsize=2)
def _corners(
    table: Path, height: int, width: int, size: int, changed: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] | None:
    """Flat index and weight of the four pixels around every place of a table; weight 0 outside the picture.

    `size` and `changed` make the file's state part of the key. None when the table has another size.
    """
    if size != 16 * height * width:
        return None
    try:
        u, v = np.fromfile(table, "<f8").reshape(2, -1)
    except (OSError, ValueError) as error:
        raise InputError(f"{table}: the lookup table cannot be read ({error})") from error
    inside = (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)  # false for NaN
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
    """The upper `height` rows, of a wider picture the middle `width` columns. Raises: BadImageError when smaller."""
    if pixels.shape[0] < height or pixels.shape[1] < width:
        raise BadImageError(
            "bad_image", f"{pixels.shape[1]}×{pixels.shape[0]} pixels are less than the crop {width}×{height}"
        )
    first = (pixels.shape[1] - width) // 2
    return np.ascontiguousarray(pixels[:height, first : first + width])
