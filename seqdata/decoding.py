"""What turns a stored image into pixels in a stream: simplejpeg and Pillow on the CPU, torchcodec on a CUDA device."""

from collections.abc import Callable
from functools import cache
from importlib import import_module

import simplejpeg

from seqdata.buffers import Buffers
from seqdata.errors import ContractError, MissingDependencyError
from seqdata.pixels import Pixels, decode_rows, resize

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
