"""Frames decoded by a card in lists, whose pixels never come to the host (torchcodec's nvJPEG)."""

import logging
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

log = logging.getLogger(__name__)


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

    Attributes:
        refused: JPEGs that the device could not decode, and the CPU did.

    Raises:
        MissingDependencyError: If torchcodec or the device is absent.
    """

    def __init__(
        self,
        dataset: "Dataset",
        size: tuple[int, int] | None = None,
        *,
        device: torch.device,
        replace_among: Callable[[], IntArray] | None = None,
        decode_list: DecodeList | None = None,
    ) -> None:
        super().__init__(dataset, size, replace_among=replace_among)
        self._device = device
        self._decode_list = decode_list or _torchcodec(device)
        self.refused = 0
        # The source's own device is the stack's too; what is stacked lies there already.
        self._stack = cast(Any, self._stack_on_device)

    def _read(self, rows: IntArray) -> dict[int, Pixels | None]:
        """Pixels of rows, tensors (3, H, W) on the device in the place of arrays; None where a frame is bad."""
        encoded = self.reader.fetch(rows)
        jpegs = {row: data for row, data in encoded.items() if data is not None and data.startswith(JPEG_MAGIC)}
        frames: dict[int, Tensor | None] = {**self._decode(jpegs)}
        for row, data in encoded.items():
            if row not in frames:
                frames[row] = self._decode_on_host(row, data)
        return cast("dict[int, Pixels | None]", frames)

    def _decode(self, jpegs: dict[int, bytes]) -> dict[int, Tensor]:
        """Pixels of JPEGs by row, those left out that the device does not know."""
        try:
            return dict(zip(jpegs, self._decode_list(list(jpegs.values())), strict=True))
        except RuntimeError as error:
            # A card that is full or has failed is no reason to go on, slower and without a word.
            if isinstance(error, torch.OutOfMemoryError) or "CUDA error" in str(error):
                raise
            if len(jpegs) <= 1:
                self._note_refused(error)
                return {}
        # Which of the list it was is not said: halves of it tell.
        rows = list(jpegs)
        halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        first, second = (self._decode({row: jpegs[row] for row in half}) for half in halves)
        return first | second

    def _note_refused(self, error: RuntimeError) -> None:
        """Count a JPEG that the device refuses; the first one goes to the log."""
        self.refused += 1
        if self.refused == 1:
            log.warning("some JPEGs are of a kind that the card cannot decode; the CPU does (%s)", error)

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
