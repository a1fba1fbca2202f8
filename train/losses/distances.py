"""Distances between descriptors: plain L2, or the mean distance of aligned frames (SeqMatchNet).

Convention:
    An "aligned" descriptor `(…, L·W)` holds the vectors of its L frames one after the other, W numbers each. In the
    functions below `frames` is L for such descriptors and None for plain L2.
"""

import numpy as np
import torch
from torch import Tensor

from seqdata.geometry import Float32Array
from train.devices import or_on_cpu
from train.models.base import SequenceModel

QUERIES_AT_ONCE = 1024
"""Queries whose distances to all references are computed together."""


def aligned_length(model: SequenceModel, length: int) -> int | None:
    """Return `length` where the model's descriptors are compared frame by frame, and None for plain L2."""
    return length if model.distance == "aligned" else None


def descriptor_distances(left: Tensor, right: Tensor, frames: int | None = None, eps: float = 1e-12) -> Tensor:
    """Compute distances of descriptors pair by pair, with a finite gradient where they are equal.

    Args:
        left: Descriptors `(…, D)`.
        right: Descriptors `(…, D)`; leading axes are broadcast.
        frames: L of aligned descriptors, None for L2.
        eps: Least squared distance. The square root has no slope at zero, so equal descriptors would give NaN.

    Returns:
        Distances `(…)`, in the units of the descriptors.

    Example:
        >>> descriptor_distances(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0]))
        tensor(5.)
        >>> descriptor_distances(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0]), frames=2)
        tensor(3.5000)
    """
    difference = left - right
    if frames is None:
        return difference.square().sum(-1).clamp(min=eps).sqrt()
    squares = difference.reshape(*difference.shape[:-1], frames, -1).square().sum(-1)
    return squares.clamp(min=eps).sqrt().mean(-1)


def distance_matrix(query: Tensor, reference: Tensor, frames: int | None = None) -> Tensor:
    """Compute the distances that rank reference descriptors as seen from each query.

    They hold for descriptors with a common offset, for nearly equal ones, and for values from 1e-25 to 1e19.

    Args:
        query: Descriptors `(q, D)`.
        reference: Descriptors `(n, D)`.
        frames: L of aligned descriptors, None for L2.

    Returns:
        Distances `(q, n)` float32: L2, or the mean over aligned frames.
    """
    if frames is None:
        return _pairwise(query, reference).float()
    # Frame by frame, because broadcasting would hold (q, n, D) numbers at once.
    total = torch.zeros(len(query), len(reference), dtype=torch.float64, device=query.device)
    for query_frame, reference_frame in zip(query.chunk(frames, 1), reference.chunk(frames, 1), strict=True):
        total += _pairwise(query_frame, reference_frame)
    return (total / frames).float()


def distance_table(query: Tensor, reference: Tensor, frames: int | None) -> Float32Array:
    """Compute `distance_matrix` where the references are, some queries at a time; on the CPU where memory ends there.

    Args:
        query: Descriptors (q, D) on any device.
        reference: Descriptors (n, D) on any device.
        frames: L of aligned descriptors, None for L2.

    Returns:
        Distances (q, n).
    """

    def compute(device: torch.device) -> Float32Array:
        distances = np.empty((len(query), len(reference)), np.float32)
        references = reference.to(device)
        for start in range(0, len(query), QUERIES_AT_ONCE):
            part = slice(start, start + QUERIES_AT_ONCE)
            distances[part] = distance_matrix(query[part].to(device), references, frames).cpu().numpy()
        return distances

    return or_on_cpu(compute, reference.device)


def _pairwise(query: Tensor, reference: Tensor) -> Tensor:
    """L2 distances `(q, n)` float64 of `(q, D)` and `(n, D)`.

    |q − r|² = |q|² − 2 q·r + |r|² loses the digits that a common offset takes up. So both are taken about the median
    of the references, which a few long ones do not move, and float64 leaves 8 digits of what is left.
    """
    query, reference = query.double(), reference.double()
    centre = _medians(reference)
    query, reference = query - centre, reference - centre
    squares = query.square().sum(1, keepdim=True) - 2 * query @ reference.T + reference.square().sum(1)
    return squares.clamp(min=0).sqrt()


def _medians(values: Tensor) -> Tensor:
    """The lower median (d,) of each column of (n, d)."""
    if values.is_cuda:
        # On CUDA PyTorch's own median is refused where steps must repeat (`deterministic`); sorting is not.
        return values.sort(dim=0).values[(len(values) - 1) // 2]
    return values.median(dim=0).values
