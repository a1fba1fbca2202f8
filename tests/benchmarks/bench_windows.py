"""Random windows of 10 frames from local disk, against webdataset reading the same tars from front to back.

python tests/benchmarks/bench_windows.py [frames]
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import simplejpeg
import webdataset as wds

import seqdata
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings
from seqdata.dataset.dataset import Dataset
from seqdata.frames.reader import read_views
from tests.benchmarks.results import record, scaled
from tests.benchmarks.street import write_street

LENGTH = 10
WINDOWS = {False: scaled(400, 20), True: scaled(50, 5)}
ROUNDS = scaled(5, 1)
SCANS = 3


def rate(frames: Callable[[], int]) -> tuple[float, float]:
    """Frames a second of one run, and a second of CPU time."""
    started, cpu = time.perf_counter(), time.process_time()
    count = frames()
    return count / (time.perf_counter() - started), count / (time.process_time() - cpu)


def sequential(shards: list[str], decode: bool) -> Iterator[bytes | np.ndarray]:
    """Webdataset's samples in order: their JPEGs, or these decoded by simplejpeg as on our side."""
    samples = wds.WebDataset(shards, shardshuffle=False, empty_check=False)
    for sample in samples:
        yield simplejpeg.decode_jpeg(sample["jpg"]) if decode else sample["jpg"]


class Windows:
    """Our side: an opened dataset and its window table, from which windows are read one call each."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.table = dataset, dataset.sequences(length=LENGTH)
        self.frames = dataset.frame_rows(self.table)
        self.reader = dataset.frame_reader()

    def read(self, rows: np.ndarray, decode: bool) -> int:
        """Windows `rows` as pixels by `Dataset.read`, or their JPEGs by `read_views`; returns frames."""
        for row in rows:
            if decode:
                self.dataset.read(self.table, [row])
            else:
                read_views(self.reader.store, self.reader.locations, self.frames[row])
        return len(rows) * LENGTH

    def draw(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Random windows."""
        return random.choice(self.table.height, count, replace=False)


def scanned(shards: list[str], frames: np.ndarray) -> int:
    """The same windows through webdataset: it has no way to a window but from the front, to its last frame."""
    for window in frames:
        for number, _ in enumerate(sequential(shards, decode=False)):
            if number == window[-1]:
                break
    return frames.size


def compare(name: str, runs: list[tuple[float, float, float, float]]) -> None:
    """One line of the table: medians of both rates, and of the ratios by wall time and by CPU time."""
    mine, mine_cpu, theirs, theirs_cpu = np.array(runs).T
    wall, cpu = np.median(mine / theirs), np.median(mine_cpu / theirs_cpu)
    record(f"{name}, against webdataset", float(wall), "x", "higher")
    print(f"{name:<36}{np.median(mine):>14.0f}{np.median(theirs):>12.0f}{wall:>8.1f}{cpu:>10.1f}")


def main() -> None:
    """One drive in several shards, all in the page cache; both sides in turn, medians count."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else scaled(1000, 120)
    with tempfile.TemporaryDirectory() as folder:
        raw = write_street(Path(folder) / "raw", count)
        settings = BuildSettings(shard_bytes=32 << 20, halo=0)
        build(BuildRequest("folder", raw, Path(folder) / "out", settings=settings))
        windows = Windows(seqdata.open(Path(folder) / "out"))
        shards = sorted(str(path) for path in (Path(folder) / "out" / "shards").glob("*.tar"))
        random = np.random.default_rng(0)
        print(f"{count} frames of 640x480 in {len(shards)} shards; frames a second, one process, one thread")
        print(f"{'':<36}{'windows of 10':>14}{'webdataset':>12}{'wall':>8}{'CPU time':>10}")
        for name, decode in (("bytes: random windows / in order", False), ("pixels: random windows / in order", True)):
            runs = []
            for _ in range(ROUNDS):
                rows = windows.draw(random, WINDOWS[decode])
                mine = rate(lambda: windows.read(rows, decode))  # noqa: B023
                runs.append((*mine, *rate(lambda: sum(1 for _ in sequential(shards, decode)))))  # noqa: B023
            compare(name, runs)
        rows = windows.draw(random, SCANS)
        theirs = rate(lambda: scanned(shards, windows.frames[rows]))
        compare("bytes: the same random windows", [(*rate(lambda: windows.read(rows, False)), *theirs)])


if __name__ == "__main__":
    main()
