"""Frames encoded in a round of partial mining: counted, on the real positions of two MSLS cities.

python tests/benchmarks/bench_mining.py [queries]

Window by window a round encodes L frames for each of its windows; here it encodes the distinct frames of each block
that is described at once: queries and candidates, then the other positives. What is counted is what reaches the
model's encoder, frame by frame.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from seqdata import protocols
from tests.benchmarks.positions import REAL, PositionsDataset, real_city, write_protocol
from tests.benchmarks.results import record, scaled
from train.data.describe import describe
from train.data.frames import WindowSource
from train.models import registry as models
from train.models.base import SequenceModel
from train.sampling.mining import RoundSizes, mine
from train.sampling.pairs import Radii
from train.sampling.windows import TrainData


class CountingSource(WindowSource):
    """Frames that are their own row number, and a count of those that were encoded."""

    def __init__(self) -> None:
        self.encoded: list[int] = []

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows themselves."""
        return rows

    def encode(self, model: SequenceModel, frames: torch.Tensor) -> torch.Tensor:
        """A made feature of each frame."""
        self.encoded += frames.tolist()
        return torch.stack([(frames * 0.37).sin(), (frames * 0.11).cos()], 1).view(-1, 1, 2).float()


def a_round(city: str, length: int, queries: int) -> str:
    """Mine once and say what was encoded."""
    dataset = PositionsDataset(real_city(city))
    with tempfile.TemporaryDirectory() as folder:
        protocol = protocols.load(write_protocol(Path(folder), length))
    data, source = TrainData.from_split(dataset, protocol), CountingSource()
    model = models.create("seqvlad-small", encoder="resnet10t", cut="layer1", clusters=1, size=(16, 16))
    windows = 0

    def described(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        nonlocal windows
        windows += len(rows)
        before = len(source.encoded)
        descriptors = describe(model, dataset, data.pixel_windows(rows), source=source, device="cpu")
        block = source.encoded[before:]
        assert len(block) == len(set(block)), "a frame of a block is encoded twice"
        return descriptors

    mine(dataset, data.queries, data.database, Radii.from_protocol(protocol), described, RoundSizes(queries=queries))
    distinct, encoded = len(set(source.encoded)), len(source.encoded)
    record(f"{city} L={length}: frames against window by window", windows * length / encoded, "x", "higher")
    return (
        f"{city:<8} L={length:<3} {windows:6d} windows, {windows * length:7d} frames window by window, "
        f"{encoded:6d} encoded, {distinct:6d} of them distinct: "
        f"{windows * length / encoded:.2f} times fewer"
    )


def main() -> None:
    """Both cities at L = 5 and 10."""
    if not REAL.is_dir():
        print("no real positions at ../shared/data/msls-positions: nothing to count")
        return
    queries = int(sys.argv[1]) if len(sys.argv) > 1 else scaled(1000, 50)
    for city in ("austin", "amman"):
        for length in (5, 10):
            print(a_round(city, length, queries))


if __name__ == "__main__":
    main()
