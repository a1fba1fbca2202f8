"""How far apart descriptors are: plain L2, or the mean of the frames' own distances (SeqMatchNet).

Convention: an "aligned" descriptor holds the vectors of its L frames one after the other, `(…, L·W)`; `frames` is L
there and None for L2.
"""

import torch
from torch import Tensor

from train.models.base import SequenceModel


def frames_of(model: SequenceModel, length: int) -> int | None:
    """What the functions below want to know of a model: L where its descriptors are compared frame by frame."""
    return length if model.distance == "aligned" else None


def separation(left: Tensor, right: Tensor, frames: int | None = None, eps: float = 1e-12) -> Tensor:
    """Distance of descriptors to descriptors: `(…, D)`, `(…, D)` → `(…)`, with a finite gradient at zero."""
    gap = left - right
    if frames is None:
        return gap.square().sum(-1).clamp(min=eps).sqrt()
    each = gap.reshape(*gap.shape[:-1], frames, -1).square().sum(-1)
    return each.clamp(min=eps).sqrt().mean(-1)


def ranking(query: Tensor, reference: Tensor, frames: int | None = None) -> Tensor:
    """Numbers that rank `reference` `(n, D)` as seen from `query` `(q, D)`: `(q, n)`, the nearest least.

    Squared L2 without the query's own square; for aligned frames the distance itself. Never `(q, n, D)` in memory.
    """
    if frames is None:
        return reference.square().sum(1) - 2 * query @ reference.T
    total = query.new_zeros(len(query), len(reference))
    for q, r in zip(query.chunk(frames, 1), reference.chunk(frames, 1), strict=True):
        total += torch.cdist(q, r)
    return total / frames
