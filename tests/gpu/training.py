"""A training step of SeqVLAD against the papers' form: eager float32, every frame of every window, a cluster loop."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.gpu.clock import matrix_rate, peak_memory, seconds
from tests.gpu.rows import Row
from tests.gpu.steps import LENGTH, WINDOWS, Pixels, in_bfloat16, papers_form, train_step
from train.devices import arithmetic
from train.loop.step import StepModel, compiled
from train.models import registry

GOALS = {"seqvlad-cct384": 5.0, "seqvlad-r18": 4.0}


def measure(device: torch.device, tiny: bool, folder: Path) -> Iterator[Row]:
    """Seconds and memory of a step, ours and the papers'."""
    for name, goal in {"seqvlad-small": 1.0}.items() if tiny else GOALS.items():
        yield from _measure(name, goal, device, tiny)


def _measure(name: str, goal: float, device: torch.device, tiny: bool) -> Iterator[Row]:
    options = {"encoder": "resnet10t", "cut": "layer1", "clusters": 4} if tiny else {}
    model = registry.create(name, weights="random", **options).to(device).train()
    # Triplets of a city share no frames, so the frames that are encoded once are all of them: no gain from that.
    rows = torch.arange(WINDOWS * LENGTH, device=device).view(WINDOWS, LENGTH)
    size = (32, 48) if tiny else (model.size or (480, 640))
    pixels = torch.randint(0, 256, (WINDOWS * LENGTH, *size, 3), dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    describe = in_bfloat16(compiled(StepModel(model, Pixels()), enabled=not tiny), device)
    describe_as_papers = papers_form(model)
    fused = torch.optim.Adam(model.parameters(), lr=1e-5, fused=device.type == "cuda")
    plain = torch.optim.Adam(model.parameters(), lr=1e-5, foreach=False)

    def ours() -> None:
        with arithmetic(device, "tf32"):
            train_step(describe, pixels, rows, fused)

    def theirs() -> None:
        with arithmetic(device, "fp32"):
            train_step(describe_as_papers, pixels, rows, plain)

    with FlopCounterMode(display=False) as counter:
        train_step(StepModel(model, Pixels()), pixels, rows, fused)
    ceiling = counter.get_total_flops() / matrix_rate(device, torch.bfloat16)
    repeats = 1 if tiny else 5
    fast = seconds(ours, device, repeats, warm=1 if tiny else 3)
    slow = seconds(theirs, device, repeats, warm=1)
    yield Row(f"training step, {name}", fast, "s", slow, ceiling, goal)
    small, large = (peak_memory(action, device) / 2**30 for action in (ours, theirs))
    yield Row(f"memory of a step, {name}", small, "GiB", large, None, 2.0)
