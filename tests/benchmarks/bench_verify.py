"""`seqdata verify` against a bare XXH3 loop over the same files, on one core: python tests/benchmarks/bench_verify.py.

Both read files that the system holds in memory (each side is run once before), so it is hashing that is measured and no
disk; processor seconds are those of the one process.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xxhash

from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings
from seqdata.dataset.verify import verify
from tests.benchmarks.results import exit_status, record, scaled

FRAMES, FRAME_BYTES, ROUNDS = scaled(2_000, 50), 160_000, scaled(5, 1)
BLOCK = 1 << 20


def write_drive(raw: Path) -> None:
    """One drive of JPEGs of street-photo size: a small picture, and after its end marker random bytes."""
    import simplejpeg

    random = np.random.default_rng(0)
    picture = simplejpeg.encode_jpeg(np.zeros((480, 640, 3), dtype=np.uint8), quality=90)
    raw.mkdir()
    rows = ["image,easting,northing,zone"]
    for number in range(FRAMES):
        filling = b"\xff\xfe" + (50_000).to_bytes(2, "big") + random.bytes(49_998)
        blocks = picture[:2] + filling * (FRAME_BYTES // 50_000) + picture[2:]
        (raw / f"{number:05d}.jpg").write_bytes(blocks)
        rows.append(f"{number:05d}.jpg,{500_000 + number},5000000,32N")
    (raw / "positions.csv").write_text("\n".join(rows))


def bare(folder: Path) -> int:
    """XXH3-128 of every file, nothing else; bytes hashed."""
    total = 0
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".tar", ".parquet"):
            continue
        digest = xxhash.xxh3_128()
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                total += len(block)
    return total


def rate(run: Callable[[], int]) -> tuple[float, float]:
    """Median GB/s by the clock and by processor seconds."""
    run()
    found = []
    for _ in range(ROUNDS):
        clock, used = time.perf_counter(), time.process_time()
        size = run()
        found.append((size / 1e9 / (time.perf_counter() - clock), size / 1e9 / (time.process_time() - used)))
    return float(np.median([each[0] for each in found])), float(np.median([each[1] for each in found]))


def main() -> None:
    """Print both rates and their ratio; exits 1 below 1 GB/s a core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_drive(folder / "raw")
        build(BuildRequest("folder", folder / "raw", folder / "set", settings=BuildSettings(shard_bytes=64 << 20)))

        def run_verify() -> int:
            hashed: list[int] = []
            assert list(verify(folder / "set", hashed.append)) == []
            return sum(hashed)

        loop, ours = rate(lambda: bare(folder / "set")), rate(run_verify)
    print(f"{'':<16}{'GB/s':>8}{'GB/s a core':>14}")
    print(f"{'bare XXH3 loop':<16}{loop[0]:>8.2f}{loop[1]:>14.2f}")
    print(f"{'seqdata verify':<16}{ours[0]:>8.2f}{ours[1]:>14.2f}   {ours[1] / loop[1]:.2f} of the loop")
    record("verify against a bare XXH3 loop", ours[1] / loop[1], "x", "higher")
    if exit_status(ours[1] >= 1):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
