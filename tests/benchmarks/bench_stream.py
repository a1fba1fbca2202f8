"""The decoded stream: decodes a window, mixing, and speed against a bare simplejpeg loop on the same cores.

python tests/benchmarks/bench_stream.py [frames]
"""

import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg

import seqdata
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings
from seqdata.dataset.dataset import Dataset
from seqdata.frames.resize import KERNELS
from seqdata.streaming.shuffle import OPEN, order
from tests.benchmarks.results import record, scaled
from tests.benchmarks.street import write_street
from tests.support.mixing import mixing

LENGTH = 10
BATCH = 16
ROUNDS = scaled(3, 1)
CACHE = 128 << 20


def bare(frames: list[Path], threads: int) -> Iterator[int]:
    """The plainest loop: read a file, decode it, drop it; on a pool for several threads. Yields frames done."""

    def one(path: Path) -> int:
        return simplejpeg.decode_jpeg(path.read_bytes()).nbytes

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(one, frames) if threads > 1 else map(one, frames):
            yield 1


def rates(loop: Iterator[int], decoded: Callable[[], int]) -> tuple[float, float, float]:
    """Decodes a second, decodes a second of CPU time, frames delivered a second."""
    started, cpu, before = time.perf_counter(), time.process_time(), decoded()
    delivered = sum(loop)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    done = decoded() - before or delivered
    return done / wall, done / cpu, delivered / wall


def streamed(dataset: Dataset, length: int, threads: int) -> tuple[float, float, float]:
    """As `rates`, of an epoch that runs already: its first third fills cache and buffers."""
    stream = dataset.stream(dataset.sequences(length=length), cache_bytes=CACHE)
    with stream.batches(BATCH, threads=threads) as batches:
        for _ in range(len(batches) // 3):
            next(batches)
        return rates((batch["frames"].shape[0] * length for batch in batches), lambda: stream.cache.decodes)


def speeds(dataset: Dataset, frames: list[Path]) -> None:
    """Both sides in turn, `ROUNDS` times; medians, and the medians of the ratios of each round."""
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores   length  threads   bare/s  decodes/s  delivered/s  wall  CPU time (decodes against bare)")
    for length, threads in ((1, 1), (1, cores), (LENGTH, 1), (LENGTH, cores)):
        runs = [(*rates(bare(frames, threads), lambda: 0), *streamed(dataset, length, threads)) for _ in range(ROUNDS)]
        loop, _, _, decoded, _, delivered = np.median(runs, axis=0)
        wall, cpu = (np.median([run[at + 3] / run[at] for run in runs]) for at in (0, 1))
        record(f"length {length}, {threads} threads: decodes against a bare loop", float(wall), "x", "higher")
        print(f"{'':<10}{length:>6}{threads:>9}{loop:>9.0f}{decoded:>11.0f}{delivered:>13.0f}{wall:>6.2f}{cpu:>10.2f}")


def resized(dataset: Dataset) -> None:
    """CPU time of a frame of a stream with `size=`, by kernel, in turn: medians, and against Pillow's."""
    for size in ((384, 384), (224, 224)):
        taken: dict[str, list[float]] = {kernel: [] for kernel in KERNELS}
        for _ in range(ROUNDS):
            for kernel in KERNELS:
                stream = dataset.stream(dataset.sequences(length=1), size=size, cache_bytes=0, resize=kernel)
                with stream.batches(BATCH, threads=1) as batches:
                    next(batches)
                    before, started = stream.cache.decodes, time.process_time()
                    deque(batches, maxlen=0)
                    taken[kernel].append((time.process_time() - started) / (stream.cache.decodes - before))
        medians = {kernel: float(np.median(times)) for kernel, times in taken.items()}
        for kernel, seconds in medians.items():
            ratio = medians["pillow"] / seconds
            record(f"stream at {size[0]}x{size[1]}, {kernel} against pillow", ratio, "x", "higher")
            print(f"size={size}: {kernel:<8}{1e3 * seconds:>7.2f} ms CPU a frame, {ratio:.2f} times pillow's rate")


def decodes(dataset: Dataset) -> None:
    """Real decodes a window, each rank with a cache of its own; small frames, so that the count is quick."""
    table = dataset.sequences(length=LENGTH)
    # A whole drive fits no cache in earnest: here it has what the open blocks need, as at 640 x 480 and 1 GiB.
    budget = OPEN * (LENGTH + 2) * 48 * 64 * 3
    for shuffle in ("blocks", "global"):
        for world in (1, 2, 4):
            windows = counted = 0
            for rank in range(world):
                stream = dataset.stream(table, seed=1, size=(48, 64), shuffle=shuffle, cache_bytes=budget // world)
                with stream.batches(BATCH, rank=rank, world=world, drop_last=True) as batches:
                    windows += sum(len(batch["row"]) for batch in batches)
                counted += stream.cache.decodes
            print(f"decodes a window of {LENGTH}: {shuffle:<8}{world} ranks {counted / windows:>8.2f}")


def mixed() -> None:
    """Distinct stretches in a batch, and in a hundred batches, against a global shuffle of as many windows."""
    rows = order(scaled(1_500_000, 60_000), 1, 0)
    for span in (BATCH, 32, 100 * 32):
        share = mixing(rows, span)
        print(f"mixing, 1.5 M windows: distinct blocks in {span:>5} windows, of a global shuffle's {share:.2f}")


def resumed(dataset: Dataset) -> None:
    """From a saved state to the first batch, and the order of ten million windows."""
    stream = dataset.stream(dataset.sequences(length=LENGTH), seed=3)
    with stream.batches(BATCH) as batches:
        state = batches.state_dict() | {"epoch": 7, "step": len(batches) // 2}
        started = time.perf_counter()
        batches.load_state_dict(state)
        next(batches)
        print(
            f"resume in mid-epoch: first batch after {time.perf_counter() - started:.3f} s; state {len(repr(state))} B"
        )
    started = time.perf_counter()
    order(scaled(10_000_000, 100_000), 1, 7)
    print(f"order of 10 M windows: {time.perf_counter() - started:.2f} s")


def main() -> None:
    """One drive of real or drawn frames at 640 x 480, built once; everything in one run."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else scaled(600, 60)
    with tempfile.TemporaryDirectory() as folder:
        raw = write_street(Path(folder) / "raw", count)
        build(BuildRequest("folder", raw, Path(folder) / "out", settings=BuildSettings(shard_bytes=16 << 20)))
        speeds(seqdata.open(Path(folder) / "out"), sorted(raw.glob("*.jpg")))
        resized(seqdata.open(Path(folder) / "out"))
        resumed(seqdata.open(Path(folder) / "out"))
        long = write_street(Path(folder) / "long", scaled(12_000, 600), size=(64, 48), drives=4)
        build(BuildRequest("folder", long, Path(folder) / "small"))
        decodes(seqdata.open(Path(folder) / "small"))
    mixed()


if __name__ == "__main__":
    main()
