"""Frames from shards to the card: the share of a step that waits for data, ours and a DataLoader over loose files."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import seqdata
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings
from seqdata.frames.prefetch import decode_threads, prefetch
from tests.benchmarks.street import write_street
from tests.gpu.clock import finish, seconds
from tests.gpu.rows import Row
from tests.gpu.training import LENGTH, NEGATIVES, TRIPLETS, Pixels, step
from train.data.frames import FrameSource
from train.data.upload import Upload
from train.loop.step import StepModel
from train.models import registry

WINDOWS = TRIPLETS * (2 + NEGATIVES)


class LooseFiles(Dataset[Tensor]):
    """The plainest peer: an image file a frame, decoded by Pillow."""

    def __init__(self, paths: list[Path], orders: list[np.ndarray]) -> None:
        self.paths, self.orders = paths, orders

    def __len__(self) -> int:
        return len(self.orders)

    def __getitem__(self, number: int) -> Tensor:
        frames = [np.asarray(Image.open(self.paths[row]).convert("RGB")) for row in self.orders[number].ravel()]
        return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def measure(device: torch.device, tiny: bool) -> list[Row]:
    """Share of the time of training steps that the device waits for frames of 480 x 640."""
    count, steps = (60, 2) if tiny else (2000, 12)
    preset, options = ("seqvlad-small", {"encoder": "resnet10t", "cut": "layer1", "clusters": 4}) if tiny else (
        "seqvlad-r18", {},
    )  # fmt: skip
    size = (64, 48) if tiny else (640, 480)
    model = registry.create(preset, weights="random", **options).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    describe = StepModel(model, Pixels())
    indices = torch.arange(WINDOWS * LENGTH, device=device).view(WINDOWS, LENGTH)
    rng = np.random.default_rng(0)
    orders = [rng.integers(0, count, (WINDOWS, LENGTH)) for _ in range(steps)]
    with tempfile.TemporaryDirectory() as folder:
        raw = write_street(Path(folder) / "raw", count, size=size)
        build(BuildRequest("folder", raw, Path(folder) / "out", settings=BuildSettings(shard_bytes=64 << 20)))
        dataset = seqdata.open(Path(folder) / "out")
        source = FrameSource(dataset, channels_last=device.type == "cuda")
        upload = Upload(device)

        def ours() -> Iterator[Tensor]:
            for sent in prefetch(orders, lambda order: upload.send(source.read(order.ravel()))):
                yield upload.receive(sent)

        def theirs() -> Iterator[Tensor]:
            files = LooseFiles(sorted(raw.glob("*.jpg")), orders)
            workers = 0 if tiny else min(16, os.cpu_count() or 1)
            for frames in DataLoader(files, batch_size=None, num_workers=workers):
                yield frames.to(device)

        def train_on(frames: Tensor) -> None:
            step(describe, frames, indices, optimizer)

        first = next(ours())
        alone = seconds(lambda: train_on(first), device, repeats=1 if tiny else 5)
        fast, slow = (_wait(frames, train_on, alone, device) for frames in (ours(), theirs()))
    label = f"data wait of a step, {decode_threads()} threads"
    return [Row(label, fast, "of the step", goal=0.02), Row("the same by a DataLoader", slow, "of the step")]


def _wait(frames: Iterator[Tensor], train_on: object, alone: float, device: torch.device) -> float:
    """Share of the time of an epoch that steps on resident frames (`alone` seconds each) would not take."""
    assert callable(train_on)
    train_on(next(frames))
    finish(device)
    started, count = time.perf_counter(), 0
    for batch in frames:
        train_on(batch)
        count += 1
    finish(device)
    taken = time.perf_counter() - started
    return max(0.0, 1 - count * alone / taken)
