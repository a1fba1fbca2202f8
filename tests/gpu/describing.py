"""Describing windows of a drive, stride 1, against one window after another; how busy the card is meanwhile."""

import numpy as np
import torch

from tests.gpu.clock import seconds
from tests.gpu.rows import Row
from tests.support.fake_dataset import Drive, FakeDataset
from train.data.describe import describe_blocks
from train.devices import arithmetic, autocast
from train.models import registry

LENGTH = 5
PRESETS = ("seqvlad-r18", "seqvlad-cct384")
BATCH = 64


def measure(device: torch.device, tiny: bool) -> list[Row]:
    """Windows a second; the ceiling is the encoder alone, on frames that lie on the device."""
    return [row for name in (("seqvlad-small",) if tiny else PRESETS) for row in _measure(name, device, tiny)]


def _measure(name: str, device: torch.device, tiny: bool) -> list[Row]:
    options = {"encoder": "resnet10t", "cut": "layer1", "clusters": 4} if tiny else {}
    model = registry.create(name, weights="random", **options).to(device).eval()
    count, size = (40, (16, 24)) if tiny else (2000, model.size or (480, 640))
    dataset = FakeDataset(drives=(Drive("long", "database", 0.0, count),), size=size)
    table = dataset.sequences(length=LENGTH)
    few = table[: 4 if tiny else 100]
    resident = torch.from_numpy(np.ascontiguousarray(dataset.pixels[:BATCH])).to(device)

    def ours() -> None:
        for _ in describe_blocks(model, dataset, table, device=str(device), batch_size=BATCH, precision="bf16"):
            pass

    @torch.no_grad()
    def theirs() -> None:
        for window in dataset.frame_rows(few):
            pixels = torch.from_numpy(dataset.pixels[window]).to(device)
            model.fuse_rows(model.encode_frames(pixels), torch.arange(LENGTH, device=device)[None]).cpu()

    @torch.no_grad()
    def encoder() -> None:
        with arithmetic(device, "bf16"), autocast(device, "bf16"):
            model.encode_frames(resident)

    fast = len(table) / seconds(ours, device, repeats=1 if tiny else 2, warm=1)
    with arithmetic(device, "fp32"):
        slow = len(few) / seconds(theirs, device, repeats=1, warm=1)
    ceiling = len(resident) / seconds(encoder, device, repeats=2 if tiny else 10)
    return [
        Row(f"describe, {name}", fast, "windows/s", slow, ceiling, 10.0, is_higher_better=True),
        Row(f"card busy while describing, {name}", fast, "windows/s", None, ceiling, 0.9, True, True),
    ]
