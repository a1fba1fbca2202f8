"""Training steps on pixels that lie on a device: the program's, and the papers' form that it is measured against."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from train.data.frames import WindowSource
from train.devices import autocast
from train.loop.step import StepFunction
from train.losses.triplet import TripletLoss
from train.models.base import SequenceModel

LENGTH = 5
TRIPLETS, NEGATIVES = 4, 5
WINDOWS = TRIPLETS * (2 + NEGATIVES)


class Pixels(WindowSource):
    """Frames come as pixels."""

    pixels = True


def papers_form(model: SequenceModel) -> StepFunction:
    """Encode each frame of each window, and add up residuals cluster by cluster, as the papers' programs do."""
    pooling = model.pooling

    def describe(frames: Tensor, rows: Tensor) -> Tensor:
        tokens = F.normalize(model.tokens(frames[rows.flatten()]).float(), dim=-1)
        shares = F.linear(tokens, pooling.assignment, pooling.bias).softmax(-1)
        sums = []
        for cluster, centre in enumerate(pooling.centres):
            residuals = (tokens - centre) * shares[..., cluster : cluster + 1]
            sums.append(residuals.sum(1).view(*rows.shape, -1).sum(1))
        return F.normalize(F.normalize(torch.stack(sums, 1), dim=-1).flatten(1), dim=-1)

    return describe


def train_step(describe: StepFunction, frames: Tensor, rows: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """One step: descriptors, triplet loss, gradients, update."""
    vectors = describe(frames, rows).float()
    query, positive, negatives = vectors.split([TRIPLETS, TRIPLETS, TRIPLETS * NEGATIVES])
    loss: Tensor = TripletLoss()(query, positive, negatives.view(TRIPLETS, NEGATIVES, -1))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


def in_bfloat16(describe: StepFunction, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """The forward pass in bfloat16 where the card has it."""

    def run(frames: Tensor, rows: Tensor) -> Tensor:
        with autocast(device, "bf16"):
            return describe(frames, rows)

    return run
