"""How far a step in bfloat16, TF32 and float32 on the card is from float64 on the CPU, stage by stage."""

import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from indexer.describer import PRECISIONS
from tests.gpu.rows import Row
from tests.gpu.steps import Pixels
from train.devices import computing
from train.loop.step import StepModel
from train.losses.triplet import TripletLoss
from train.models import registry
from train.models.base import SequenceModel

# Relative errors that a rounding of 8, 10 and 23 bits may come to over some twenty layers.
GOALS = {"bf16": 0.1, "tf32": 0.02, "fp32": 1e-4}


def measure(device: torch.device, tiny: bool, folder: Path) -> Iterator[Row]:
    """Relative errors of loss, descriptors and gradients (norm of the difference over the norm)."""
    options = {"encoder": "resnet10t", "cut": "layer1", "clusters": 4} if tiny else {}
    model = registry.create("seqvlad-small", weights="random", seed=0, **options).train()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (15, 3, *((32, 48) if tiny else (240, 320))), dtype=torch.uint8, generator=generator)
    truth = _step(copy.deepcopy(model).double(), pixels)
    for precision in PRECISIONS:
        on_device = copy.deepcopy(model).to(device)
        with computing(device, precision):
            values = _step(on_device, pixels.to(device))
        for stage, value in values.items():
            exact = truth[stage]
            error = float((value.double().cpu() - exact).norm() / exact.norm().clamp_min(1e-30))
            yield Row(f"error of {stage}, {precision}", error, "relative", goal=GOALS[precision], of="ours")


def _step(model: SequenceModel, pixels: Tensor) -> dict[str, Tensor]:
    """Descriptors, loss and gradients by part of a model."""
    rows = torch.arange(15, device=pixels.device).view(3, 5)
    vectors = StepModel(model, Pixels())(pixels.to(next(model.parameters()).dtype), rows)
    with torch.autocast(pixels.device.type, enabled=False):
        query, positive, negative = vectors.to(next(model.parameters()).dtype).unsqueeze(1).unbind(0)
        # A margin wide enough that the hinge is open: a closed one has no gradient to compare.
        loss: Tensor = TripletLoss(margin=4.0)(query, positive, negative[None])
    loss.backward()
    parts: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            parts.setdefault(name.partition(".")[0], []).append(parameter.grad.flatten())
    gradients = {f"gradient of {part}": torch.cat(values) for part, values in parts.items()}
    return {"descriptors": vectors.detach(), "loss": loss.detach().view(1), **gradients}
