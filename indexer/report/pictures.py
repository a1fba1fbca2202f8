"""Frames as small JPEG data URIs, so that a page carries its pictures."""

import base64
import io

import numpy as np
from PIL import Image

from seqdata.frames.images import Pixels

# Twelve filmstrips of four rows hold up to 336 pictures: small ones keep the page a file that can be mailed.
WIDTH = 192
QUALITY = 80
MOST_FRAMES = 7


def data_uri(frame: Pixels, width: int = WIDTH) -> str:
    """Encode a frame (3, H, W) uint8 RGB as a `data:image/jpeg` URI, no wider than `width` pixels, never enlarged."""
    image = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
    # Enlarging would add bytes and no detail.
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def strip_uris(frames: Pixels) -> list[str]:
    """Encode the frames (L, 3, H, W) of a sequence; of more than seven, seven spread evenly, ends included.

    Example:
        >>> [uri[:22] for uri in strip_uris(np.zeros((1, 3, 8, 8), np.uint8))]
        ['data:image/jpeg;base64']
    """
    rows = np.linspace(0, len(frames) - 1, min(len(frames), MOST_FRAMES)).round().astype(int)
    return [data_uri(frames[row]) for row in rows]
