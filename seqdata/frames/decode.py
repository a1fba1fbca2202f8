"""From stored bytes to pixels: simplejpeg and Pillow on the CPU, torchcodec on a CUDA device."""

from collections.abc import Callable
from functools import cache
from importlib import import_module

import numpy as np
import simplejpeg
from PIL import Image

from seqdata.errors import ContractError, MissingDependencyError
from seqdata.frames.buffers import Buffers
from seqdata.frames.images import _JPEG_MAGIC, Pixels, open_image, to_rgb

Size = tuple[int, int] | None

Decode = Callable[[bytes, Size, Buffers], Pixels]

_JPEG = b"\xff\xd8"


@cache
def decoder(device: str = "cpu") -> Decode:
    """What decodes on `device` ("cpu", "cuda" or "cuda:N"): bytes, a size (H, W) or None, memory → uint8 (H, W, 3) RGB.

    Convention: "cpu" decodes with simplejpeg, with Pillow what that cannot; its pixels are those of `Dataset.read`.
    "cuda" decodes JPEGs with torchcodec on the device and brings them to the host, where they are resized; its pixels
    differ from the CPU's by rounding. What the device cannot decode, the CPU does.
    Raises: ContractError for another device, MissingDependencyError when torchcodec or the device is absent.
    """
    if device == "cpu":
        return _on_cpu
    if device.split(":")[0] != "cuda":
        raise ContractError(f"device '{device}': frames are decoded on cpu, cuda or cuda:N")
    return _on_cuda(device)


def _on_cpu(data: bytes, size: Size, buffers: Buffers) -> Pixels:
    if size is None and data.startswith(_JPEG):
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
            pixels = buffers.take((height, width, 3))
            simplejpeg.decode_jpeg(data, colorspace="RGB", strict=False, buffer=pixels)
        except (ValueError, KeyError):
            return decode_rows(data, size)
        return pixels
    return decode_rows(data, size)


def _on_cuda(device: str) -> Decode:
    try:
        import torch

        decode_jpeg = import_module("torchcodec.decoders").decode_jpeg
    except (ImportError, RuntimeError, OSError) as error:
        raise MissingDependencyError(f"decoding on {device} needs torchcodec: pip install torchcodec") from error
    if not torch.cuda.is_available():
        raise MissingDependencyError(f"decoding on {device}: torch sees no CUDA device; use device='cpu'")

    def decode(data: bytes, size: Size, _: Buffers) -> Pixels:
        if not data.startswith(_JPEG):
            return decode_rows(data, size)
        try:
            pixels: Pixels = decode_jpeg(data, mode="RGB", device=device).permute(1, 2, 0).contiguous().cpu().numpy()
        except RuntimeError:  # a kind of JPEG that the device does not know; bad bytes are bad on the CPU too
            return decode_rows(data, size)
        return resize(pixels, size)

    return decode


def decode(data: bytes, size: tuple[int, int] | None = None) -> Pixels:
    """Pixels (3, H, W) uint8 RGB of a stored image, resized to `size` = (H, W) with Pillow's bilinear filter.

    Raises: BadImageError when the bytes do not decode.
    """
    return np.ascontiguousarray(decode_rows(data, size).transpose(2, 0, 1))


def decode_rows(data: bytes, size: tuple[int, int] | None = None) -> Pixels:
    """As `decode`, but (H, W, 3), the order in which decoders write: no copy is made. Raises: BadImageError."""
    return resize(_decode_rgb(data), size)


def resize(pixels: Pixels, size: tuple[int, int] | None) -> Pixels:
    """Pixels (H, W, 3) at `size` = (H, W) with Pillow's bilinear filter; as they are for None or an equal size."""
    if size is None or pixels.shape[:2] == tuple(size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _decode_rgb(data: bytes) -> Pixels:
    if data.startswith(_JPEG_MAGIC):
        try:
            decoded: Pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=False)
            return decoded
        except (ValueError, KeyError):
            pass  # CMYK and the like: Pillow knows more kinds
    return to_rgb(open_image(data))


def stacked(frames: list[Pixels]) -> Pixels:
    """Frames (H, W, 3) as one array (L, H, W, 3). Raises: ContractError when their sizes differ."""
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        raise ContractError(
            f"frames of different sizes ({len(shapes)} kinds) cannot be stacked; give size=(height, width)"
        )
    return np.stack(frames)


def channels_first(pixels: Pixels) -> Pixels:
    """(..., H, W, 3) seen as (..., 3, H, W): no copy, channels stay last in memory."""
    return np.moveaxis(pixels, -1, -3)
