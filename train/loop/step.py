"""What one training step computes: frames and windows in, descriptors out, with less memory by settings."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from seqdata.errors import ContractError
from train.data.frames import WindowSource
from train.models.base import SequenceModel

StepFunction = Callable[..., Tensor]
"""Distinct frames (M, …) and window rows (B, L) to descriptors (B, D); see `StepModel.forward`."""


class StepModel(nn.Module):
    """Each distinct frame is encoded once, then windows are fused.

    With `checkpointing` > 0 that many frames at a time keep their activations, and windows of as many frames; the rest
    is computed again in the backward pass. Works for every model, since neither a frame nor a window depends on its
    batch-mates; random depth draws other masks than without.
    """

    def __init__(self, model: SequenceModel, source: WindowSource, checkpointing: int = 0) -> None:
        super().__init__()
        self.model = model
        self.source = source
        self.checkpointing = checkpointing

    def forward(self, frames: Tensor, rows: Tensor, singles: Tensor | None = None) -> Tensor:
        """Compute descriptors of windows, and vectors of single frames, where there are any.

        Args:
            frames: Distinct frames (M, …).
            rows: Window rows (B, L) into them.
            singles: Rows (n,) of frames whose own vectors, as long as descriptors, follow those of the windows.

        Returns:
            Float32 (B, D), or (B + n, D).
        """
        parts = self.checkpointing
        features = _in_parts(self._encode, frames, parts) if parts else self._encode(frames)
        if singles is None:
            return self._fuse(features, rows)
        vectors = features[singles].float()
        # On several processes a share may hold no window.
        return torch.cat([self._fuse(features, rows), vectors]) if len(rows) else vectors

    def _fuse(self, features: Tensor, rows: Tensor) -> Tensor:
        if not self.checkpointing:
            return self.model.fuse_rows(features, rows).float()
        windows = max(1, self.checkpointing // rows.shape[1])
        return _in_parts(lambda part: self.model.fuse_rows(features, part).float(), rows, windows)

    def _encode(self, frames: Tensor) -> Tensor:
        return self.source.encode(self.model, frames)


def _in_parts(function: Callable[[Tensor], Tensor], rows: Tensor, size: int) -> Tensor:
    """`function` of `size` rows at a time, each part's activations dropped until its gradient is computed."""
    # The reentrant form gives weights no gradient where no input needs one, and frames need none.
    return torch.cat([checkpoint(function, part, use_reentrant=False) for part in torch.split(rows, size)])


def check_batch_norm(model: SequenceModel, why: str) -> None:
    """Raise ContractError when a BatchNorm of `model` would use its batch, which `why` cuts into parts."""
    was = model.training
    has_batch_statistics = any(isinstance(module, _BatchNorm) and module.training for module in model.train().modules())
    model.train(was)
    if has_batch_statistics:
        raise ContractError(f"{why} cuts a batch into parts, and BatchNorm in train mode sees them; use bn=eval")


def compiled(module: StepModel, enabled: bool, backend: str | Callable[..., Any] = "inductor") -> StepFunction:
    """The module through `torch.compile`, where enabled.

    Only the numbers of frames and of windows may change without compiling again: a height and width that might change
    too would cost the convolutions their fast kernels.
    """
    if not enabled:
        return module
    step = cast(StepFunction, torch.compile(module, backend=backend))

    def run(frames: Tensor, rows: Tensor, singles: Tensor | None = None) -> Tensor:
        for tensor in (frames, rows) if singles is None else (frames, rows, singles):
            # "Maybe": a step of one frame or window is compiled for itself, where the strict form would end the run.
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return step(frames, rows, singles)

    return run
