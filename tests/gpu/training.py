"""A training step of SeqVLAD against the papers' form: eager float32, every frame of every window, a cluster loop."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.gpu.clock import matrix_rate, peak_memory, seconds
from tests.gpu.rows import Row
from train.data.frames import WindowSource
from train.devices import arithmetic, autocast
from train.loop.step import StepFunction, StepModel, compiled
from train.losses.triplet import TripletLoss
from train.models import registry
from train.models.base import SequenceModel

LENGTH = 5
TRIPLETS, NEGATIVES = 4, 5
GOALS = {"seqvlad-cct384": 5.0, "seqvlad-r18": 4.0}


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


def step(describe: StepFunction, frames: Tensor, rows: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """One step: descriptors, triplet loss, gradients, update."""
    vectors = describe(frames, rows).float()
    query, positive, negatives = vectors.split([TRIPLETS, TRIPLETS, TRIPLETS * NEGATIVES])
    loss: Tensor = TripletLoss()(query, positive, negatives.view(TRIPLETS, NEGATIVES, -1))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


def measure(device: torch.device, tiny: bool) -> list[Row]:
    """Seconds and memory of a step, ours and the papers'."""
    rows: list[Row] = []
    for name, goal in {"seqvlad-small": 1.0}.items() if tiny else GOALS.items():
        rows += _measure(name, goal, device, tiny)
    return rows


def _measure(name: str, goal: float, device: torch.device, tiny: bool) -> list[Row]:
    options = {"encoder": "resnet10t", "cut": "layer1", "clusters": 4} if tiny else {}
    model = registry.create(name, weights="random", **options).to(device).train()
    windows = TRIPLETS * (2 + NEGATIVES)
    # Triplets of a city share no frames, so the frames that are encoded once are all of them: no gain from that.
    indices = torch.arange(windows * LENGTH, device=device).view(windows, LENGTH)
    size = (32, 48) if tiny else (model.size or (480, 640))
    pixels = torch.randint(0, 256, (windows * LENGTH, *size, 3), dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    ours_of = compiled(StepModel(model, Pixels()), enabled=not tiny)
    theirs_of = papers_form(model)
    fused = torch.optim.Adam(model.parameters(), lr=1e-5, fused=device.type == "cuda")
    plain = torch.optim.Adam(model.parameters(), lr=1e-5, foreach=False)

    def ours() -> None:
        with arithmetic(device, "tf32"):
            step(_cast(ours_of, device), pixels, indices, fused)

    def theirs() -> None:
        with arithmetic(device, "fp32"):
            step(theirs_of, pixels, indices, plain)

    with FlopCounterMode(display=False) as counter:
        step(StepModel(model, Pixels()), pixels, indices, fused)
    ceiling = counter.get_total_flops() / matrix_rate(device, torch.bfloat16)
    repeats = 1 if tiny else 5
    fast, slow = (seconds(action, device, repeats, warm=1 if tiny else 3) for action in (ours, theirs))
    small, large = (peak_memory(action, device) / 2**30 for action in (ours, theirs))
    return [
        Row(f"training step, {name}", fast, "s", slow, ceiling, goal),
        Row(f"memory of a step, {name}", small, "GiB", large, None, 2.0),
    ]


def _cast(describe: StepFunction, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """The forward pass in bfloat16 where the card has it."""

    def run(frames: Tensor, rows: Tensor) -> Tensor:
        with autocast(device, "bf16"):
            return describe(frames, rows)

    return run
