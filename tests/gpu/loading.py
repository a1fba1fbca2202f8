"""Frames from shards to the card: the share of a step that waits for data, ours and a DataLoader over loose files.

Where polars or pyarrow are missing there are no shards: ours then decodes JPEGs that lie in memory.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
from tests.gpu.clock import finish, host_copy_rate, seconds
from tests.gpu.prepare import Miniature, absent
from tests.gpu.rows import Row
from tests.gpu.steps import LENGTH, WINDOWS, Pixels, train_step
from train.data.frames import FrameSource
from train.data.upload import Upload
from train.loop.step import StepModel
from train.models import registry


class LooseFiles(Dataset[Tensor]):
    """The plainest peer: an image file a frame, decoded by Pillow."""

    def __init__(self, paths: list[Path], orders: list[np.ndarray]) -> None:
        self.paths, self.orders = paths, orders

    def __len__(self) -> int:
        return len(self.orders)

    def __getitem__(self, number: int) -> Tensor:
        frames = [np.asarray(Image.open(self.paths[row]).convert("RGB")) for row in self.orders[number].ravel()]
        return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def measure(device: torch.device, tiny: bool, folder: Path) -> Iterator[Row]:
    """Frames a second to the card, and the share of the time of training steps that it waits for them."""
    steps = 2 if tiny else 12
    preset, options = ("seqvlad-small", {"encoder": "resnet10t", "cut": "layer1", "clusters": 4}) if tiny else (
        "seqvlad-r18", {},
    )  # fmt: skip
    model = registry.create(preset, weights="random", **options).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    describe = StepModel(model, Pixels())
    indices = torch.arange(WINDOWS * LENGTH, device=device).view(WINDOWS, LENGTH)
    with tempfile.TemporaryDirectory() as name:
        raw, dataset, kind = _drive(Path(name), folder, tiny)
        paths = sorted(raw.glob("*.jpg"))
        rng = np.random.default_rng(0)
        orders = [rng.integers(0, len(paths), (WINDOWS, LENGTH)) for _ in range(steps)]
        source = FrameSource(dataset, channels_last=device.type == "cuda")
        upload = Upload(device)

        def ours() -> Iterator[Tensor]:
            for sent in prefetch(orders, lambda order: upload.send(source.read(order.ravel()))):
                yield upload.receive(sent)

        def theirs() -> Iterator[Tensor]:
            workers = 0 if tiny else min(16, os.cpu_count() or 1)
            for frames in DataLoader(LooseFiles(paths, orders), batch_size=None, num_workers=workers):
                yield frames.to(device)

        def train_on(frames: Tensor) -> None:
            train_step(describe, frames, indices, optimizer)

        first = next(ours())
        rates = [_rate(frames, device) for frames in (ours(), theirs())]
        ceiling = host_copy_rate(device) / first[0].numel()
        threads = f"{kind}, {decode_threads()} threads"
        yield Row(f"frames to the card, {threads}", rates[0], "1/s", rates[1], ceiling, is_higher_better=True)
        alone = seconds(lambda: train_on(first), device, repeats=1 if tiny else 5)
        waits = [_wait(frames, train_on, alone, device) for frames in (ours(), theirs())]
        yield Row(f"data wait, {threads}", waits[0], "of the step", waits[1], None, 0.02, "ours")


def _drive(scratch: Path, folder: Path, tiny: bool) -> tuple[Path, Any, str]:
    """Loose files of a drive, the same frames as a dataset, and what it reads."""
    raw = scratch / "raw"
    if {"polars", "pyarrow"} & absent():
        data = Miniature(folder)
        raw.mkdir()
        for number, image in enumerate(data.frame_reader().encoded):
            (raw / f"{number:06d}.jpg").write_bytes(image)
        return raw, data, "JPEGs in memory"
    write_street(raw, 60 if tiny else 1200, size=(64, 48) if tiny else (640, 480))
    build(BuildRequest("folder", raw, scratch / "out", settings=BuildSettings(shard_bytes=64 << 20)))
    return raw, seqdata.open(scratch / "out"), "shards"


def _rate(batches: Iterator[Tensor], device: torch.device) -> float:
    """Frames a second from the second batch on, with nothing else to do."""
    next(batches)
    finish(device)
    started, count = time.perf_counter(), 0
    for frames in batches:
        count += len(frames)
    finish(device)
    return count / (time.perf_counter() - started)


def _wait(batches: Iterator[Tensor], train_on: Callable[[Tensor], None], alone: float, device: torch.device) -> float:
    """Share of the time of an epoch that steps on resident frames (`alone` seconds each) would not take."""
    train_on(next(batches))
    finish(device)
    started, count = time.perf_counter(), 0
    for frames in batches:
        train_on(frames)
        count += 1
    finish(device)
    return max(0.0, 1 - count * alone / (time.perf_counter() - started))
