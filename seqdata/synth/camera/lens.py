"""From light to a JPEG: colour, exposure, bonnet, blur and noise of one visit's camera."""

from __future__ import annotations

import numpy as np
import simplejpeg

from seqdata.frames.images import Pixels
from seqdata.geometry import FloatArray
from seqdata.synth.visits import Visit


def develop(picture: FloatArray, visit: Visit, exposure: float, rng: np.random.Generator) -> Pixels:
    """Develop a picture into an 8-bit photograph.

    Args:
        picture: Light, float32 (H, W, 3) in 0..1.
        visit: Its camera's colours, blur and noise.
        exposure: Factor of all light.
        rng: Draws the noise.

    Returns:
        RGB, uint8 (H, W, 3).
    """
    grey = picture.mean(-1, keepdims=True)
    out = grey + (picture - grey) * np.float32(visit.saturation)
    out = np.clip(out * np.float32(visit.gain * exposure), 0, 1)
    if visit.gamma != 1.0:
        out **= np.float32(visit.gamma)
    if visit.bonnet:
        _bonnet(out)
    out = _soften(out, np.float32(visit.blur))
    # After the blur: noise arises in the sensor, behind the lens.
    out += rng.standard_normal(out.shape, dtype=np.float32) * np.float32(visit.noise)
    return (np.clip(out, 0, 1) * 255 + 0.5).astype(np.uint8)


def shrink(picture: FloatArray, times: int) -> FloatArray:
    """Average `times x times` pixels into one."""
    if times == 1:
        return picture
    h, w = picture.shape[0] // times, picture.shape[1] // times
    small: FloatArray = picture.reshape(h, times, w, times, 3).mean((1, 3), dtype=np.float32)
    return small


def encode(photo: Pixels, quality: int) -> bytes:
    """Encode an RGB photograph as a JPEG file."""
    return bytes(
        simplejpeg.encode_jpeg(np.ascontiguousarray(photo), quality=quality, colorspace="RGB", colorsubsampling="420")
    )


def _bonnet(picture: FloatArray) -> None:
    """The car's own dark bonnet along the lower edge (MSLS's `control_panel`)."""
    h, w = picture.shape[:2]
    x = np.linspace(-1, 1, w, dtype=np.float32)
    edge = h * (0.93 + 0.07 * x**2)
    picture[np.arange(h)[:, None] > edge] *= np.float32(0.25)


def _soften(picture: FloatArray, amount: np.float32) -> FloatArray:
    """Mix every pixel with its four neighbours."""
    out = picture.copy()
    out[:, 1:-1] += amount * np.float32(0.5) * (picture[:, :-2] + picture[:, 2:] - 2 * picture[:, 1:-1])
    rows = out.copy()
    rows[1:-1] += amount * np.float32(0.5) * (out[:-2] + out[2:] - 2 * out[1:-1])
    return rows
