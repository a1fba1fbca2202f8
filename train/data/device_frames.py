"""Frames decoded by a card in lists, whose pixels never come to the host (torchcodec's nvJPEG)."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqdata.frames.decode import check_one_size, decode_image, decoder
from seqdata.frames.formats import JPEG_MAGIC, BadImageError
from seqdata.frames.images import Pixels
from seqdata.frames.reader import OTHER_BYTES
from seqdata.geometry import IntArray
from train.data.frames import FrameSource

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

DecodeList = Callable[[list[bytes]], list[Tensor]]
"""Bytes of JPEGs to pixels uint8 (3, H, W) on the device."""


class DeviceFrames(FrameSource):
    """As `FrameSource`, with frames that are decoded, stacked and resized on a CUDA device; none is cached.

    What the device cannot decode (PNG, JPEG of a rare kind) the CPU does. Pixels differ from the CPU's decoder by
    rounding, and by more at edges of colour.

    Args:
        dataset: An opened dataset.
        size: (height, width) to resize to; None reads frames at their own size.
        device: The CUDA device.
        replace_among: See `FrameSource`.
        decode_list: Decodes on the device; default: torchcodec.

    Raises:
        MissingDependencyError: If torchcodec or the device is absent.
    """

    def __init__(
        self,
        dataset: "Dataset",
        size: tuple[int, int] | None = None,
        *,
        device: torch.device,
        replace_among: IntArray | None = None,
        decode_list: DecodeList | None = None,
    ) -> None:
        super().__init__(dataset, size, replace_among=replace_among)
        self._device = device
        self._decode_list = decode_list or _torchcodec(device)
        # The source's own device is the stack's too; what is stacked lies there already.
        self._stack = cast(Any, self._stack_on_device)

    def _read(self, rows: IntArray) -> dict[int, Pixels | None]:
        """Pixels of rows, tensors (3, H, W) on the device in the place of arrays; None where a frame is bad."""
        encoded = self.reader.fetch(rows)
        jpegs = {row: data for row, data in encoded.items() if data is not None and data.startswith(JPEG_MAGIC)}
        frames: dict[int, Tensor | None] = {}
        try:
            frames |= dict(zip(jpegs, self._decode_list(list(jpegs.values())), strict=True))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # one of the list is of a kind that the device does not know; which one is not said
            pass
        for row, data in encoded.items():
            if row not in frames:
                frames[row] = self._decode_on_host(row, data)
        return cast("dict[int, Pixels | None]", frames)

    def _decode_on_host(self, row: int, data: bytes | None) -> Tensor | None:
        try:
            if data is None:
                raise BadImageError("bad_image", OTHER_BYTES)
            return torch.from_numpy(np.array(decode_image(data))).to(self._device).permute(2, 0, 1)
        except BadImageError as error:
            self.cache.bad[row] = str(error)
            return None

    def _stack_on_device(self, frames: list[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        """Stack frames to (n, 3, H, W) uint8, channels last in memory, resized where there is a size."""
        if size is not None:
            frames = [_resize(frame, size) for frame in frames]
        check_one_size(cast(Any, frames))
        if not frames:
            return torch.zeros(0, 3, *(size or (0, 0)), dtype=torch.uint8, device=self._device)
        return torch.stack(frames).contiguous(memory_format=torch.channels_last)


def _resize(frame: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels (3, H, W) at `size`, antialiased, as `seqdata.frames.decode.resize` to a grey level."""
    if tuple(frame.shape[1:]) == tuple(size):
        return frame
    resized = F.interpolate(frame[None].float(), size=size, mode="bilinear", antialias=True)
    return resized[0].round().clamp(0, 255).to(torch.uint8)


def _torchcodec(device: torch.device) -> DecodeList:
    """Torchcodec's decoder of lists. Raises: MissingDependencyError as `seqdata.frames.decode.decoder`."""
    decoder(str(device))  # says what is missing
    decode_jpeg = import_module("torchcodec.decoders").decode_jpeg
    return lambda images: list(decode_jpeg(images, mode="RGB", device=str(device))) if images else []
