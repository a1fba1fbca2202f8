"""Frames that an exported program encodes, in the place of the model's own first half."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from indexer.localizer.localizer import resample
from indexer.localizer.programs.session import Program
from seqdata.errors import ContractError
from train.data.frames import FrameSource
from train.models.base import SequenceModel

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

Runtime = Literal["torch", "onnx"]
RUNTIMES: tuple[Runtime, ...] = ("torch", "onnx")
"""What encodes frames; the descriptors differ by rounding."""
OpenProgram = Callable[[tuple[int, int]], Program]
"""Makes the frame program for frames of one (height, width)."""


def pick_runtime(name: str | None) -> Runtime | None:
    """Return the runtime of a name, None for none.

    Raises:
        ContractError: For another name.

    >>> pick_runtime("onnx")
    'onnx'
    """
    for runtime in RUNTIMES:
        if name == runtime:
            return runtime
    if name is not None:
        raise ContractError(f"--runtime {name}: expected {' or '.join(RUNTIMES)}")
    return None


class ProgramFrames(FrameSource):
    """Frames of a dataset on a CPU, encoded one by one by ONNX Runtime.

    Args:
        dataset: An opened dataset.
        size: (height, width) to resize to at reading; None reads frames at their own size.
        open_program: Makes the program of the size that the model takes; called once a size.
    """

    def __init__(self, dataset: "Dataset", size: tuple[int, int] | None, open_program: OpenProgram) -> None:
        super().__init__(dataset, size)
        self._program = cache(open_program)

    def encode(self, model: SequenceModel, frames: Tensor) -> Tensor:
        """Encode frames `(N, 3, H, W)` uint8 to the features `(N, …)` that the model fuses."""
        program = self._program(model.size or (frames.shape[-2], frames.shape[-1]))
        # One by one: a program has one shape, and a batch gains nothing on a CPU.
        features = [program(resample(frame, (program.shape[-2], program.shape[-1]))) for frame in frames.numpy()]
        return torch.from_numpy(np.concatenate(features))
