"""The one place where the batch and sequence axes are joined and split."""

from torch import Tensor


def join(sequences: Tensor) -> Tensor:
    """Join batch and sequence axes: `(B, L, ...)` → `(B·L, ...)`, frame `l` of window `b` at row `b·L + l`.

    Raises: ValueError when there is no sequence axis.
    """
    if sequences.dim() < 2:
        raise ValueError(f"sequences need at least (B, L), got shape {tuple(sequences.shape)}")
    return sequences.flatten(0, 1)


def split(frames: Tensor, length: int) -> Tensor:
    """Undo `join`: `(B·L, ...)` → `(B, L, ...)` for windows of `length` frames.

    Raises: ValueError when the rows do not divide into windows.
    """
    if length < 1 or frames.shape[0] % length:
        raise ValueError(f"{frames.shape[0]} frames do not divide into windows of {length}")
    return frames.view(frames.shape[0] // length, length, *frames.shape[1:])
