"""The measured pieces behind docs/scale.md, and what they come to for 10 and 100 million sequences.

Run `python tests/benchmarks/bench_scale.py`: two minutes on two cores, 2 GB of disk in the temporary folder. Vectors
are generated: random for what costs the same whatever the values are (bytes, projecting, scanning, copying), clustered
for the lists. A backbone's rate is that of random weights: it does not depend on them.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from indexer.builder import merge_lists
from indexer.builder.grow import encode
from indexer.pca.project import project
from indexer.pca.transform import Transform
from indexer.search import kinds
from indexer.search.exact import ExactVectors
from indexer.search.faiss_layers import estimate, set_search
from indexer.search.file_layout import write
from indexer.search.flat_file import map_exact, write_exact
from indexer.search.pools import threads
from tests.benchmarks.results import record, scaled

SIZES = {256: scaled(200_000, 4_000), 4096: scaled(12_000, 2_000)}
MILLIONS = (10, 100)
FACTORIES = (
    "Flat",
    "SQfp16",
    "IVF{cells},Flat",
    "IVF{cells},SQfp16",
    "IVF{cells},PQ{codes}x8",
    "PQ{codes}x8",
    "HNSW32",
)


def clustered(rows: Any, size: Any, seed: Any = 0) -> Any:
    """Vectors (rows, size) float32 around one centre a thousand rows, noise of norm 1."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, rows // 1000), size), dtype=np.float32)
    noise = rng.standard_normal((rows, size), dtype=np.float32) / np.float32(np.sqrt(size))
    return centres[rng.integers(len(centres), size=rows)] + noise


def timed(work: Any) -> Any:
    """Seconds of a call, and what it gave."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def describe_rate() -> Any:
    """Frames a second through a ResNet-18 at 480 x 640, and windows of five a second from its features."""
    import torch

    from train.models.registry import create

    model = create("seqvlad-r18", size=(480, 640)).eval()
    frames = torch.randint(0, 255, (8, 3, 480, 640), dtype=torch.uint8)
    with torch.inference_mode():
        model.encode_frames(frames[:1])
        seconds, features = timed(lambda: model.encode_frames(frames))
        index = torch.arange(5)[None] + torch.arange(4)[:, None]
        fused, _ = timed(lambda: model.fuse_rows(features, index))
    return len(frames) / seconds, len(index) / fused


def project_rate() -> Any:
    """Descriptors a second from 24,576 to 4,096 dimensions."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((4096, 24_576), dtype=np.float32)
    pca = Transform(np.zeros(24_576, np.float32), matrix, np.ones(4096), 1.0, "gram", 2)
    block = rng.standard_normal((256, 24_576), dtype=np.float32)
    seconds, _ = timed(lambda: project(block, pca, False))
    return len(block) / seconds


def pieces(folder: Any, size: Any, rows: Any) -> Any:
    """Rates at one descriptor size: scanning, encoding into lists, joining lists, searching them."""
    x = clustered(rows, size)
    write_exact(folder / "flat", iter([x]), rows, "flat", None, False)
    searcher = ExactVectors(map_exact(folder / "flat", rows, size, size, "flat"), "cpu")
    searcher.nearest(x[:1], 10)
    scan, _ = timed(lambda: [searcher.nearest(x[row : row + 1], 10) for row in range(5)])
    batch, _ = timed(lambda: searcher.nearest(x[:64], 10))
    lists = kinds.cells(rows)
    index = kinds.create(f"IVF{lists},Flat", size)
    train, count = timed(lambda: kinds.train(index, x, 0, "IVF"))
    write(index, folder / "trained")
    halves = (x[: rows // 2], 0, folder / "a"), (x[rows // 2 :], rows // 2, folder / "b")
    trained = folder / "trained"
    add, _ = timed(lambda: [encode(trained, iter([part]), first, path, False) for part, first, path in halves])
    join, _ = timed(lambda: merge_lists.join([path for _, _, path in halves], folder / "joined"))
    merged = merge_lists.open_index(folder / "joined")
    inner = merge_lists.core(merged)
    set_search(inner, {"nprobe": 8})
    probe, _ = timed(lambda: [inner.search(x[row : row + 1], 10) for row in range(200)])
    found = inner.search(x[:200], 10)[1]
    exact = searcher.nearest(x[:200], 10)[1]
    return {
        "scan, one query, GB/s": x.nbytes * 5 / scan / 1e9,
        "scan, batch of 64, ms a query": batch / 64 * 1e3,
        f"train {lists} lists on {count} vectors, s": train,
        "encode and write a share, vectors/s": rows / add,
        "join parts on disk, MB/s": (folder / "joined").stat().st_size / join / 1e6,
        "search 8 lists, us a 1,000 vectors": probe / 200 * 1e6 / (8 * rows / lists / 1000),
        "recall@10 of exact at 8 lists": float(
            np.mean([len(set(a) & set(b)) for a, b in zip(found, exact, strict=True)]) / 10
        ),
    }


def bytes_a_vector(size: Any) -> Any:
    """Bytes a vector of each kind, codes and ids, at 10 million rows."""
    rows = 10_000_000
    names = [text.format(cells=kinds.cells(rows), codes=kinds.subspaces(size)) for text in FACTORIES]
    return {name: estimate(kinds.create(name, size), rows) / rows for name in names}


def main() -> None:
    """Print the pieces, then the table of docs/scale.md."""
    print(f"threads {threads()}")
    frames, windows = describe_rate()
    print(
        f"describe, ResNet-18 at 480 x 640 on this CPU: {frames:.1f} frames/s; fuse 5 frames: {windows:.0f} windows/s"
    )
    print(f"project 24,576 to 4,096: {project_rate():.0f} descriptors/s")
    for vector_size, rows in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            print(f"\n{rows} vectors of {vector_size} values")
            for name, value in pieces(Path(folder), vector_size, rows).items():
                record(
                    f"{vector_size} values: {name}",
                    value,
                    "",
                    "higher" if "/s" in name or "recall" in name else "lower",
                )
                print(f"  {name:<44}{value:>12.3f}")
        print(f"  {'kind':<28}{'bytes a vector':>16}" + "".join(f"{f'{count} M, GB':>14}" for count in MILLIONS))
        for name, each in bytes_a_vector(vector_size).items():
            print(f"  {name:<28}{each:>16.0f}" + "".join(f"{each * count / 1e3:>14.1f}" for count in MILLIONS))


if __name__ == "__main__":
    main()
