"""Descriptors of stride-1 windows: each frame encoded once and fused by window, against window by window.

python tests/benchmarks/bench_describe.py [frames]

Time is CPU time of this process with one torch thread, decoding included. Window by window is run on an even share of
the windows and scaled up: each costs the same. At best the ratio is L(n−L+1)/n; full STA cannot reach it, because only
its tokenizer and spatial branch are functions of single frames.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import seqdata
import train
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.dataset.dataset import Dataset
from tests.benchmarks.results import record, scaled
from tests.conftest import write_drives
from train.models.base import SequenceModel

LENGTHS = (5, 15)
BATCH_FRAMES = 60
WANTED = 0.9
SMALL_STA = {"size": (96, 128), "blocks": 2, "window": 4, "stride": 2}
MODELS = {
    "seqvlad-r18": {"size": (96, 128)},
    "gem-cat-r18": {"size": (96, 128)},
    "sta-spatial": SMALL_STA,
    "sta": SMALL_STA,
}


def window_by_window(model: torch.nn.Module, dataset: Dataset, table: object, rows: NDArray[np.int64]) -> np.ndarray:
    """The windows `rows`, each through the whole model, in batches of as many frames as the other side uses."""
    batch = BATCH_FRAMES // dataset.frame_rows(table[:1]).shape[1]
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch):
            parts.append(model(torch.from_numpy(dataset.read(table, rows[start : start + batch]))).numpy())
    return np.concatenate(parts)


def compare(name: str, model: SequenceModel, dataset: Dataset, length: int, frames: int) -> None:
    """One model at one length, both sides, as a line of the table."""
    table = dataset.sequences(length=length)
    rows = np.linspace(0, len(table) - 1, 600 // length).astype(np.int64)
    window_by_window(model, dataset, table, rows[:2])
    started = time.process_time()
    sliding = train.describe(model, dataset, table, batch_size=BATCH_FRAMES, device="cpu")
    once = time.process_time() - started
    started = time.process_time()
    windows = window_by_window(model, dataset, table, rows)
    each = (time.process_time() - started) * len(table) / len(rows)
    ideal = length * (frames - length + 1) / frames
    record(f"{name} L={length}: share of the ideal", each / once / ideal, "", "higher")
    apart = np.abs(sliding[rows] - windows).max() / max(1.0, np.abs(windows).max())
    print(
        f"{name:<12} L={length:<3} window by window {each:7.1f} s, each frame once {once:6.1f} s: {each / once:5.2f} "
        f"times, {each / once / ideal:.2f} of {ideal:.2f} (wanted {WANTED if name != 'sta' else 'no figure'}), "
        f"largest difference {apart:.0e}",
        flush=True,
    )


def main() -> None:
    """All models at all lengths on one track."""
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else scaled(1000, 40)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        raw = write_drives(Path(folder) / "raw", {"map": frames})
        build(BuildRequest("folder", raw, Path(folder) / "out", protocol=protocols.load("own")))
        dataset = seqdata.open(Path(folder) / "out")
        for name, options in MODELS.items():
            model = train.models.create(name, **options)
            for length in LENGTHS if name != "sta" else LENGTHS[:1]:
                compare(name, model, dataset, length, frames)


if __name__ == "__main__":
    main()
