"""`--kind auto`: recall@10 of exact against time, on 1 M generated vectors and on real frame descriptors.

Run `python tests/benchmarks/bench_auto.py [--rows N] [--data ../shared/data]`. Generated: 1,000 centres of unit norm in
256 dimensions, noise of norm 1, float32, in a file (1 GB). Goal: the chosen index at least 10 times faster than exact
search, one query at a time, at recall >= .99. Real: thumbnails (2,048 values) and frozen MobileNetV2 descriptors
(1,280 values) of the summer frames of Nordland; so small a set ends at exact, and the curves of the other kinds stand
beside it. Prints every point that was measured.
"""

import argparse
import io
import os
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from indexer.search.kinds import KindSpec
from indexer.selection import choose as auto
from tests.benchmarks.results import exit_status, is_tiny, record, scaled

SIZE, CENTRES, GOAL = 256, 1000, 10.0


def clustered(path: Any, rows: Any, seed: Any = 0) -> Any:
    """Vectors (rows, 256) float32 in a file, mapped: a unit centre each, and noise of norm 1."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((CENTRES, SIZE), dtype=np.float32))
    vectors = np.memmap(path, dtype=np.float32, mode="w+", shape=(rows, SIZE))
    for start in range(0, rows, 50_000):
        part = vectors[start : start + 50_000]
        part[:] = centres[rng.integers(0, CENTRES, len(part))]
        part += unit(rng.standard_normal(part.shape, dtype=np.float32))
    return vectors


def unit(x: Any) -> Any:
    """Rows of norm 1."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def real_thumbnails(archive: Any) -> Any:
    """Thumbnails (n, 2048) of Nordland's summer frames, in the order of the line."""
    from PIL import Image

    from indexer.matching.thumbnails import thumbnails

    return thumbnails(np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("L")) for data in images(archive)]))


def real_descriptors(archive: Any, weights: Any) -> Any:
    """Mean-pooled MobileNetV2 descriptors (n, 1280) of the same frames, stretched to 128 x 128."""
    import torch
    from PIL import Image

    from train.models import registry as models

    model = models.create("mean-mobilenetv2", weights=str(weights), size=(128, 128)).eval()
    frames = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in images(archive)])
    batches = torch.from_numpy(frames).permute(0, 3, 1, 2).split(64)
    with torch.no_grad():
        return np.concatenate([model.encode_frames(batch).numpy() for batch in batches])


def images(archive: Any) -> Iterator[Any]:
    """The bytes of a season's frames, in the order of the line."""
    with zipfile.ZipFile(archive) as held:
        yield from (held.read(name) for name in sorted(held.namelist()) if name.endswith(".png"))


def show(chosen: Any, seconds: Any) -> None:
    """Print the curve; the chosen point is marked."""
    for point in chosen.curve:
        mark = ">" if point == chosen.point else " "
        if point.recall is None:
            print(f"{mark} {point.factory:<34} {point.bytes / 1e6:>8.0f} MB  {point.note or 'not measured: exact'}")
            continue
        print(
            f"{mark} {point.factory:<20} {point.search!s:<34} {point.bytes / 1e6:>8.0f} MB  recall {point.recall:.4f}  "
            f"one {1e3 * point.one:8.3f} ms  batch {1e3 * point.batch:8.3f} ms"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"  {seconds:.0f} s, peak {peak:.2f} GB, load {os.getloadavg()[0]:.1f}", flush=True)


def run(vectors: Any, spec: Any) -> Any:
    """Choose, print, return the choice."""
    started = time.perf_counter()
    chosen = auto.choose(spec, vectors)
    show(chosen, time.perf_counter() - started)
    return chosen


def main() -> Any:
    """Print the curves; exit 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=scaled(1_000_000, 12_000))
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    arguments = parser.parse_args()
    archive = arguments.data / "nordland" / "summer.zip"
    if archive.is_file() and not is_tiny():
        weights = arguments.data / "weights" / "mobilenetv2_100_timm_features.pth"
        for name, real in (
            ("thumbnails", real_thumbnails(archive)),
            ("MobileNetV2", real_descriptors(archive, weights)),
        ):
            print(f"Nordland summer: {name} {real.shape}")
            for kind in ("auto", "ivf", "hnsw", "imi", "pq"):
                run(real, KindSpec(kind))
    with tempfile.TemporaryDirectory() as folder:
        print(f"generated: {arguments.rows} x {SIZE}, {CENTRES} centres, noise of norm 1")
        chosen = run(clustered(Path(folder) / "vectors.f32", arguments.rows), KindSpec("auto"))
    exact = next(point for point in chosen.curve if point.kind == "flat")
    if exact.one is None:
        return 0
    faster = record("chosen against exact, one query", exact.one / chosen.point.one, "x", "higher")
    record("recall of the chosen index", chosen.point.recall, "", "higher")
    good = faster >= GOAL and chosen.point.recall >= 0.99
    print(
        f"chosen {chosen.point.factory} {chosen.point.search}: {faster:.1f}x faster one by one, "
        f"{exact.batch / chosen.point.batch:.1f}x in batch, recall {chosen.point.recall:.4f} "
        f"(goal {GOAL:.0f}x at .99): {'ok' if good else 'FAILS'}"
    )
    return exit_status(good)


if __name__ == "__main__":
    sys.exit(main())
