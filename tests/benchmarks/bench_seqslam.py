"""SeqSLAM over Nordland's clean frames (2,761 × 2,761) and with tunnels (3,576 × 3,576): seconds, memory, R@1.

    python tests/benchmarks/bench_seqslam.py [--data ../shared/data] [--threads 2]

The bounds are 20 s, 1 GB and R@1 .894 ± .005 for the clean list; the aligned diagonal stands beside it. Memory is the
process's peak.
"""

import argparse
import resource
import sys
import time
import zipfile
from pathlib import Path

import faiss
import numpy as np
from PIL import Image

from indexer.matching.aligned import match_aligned
from indexer.matching.seqslam import match_seqslam
from indexer.matching.thumbnails import thumbnails
from seqdata.geometry import Float32Array
from tests.benchmarks.results import is_tiny, record

LENGTH = 10
SECONDS, MEGABYTES, RECALL, NEAR = 20, 1000, 0.894, 0.005


def season(data: Path, name: str, clean: bool) -> Float32Array:
    """Plain z-scored thumbnails of one season's frames, in order."""
    wanted = set((data / "nordland" / "clean_frames.txt").read_text().split())
    with zipfile.ZipFile(data / "nordland" / f"{name}.zip") as archive:
        names = sorted(entry for entry in archive.namelist() if entry.endswith(".png"))
        kept = [entry for entry in names if not clean or entry.partition("/")[2] in wanted]
        return thumbnails(
            np.stack([np.asarray(Image.open(archive.open(entry)).convert("L")) for entry in kept]), softening=0
        )


def peak() -> float:
    """Peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> int:
    """Print a line a matcher and list of frames; 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    data, threads = arguments.data, arguments.threads
    if is_tiny() or not data.is_dir():
        print(f"skipped: no real frames at {data}")
        return 0
    faiss.omp_set_num_threads(threads)
    missed = False
    for clean in (True, False):
        queries, database = season(data, "winter", clean), season(data, "summer", clean)
        windows = np.arange(len(queries) - LENGTH + 1)[:, None] + np.arange(LENGTH)
        for name, match in (("SeqSLAM", match_seqslam), ("aligned diagonal", match_aligned)):
            before, started, busy = peak(), time.perf_counter(), time.process_time()
            _, rows = match(queries, windows, database, windows, 100)
            seconds, busy = time.perf_counter() - started, time.process_time() - busy
            hits = np.abs(rows[:, 0] - np.arange(len(windows))) <= 1
            record(f"{name}, {'clean' if clean else 'all'} frames", seconds, "s")
            print(
                f"{len(queries)} frames, {name}, {threads} threads: {seconds:.1f} s ({busy:.1f} s of CPU), peak "
                f"{peak():.0f} MB ({before:.0f} before), R@1 {hits.mean():.3f}"
            )
            if clean and match is match_seqslam:
                missed = seconds > SECONDS or peak() > MEGABYTES or abs(hits.mean() - RECALL) > NEAR
                print(f"  bounds {SECONDS} s, {MEGABYTES} MB, {RECALL} ± {NEAR}: {'MISSED' if missed else 'ok'}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
