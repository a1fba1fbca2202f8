"""Opening a dataset of ten million frames: seconds and memory, each step in a process of its own.

The tables are generated in the form that a build writes (all columns of the contract, the same row groups); there are
no pixels but those of the few frames that are read, in shards that are otherwise holes. Memory is the greatest resident
size of the process; what a process holds once the libraries are imported is shown apart.

python tests/benchmarks/bench_open.py [FRAMES]
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import simplejpeg

from seqdata.build.tables import GROUP_ROWS, summarise
from seqdata.contracts.manifest import (
    BuildSettings,
    Counts,
    DatasetManifest,
    ShardInfo,
    SourceInfo,
    TableInfo,
    tool_versions,
)
from seqdata.contracts.tables import table_contract
from seqdata.storage.files import write_json_atomic
from seqdata.storage.hashing import xxh3_file, xxh3_hex
from seqdata.storage.parquet import parquet_writer, write_parquet_atomic
from tests.benchmarks.results import record, scaled

FRAMES, DRIVE, SHARD = 10_000_000, 1_000, 5_000
FRAME_BYTES = 50_000
SAMPLE = tuple(range(4, 1000, 200))
"""Where windows of ten are read: thousandths of the table."""

STEPS = {
    "open: manifest and counts": "opened.manifest.counts",
    "+ trajectories": "opened.trajectories",
    "+ 5 random windows of 10, pixels": "for row in rows: opened.read_frames(range(row, row + 10))",
    "+ places of all frames (stream)": "opened.frame_reader()",
    "+ 5 table columns of a stream": "opened.frame_columns('key', 'trajectory', 'position', 'easting', 'northing')",
    "+ every window, length 10": "opened.sequences(length=10)",
}
CODE = """
import sys, time
import seqdata, seqdata.dataset, polars, pyarrow.parquet, simplejpeg
from pathlib import Path
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
imported, started = peak(), time.perf_counter()
opened = seqdata.open(sys.argv[1])
rows = [int(row) for row in sys.argv[2].split(",")]
{step}
print(time.perf_counter() - started, imported, peak())
"""


def frames_part(first: int, rows: int, windows: Sequence[int]) -> pl.DataFrame:
    """`rows` frames from row `first` on: drives of 1,000 frames 2 m apart; `windows` have pixels."""
    random = np.random.default_rng(first)
    number = np.arange(first, first + rows)
    position = (number % DRIVE).astype(np.int32)
    key = pl.Series(random.integers(0, 1 << 63, rows)).cast(pl.String) + pl.Series(number).cast(pl.String)
    trajectory = pl.Series(number // DRIVE).cast(pl.String)
    columns = {
        "key": key,
        "trajectory": "drive-" + trajectory,
        "position": position,
        "city": pl.Series(number // (DRIVE * 100)).cast(pl.String),
        "role": np.where(number // DRIVE % 2, "query", "database"),
        "latitude": 52 + 2e-5 * position,
        "longitude": 5 + random.normal(0, 5e-6, rows),
        "zone": ["31N"] * rows,
        "easting": 500_000 + random.normal(0, 2, rows),
        "northing": 5_000_000 + 2.0 * position,
        "heading": random.uniform(0, 360, rows).astype(np.float32),
        "track_m": 2.0 * position,
        "resampled": np.ones(rows, dtype=bool),
        "night": np.zeros(rows, dtype=bool),
        "panorama": np.zeros(rows, dtype=bool),
        "subtasks": [""] * rows,
        "shard": (number // SHARD).astype(np.int32),
        "offset": 512 + FRAME_BYTES * (number % SHARD),
        "length": random.integers(30_000, 49_000, rows).astype(np.int32),
        "width": np.full(rows, 640, dtype=np.int32),
        "height": np.full(rows, 480, dtype=np.int32),
        "source": "train_val/" + key + ".jpg",
        "hash": hashes(rows),
    }
    table = table_contract("frames").conform(pl.DataFrame(columns))
    with_pixels = [start + number for start in windows for number in range(10)]
    hash_of = {
        row: bytes.fromhex(xxh3_hex(picture().ljust(table["length"][row - first], b"\0")))
        for row in with_pixels
        if first <= row < first + rows
    }
    stored = pl.Series(number.tolist()).replace_strict(hash_of, default=None, return_dtype=pl.Binary)
    return table.with_columns(hash=pl.coalesce(stored, "hash"))


@lru_cache
def picture() -> bytes:
    """The JPEG that stands in the place of every frame that is read; zeros follow up to the frame's length."""
    return simplejpeg.encode_jpeg(np.zeros((480, 640, 3), dtype=np.uint8))


@lru_cache
def hashes(rows: int) -> pl.Series:
    """Hashes that do not compress; every row group may have the same."""
    random = np.random.default_rng(0)
    return pl.Series([random.bytes(16) for _ in range(rows)])


def write_dataset(out: Path, frames: int, windows: Sequence[int]) -> None:
    """A sealed dataset of generated tables; the frames of `windows` have the hashes of what `write_pixels` writes."""
    out.mkdir()
    group = GROUP_ROWS // DRIVE * DRIVE
    trajectories = []
    schema = table_contract("frames").polars_schema()
    with parquet_writer(out / "frames.parquet", schema, {"seqdata.table": "frames"}) as write:
        for first in range(0, frames, group):
            part = frames_part(first, min(group, frames - first), windows)
            write(part)
            trajectories.append(summarise(part, first))
    write_parquet_atomic(pl.concat(trajectories), out / "trajectories.parquet")
    write_parquet_atomic(pl.DataFrame(schema=table_contract("quarantine").polars_schema()), out / "quarantine.parquet")
    names = {"frames": frames, "trajectories": -(-frames // DRIVE), "quarantine": 0}
    tables = {
        f"{name}.parquet": TableInfo(
            path=f"{name}.parquet",
            bytes=(out / f"{name}.parquet").stat().st_size,
            hash=xxh3_file(out / f"{name}.parquet"),
            rows=rows,
        )
        for name, rows in names.items()
    }
    shard = {"bytes": 512 + FRAME_BYTES * SHARD, "hash": "0" * 32, "seal": "0" * 32, "frames": SHARD, "halo": 0}
    manifest = DatasetManifest(
        sources=(SourceInfo(kind="generated", options={}, fingerprint="", attribution=""),),
        settings=BuildSettings(),
        protocol=None,
        tools=tool_versions(),
        shards=tuple(ShardInfo(name=f"part-{n:06d}.tar", **shard) for n in range(-(-frames // SHARD))),
        tables=tables,
        counts=Counts(frames=frames, trajectories=-(-frames // DRIVE), image_bytes=40_000 * frames, quarantined={}),
    )
    write_json_atomic(out / "manifest.json", manifest.model_dump(mode="json"))


def write_pixels(out: Path, rows: list[int]) -> None:
    """A JPEG in the place of each frame of the windows that are read."""
    (out / "shards").mkdir()
    for first in rows:
        for row in range(first, first + 10):
            with (out / "shards" / f"part-{row // SHARD:06d}.tar").open("ab") as tar:
                tar.truncate(512 + FRAME_BYTES * SHARD)
            with (out / "shards" / f"part-{row // SHARD:06d}.tar").open("r+b") as tar:
                tar.seek(512 + FRAME_BYTES * (row % SHARD))
                tar.write(picture())


def main() -> None:
    """Print a line a step; every step opens the dataset anew."""
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else scaled(FRAMES, 20_000)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "dataset"
        rows = [frames * part // 1000 for part in SAMPLE]
        write_dataset(out, frames, rows)
        write_pixels(out, rows)
        sizes = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.1f} MB" for path in sorted(out.glob("*.*")))
        print(f"{frames:,} frames; {sizes}")
        print(f"{'each step opens anew':<36}{'seconds':>9}{'imports MB':>12}{'peak MB':>9}{'added MB':>10}")
        for name, step in STEPS.items():
            arguments = [sys.executable, "-c", CODE.format(step=step), str(out), ",".join(map(str, rows))]
            said = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()
            seconds, imported, peak = map(float, said)
            record(name, seconds, "s")
            record(f"{name}, memory added", peak - imported, "MB")
            print(f"{name:<36}{seconds:>9.2f}{imported:>12.0f}{peak:>9.0f}{peak - imported:>10.0f}")


if __name__ == "__main__":
    main()
