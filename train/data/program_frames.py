"""Frames that an exported program encodes, in the place of the model's own first half."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from indexer.localizer.localizer import resample
from indexer.localizer.programs.session import Program
from seqdata.frames.resize import Kernel
from train.data.frames import FrameSource
from train.models.base import SequenceModel

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

OpenProgram = Callable[[tuple[int, int]], Program]
"""Makes the frame program for frames of one (height, width)."""


class ProgramFrames(FrameSource):
    """Frames of a dataset on a CPU, encoded one by one by ONNX Runtime.

    Args:
        dataset: An opened dataset.
        size: (height, width) to resize to at reading; None reads frames at their own size.
        open_program: Makes the program of the size that the model takes; called once a size.
        kernel: How frames are resized (see `seqdata.frames.resize.Kernel`).
    """

    def __init__(
        self, dataset: "Dataset", size: tuple[int, int] | None, open_program: OpenProgram, kernel: Kernel = "pillow"
    ) -> None:
        super().__init__(dataset, size, kernel=kernel)
        self._program = cache(open_program)

    def encode(self, model: SequenceModel, frames: Tensor) -> Tensor:
        """Encode frames `(N, 3, H, W)` uint8 to the features `(N, …)` that the model fuses."""
        return encode_by_program(self._program, model.size, frames)


def encode_by_program(open_program: OpenProgram, size: tuple[int, int] | None, frames: Tensor) -> Tensor:
    """Encode frames `(N, 3, H, W)` uint8 by the program for `size` (height, width), None for the frames' own."""
    program = open_program(size or (frames.shape[-2], frames.shape[-1]))
    # One by one: a program has one shape, and a batch gains nothing on a CPU.
    features = [program(resample(frame, (program.shape[-2], program.shape[-1]))) for frame in frames.numpy()]
    return torch.from_numpy(np.concatenate(features))
