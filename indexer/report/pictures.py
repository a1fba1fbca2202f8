"""Frames as small JPEG data URIs, so that a page carries its pictures."""

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

WIDTH = 192
QUALITY = 80
MOST_FRAMES = 7


def data_uri(frame: npt.NDArray[np.uint8], width: int = WIDTH) -> str:
    """A frame (3, H, W) uint8 RGB as a `data:image/jpeg` URI, no wider than `width` pixels, never enlarged."""
    image = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def strip_uris(frames: npt.NDArray[np.uint8]) -> list[str]:
    """The frames (L, 3, H, W) of a sequence as data URIs; of more than seven, seven spread evenly, ends included."""
    shown = np.linspace(0, len(frames) - 1, min(len(frames), MOST_FRAMES)).round().astype(int)
    return [data_uri(frames[row]) for row in shown]
