"""From stored bytes to pixels: simplejpeg and Pillow on the CPU, torchcodec on a CUDA device.

Convention: pixels are RGB, uint8, (H, W, 3), the order in which decoders write; sizes are (H, W).
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module

import numpy as np
import simplejpeg

from seqdata.errors import ContractError, MissingDependencyError
from seqdata.frames.buffers import Buffers
from seqdata.frames.formats import JPEG_MAGIC, STORED_FORMATS, BadImageError, check_jpeg, open_image
from seqdata.frames.images import Pixels, to_rgb
from seqdata.frames.resize import Kernel, Size, resize

_FORKED = (
    "frames cannot be decoded on CUDA in a process that was forked after CUDA had started; give the DataLoader "
    'num_workers=0 or multiprocessing_context="spawn", or decode with device="cpu"'
)
Decode = Callable[[bytes, Size, Buffers | None, Kernel], Pixels]


def decode_image(data: bytes, size: Size = None, buffers: Buffers | None = None, kernel: Kernel = "pillow") -> Pixels:
    """Decode a stored image on the CPU.

    Args:
        data: Bytes of a JPEG or PNG file.
        size: (height, width) to resize to; None keeps the image's own size.
        buffers: Memory to decode into.
        kernel: How it is resized.

    Returns:
        Pixels uint8 (H, W, 3) RGB.

    Raises:
        BadImageError: If the bytes do not decode, or their pixels would fill the memory.
    """
    if not data.startswith(JPEG_MAGIC):
        return resize(to_rgb(open_image(data, STORED_FORMATS)), size, kernel)
    try:
        width, height = check_jpeg(data)
        if size is not None and kernel == "scaled":
            return resize(_decode_reduced(data, size), size, kernel)
        if buffers is None:
            return resize(simplejpeg.decode_jpeg(data, colorspace="RGB", strict=False), size, kernel)
        pixels = buffers.take((height, width, 3))
        simplejpeg.decode_jpeg(data, colorspace="RGB", strict=False, buffer=pixels)
    except (ValueError, KeyError):  # CMYK and the like: Pillow knows more kinds
        return resize(to_rgb(open_image(data, STORED_FORMATS)), size, kernel)
    return resize(pixels, size, kernel)


def decode_jpeg_into(data: bytes, target: Pixels) -> bool:
    """Decode a JPEG into an array (H, W, 3).

    Returns:
        Whether it could; False for another kind of file, another size, or bytes that do not decode, and `target` then
        holds anything.
    """
    if not data.startswith(JPEG_MAGIC):
        return False
    try:
        if check_jpeg(data) != (target.shape[1], target.shape[0]):
            return False
        simplejpeg.decode_jpeg(data, colorspace="RGB", strict=False, buffer=target)
    except (ValueError, KeyError, BadImageError):
        return False
    return True


def _decode_reduced(data: bytes, size: tuple[int, int]) -> Pixels:
    """Decode a JPEG at half its size or less, but no smaller than (height, width); whole where that is larger."""
    pixels: Pixels = simplejpeg.decode_jpeg(
        data, colorspace="RGB", strict=False, min_height=size[0], min_width=size[1], min_factor=2
    )
    return pixels


# Probing for torch and a device takes long, and a reader asks at every frame.
@cache
def decoder(device: str = "cpu") -> Decode:
    """Choose what decodes on a device; it is called as `decode_image`.

    Convention: pixels of "cuda" differ from the CPU's by rounding, and by many grey levels at edges of colour, where
    the decoders spread it otherwise. They are decoded with torchcodec on the device and brought to the host, where they
    are resized. What the device cannot decode, the CPU does.

    Args:
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        ContractError: For another device.
        MissingDependencyError: If torchcodec or the device is absent.
    """
    if device == "cpu":
        return decode_image
    if device.split(":")[0] != "cuda":
        raise ContractError(f"device '{device}': frames are decoded on cpu, cuda or cuda:N")
    return _cuda_decoder(device)


def _cuda_decoder(device: str) -> Decode:
    try:
        import torch  # heavy

        decode_jpeg = import_module("torchcodec.decoders").decode_jpeg
    except (ImportError, AttributeError, RuntimeError, OSError) as error:  # before 0.16 it decoded no JPEG
        advice = "pip install 'torchcodec>=0.16'"
        raise MissingDependencyError(f"decoding on {device} needs torchcodec: {advice}") from error
    if torch.cuda._is_in_bad_fork():
        raise ContractError(_FORKED)
    if not torch.cuda.is_available():
        raise MissingDependencyError(f"decoding on {device}: torch sees no CUDA device; use device='cpu'")

    def decode_on_device(data: bytes, size: Size, buffers: Buffers | None, kernel: Kernel) -> Pixels:
        if not data.startswith(JPEG_MAGIC):
            return decode_image(data, size, buffers, kernel)
        try:
            # Rows of pixels are put in order on the device, where it costs less than on the host; then one copy brings
            # them over.
            pixels: Pixels = decode_jpeg(data, mode="RGB", device=device).permute(1, 2, 0).contiguous().cpu().numpy()
        except RuntimeError as error:
            # A kind of JPEG that the device does not know; bad bytes are bad on the CPU too. A device that has failed
            # is neither: frame after frame would be decoded on the CPU without a word.
            if isinstance(error, torch.OutOfMemoryError) or "CUDA error" in str(error):
                raise
            if torch.cuda._is_in_bad_fork():
                raise ContractError(_FORKED) from error
            return decode_image(data, size, buffers, kernel)
        return resize(pixels, size, kernel)

    return decode_on_device


def stack_frames(frames: list[Pixels]) -> Pixels:
    """Stack frames (H, W, 3) to one array (L, H, W, 3).

    Raises:
        ContractError: When their sizes differ.
    """
    check_one_size(frames)
    return np.stack(frames)


def check_one_size(frames: list[Pixels]) -> None:
    """Raise ContractError when frames (H, W, 3) differ in size and cannot be stacked."""
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        raise ContractError(
            f"frames of different sizes ({len(shapes)} kinds) cannot be stacked; give size=(height, width)"
        )


def channels_first(pixels: Pixels) -> Pixels:
    """View (..., H, W, 3) as (..., 3, H, W): no copy, channels stay last in memory."""
    return np.moveaxis(pixels, -1, -3)
