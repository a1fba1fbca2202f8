"""Build with pass-through against copying the same files: python tests/benchmarks/bench_build.py [FOLDER].

One process a side; all read every file once from a warm cache. The copy reads a file, hashes it (XXH3-128) and writes
it under its name or, stricter, appends it to one file, as a tar would. The build lists the dump, checks every JPEG,
hashes frames and tars, and writes shards, seals, tables and manifest (no protocol's windows). Measured once as all
write to the page cache, once as all end with everything on the disk: the build by its own fsync of each file, the
copies by one sync of the file system, the least they can do. Rounds alternate; the median of each side counts.
Target: the build reaches 0.8 of the copy's rate.
"""

import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import simplejpeg
import xxhash

from seqdata.build.builder import BuildRequest, build
from tests.benchmarks.results import record, scaled

FRAMES, KINDS, ROUNDS = scaled(2000, 60), 40, scaled(5, 1)


def write_drive(raw: Path) -> int:
    """One drive of JPEGs of about 180 kB (640×480, quality 92); returns their bytes."""
    random = np.random.default_rng(0)
    raw.mkdir()
    images = []
    for _ in range(KINDS):
        noise = random.normal(128, random.uniform(35, 45), (480, 640, 3)).clip(0, 255).astype(np.uint8)
        images.append(simplejpeg.encode_jpeg(noise, quality=85, colorsubsampling="420"))
    rows, total = ["image,easting,northing,zone,drive,role"], 0
    for number in range(FRAMES):
        data = images[number % KINDS]
        (raw / f"{number:06d}.jpg").write_bytes(data)
        total += len(data)
        rows.append(f"{number:06d}.jpg,{500_000 + 3 * number},5000000,32N,map,database")
    (raw / "positions.csv").write_text("\n".join(rows))
    return total


def copy(raw: Path, out: Path) -> None:
    """Copy and hash every image."""
    out.mkdir()
    for path in sorted(raw.iterdir()):
        with path.open("rb") as file:
            data = file.read()
        xxhash.xxh3_128_hexdigest(data)
        with (out / path.name).open("wb") as file:
            file.write(data)


def concatenate(raw: Path, out: Path) -> None:
    """Copy every image into one file, and hash it."""
    out.mkdir()
    with (out / "all").open("wb") as whole:
        for path in sorted(raw.iterdir()):
            with path.open("rb") as file:
                data = file.read()
            xxhash.xxh3_128_hexdigest(data)
            whole.write(data)


def timed(side: Callable[[Path, Path], object], raw: Path, out: Path, *, on_disk: bool) -> float:
    """Seconds of one side, everything else written to disk before."""
    os.sync()
    began = time.perf_counter()
    side(raw, out)
    if on_disk:
        os.sync()
    seconds = time.perf_counter() - began
    shutil.rmtree(out)
    return seconds


def pass_through(raw: Path, out: Path) -> None:
    """The build."""
    build(BuildRequest("folder", raw, out))


SIDES = (copy, concatenate, pass_through)


def main() -> None:
    """Print both rates and their ratio, with and without the disk."""
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        raw = Path(folder) / "raw"
        total = write_drive(raw)
        print(f"{FRAMES} JPEGs of {total / FRAMES / 1000:.0f} kB; MB/s, median of {ROUNDS} rounds")
        print(f"{'ends':<18}{'copy':>8}{'one file':>10}{'build':>8}{'to copy':>9}{'to one file':>12}")
        for on_disk in (False, True):
            quiet = contextlib.nullcontext() if on_disk else mock.patch("seqdata.storage.files.flush")
            with quiet:
                rounds = [
                    [timed(side, raw, Path(folder) / "out", on_disk=on_disk) for side in SIDES] for _ in range(ROUNDS)
                ]
            copied, joined, built = (total / 1e6 / statistics.median(side) for side in zip(*rounds, strict=True))
            record(f"build against copying, {'disk' if on_disk else 'page cache'}", built / copied, "x", "higher")
            word = "on the disk" if on_disk else "in the page cache"
            ratios = f"{built / copied:>9.2f}{built / joined:>12.2f}"
            print(f"{word:<18}{copied:>8.0f}{joined:>10.0f}{built:>8.0f}{ratios}")


if __name__ == "__main__":
    main()
