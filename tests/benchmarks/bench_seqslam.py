"""SeqSLAM over Nordland's clean frames (2,761 × 2,761) and with tunnels (3,576 × 3,576): seconds, memory, R@1.

    python tests/benchmarks/bench_seqslam.py ../shared/data [THREADS]

The bounds are 20 s and 1 GB for the clean list; the aligned diagonal stands beside it. Memory is the process's peak.
"""

import resource
import sys
import time
import zipfile
from pathlib import Path

import faiss
import numpy as np
from PIL import Image

from indexer.matching import match_aligned
from indexer.seqslam import match_seqslam
from indexer.thumbnails import thumbnails
from indexer.transform import Floats

LENGTH = 10


def season(data: Path, name: str, clean: bool) -> Floats:
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


def main(data: Path, threads: int) -> None:
    """Print a line a matcher and list of frames."""
    faiss.omp_set_num_threads(threads)
    for clean in (True, False):
        queries, database = season(data, "winter", clean), season(data, "summer", clean)
        windows = np.arange(len(queries) - LENGTH + 1)[:, None] + np.arange(LENGTH)
        for name, match in (("SeqSLAM", match_seqslam), ("aligned diagonal", match_aligned)):
            before, started, busy = peak(), time.perf_counter(), time.process_time()
            _, rows = match(queries, windows, database, windows, 100)
            seconds, busy = time.perf_counter() - started, time.process_time() - busy
            hits = np.abs(rows[:, 0] - np.arange(len(windows))) <= 1
            print(
                f"{len(queries)} frames, {name}, {threads} threads: {seconds:.1f} s ({busy:.1f} s of CPU), peak "
                f"{peak():.0f} MB ({before:.0f} before), R@1 {hits.mean():.3f}"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2)
