"""Describing windows of a drive, stride 1, against one window after another; how busy the card is meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.gpu.clock import matrix_rate, seconds
from tests.gpu.prepare import LENGTH, Miniature
from tests.gpu.rows import Row
from tests.gpu.steps import Pixels
from train.data.describe import describe_blocks
from train.devices import arithmetic, computing
from train.models import registry

PRESETS = ("seqvlad-r18", "seqvlad-cct384")
BATCH = 64


class DecodedFrames(Pixels):
    """Frames of a miniature, decoded: what is measured is the card, `loading` measures decoding."""

    def __init__(self, data: Miniature) -> None:
        self.data = data

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.data.pixels(rows)


def measure(device: torch.device, tiny: bool, folder: Path) -> Iterator[Row]:
    """Windows a second."""
    data = Miniature(folder)
    for name in ("seqvlad-small",) if tiny else PRESETS:
        yield from _measure(name, data, device, tiny)


def _measure(name: str, data: Miniature, device: torch.device, tiny: bool) -> Iterator[Row]:
    options = {"encoder": "resnet10t", "cut": "layer1", "clusters": 4} if tiny else {}
    model = registry.create(name, weights="random", **options).to(device).eval()
    table, few = data.table, data.table.slice(0, 4 if tiny else 100)
    source = DecodedFrames(data)
    resident = torch.from_numpy(np.ascontiguousarray(data.frames[:BATCH])).to(device).permute(0, 3, 1, 2)
    window = torch.arange(LENGTH, device=device)[None]

    def ours() -> None:
        blocks = describe_blocks(
            model, data, table, device=str(device), batch_size=BATCH, source=source, precision="bf16"
        )
        for _ in blocks:
            pass

    @torch.no_grad()
    def theirs() -> None:
        for rows in data.frame_rows(few):
            model.fuse_rows(model.encode_frames(torch.from_numpy(data.pixels(rows)).to(device)), window).cpu()

    @torch.no_grad()
    def encoder() -> None:
        with computing(device, "bf16"):
            model.encode_frames(resident)

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.fuse_rows(model.encode_frames(resident[:1]), torch.zeros_like(window))
    ceiling = matrix_rate(device, torch.bfloat16) / counter.get_total_flops()
    fast = len(table) / seconds(ours, device, repeats=1 if tiny else 2, warm=1)
    with arithmetic(device, "fp32"):
        slow = len(few) / seconds(theirs, device, repeats=1, warm=1)
    yield Row(f"describe, {name}", fast, "windows/s", slow, ceiling, 10.0, is_higher_better=True)
    alone = len(resident) / seconds(encoder, device, repeats=2 if tiny else 10)
    yield Row(
        f"card busy while describing, {name}", fast, "windows/s", None, alone, 0.9, "ceiling", is_higher_better=True
    )
