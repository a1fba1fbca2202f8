"""Descriptors of stride-1 windows: one backbone pass a frame with sliding sums, against window by window.

python tests/benchmarks/bench_describe.py [frames]
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import seqdata
import train
from seqdata import protocols
from seqdata.build import BuildRequest, build
from tests.conftest import write_drives

LENGTH = 5


def window_by_window(model: torch.nn.Module, dataset: "seqdata.Dataset", table: object) -> np.ndarray:
    """Each window through the whole model, in batches of as many frames as the other side uses."""
    batch = 64 // LENGTH
    parts = []
    with torch.inference_mode():
        for start in range(0, len(table), batch):
            rows = np.arange(start, min(start + batch, len(table)))
            parts.append(model(torch.from_numpy(dataset.read(table, rows))).numpy())
    return np.concatenate(parts)


def main() -> None:
    """Both sides on the same tracks, in turn, twice; the best time of each counts."""
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    with tempfile.TemporaryDirectory() as folder:
        raw = write_drives(Path(folder) / "raw", {"map": frames})
        build(BuildRequest("folder", raw, Path(folder) / "out", protocol=protocols.load("own")))
        dataset = seqdata.open(Path(folder) / "out")
        table = dataset.sequences(length=LENGTH)
        ideal = LENGTH * (frames - LENGTH + 1) / frames
        print(f"{frames} frames, {len(table)} windows of {LENGTH}: at best {ideal:.2f} times")
        for name, options in (
            ("seqvlad-r18", {"size": (240, 320)}),
            ("gem-cat-r18", {"size": (240, 320)}),
        ):
            model = train.models.create(name, **options)
            model.eval()
            best = {"sliding": float("inf"), "windows": float("inf")}
            for _ in range(2):
                started = time.perf_counter()
                sliding = train.describe(model, dataset, table)
                best["sliding"] = min(best["sliding"], time.perf_counter() - started)
                started = time.perf_counter()
                windows = window_by_window(model, dataset, table)
                best["windows"] = min(best["windows"], time.perf_counter() - started)
            ratio = best["windows"] / best["sliding"]
            apart = np.abs(sliding - windows).max() / max(1.0, np.abs(windows).max())
            print(
                f"{name:<14} window by window {best['windows']:7.1f} s, sliding {best['sliding']:7.1f} s: "
                f"{ratio:.2f} times ({ratio / ideal:.2f} of the ideal), largest difference {apart:.1e}"
            )


if __name__ == "__main__":
    main()
