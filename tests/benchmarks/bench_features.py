"""Peak memory of training SeqNet (4096 → 4096, kernel 3, L=5) on stored features at the size of MSLS.

python tests/benchmarks/bench_features.py [scale] [queries] [steps]

733,000 database and 393,000 query windows in generated drives, and a feature dataset of all their 1.5 million frames
(4096 float16 numbers each, 11.5 GiB). Its parts are sparse files, which read as zeros: this measures memory, not the
disk's speed. One whole mining round (1,000 queries, 1,000 drawn windows, up to 10 positives a query), then some steps.
The peak is the process's VmHWM, libraries and tables included.
"""

import contextlib
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.lib.format as npy
import polars as pl
import torch

from seqdata.storage.files import write_json_atomic
from seqdata.storage.hashing import xxh3_file
from seqdata.storage.parquet import write_parquet_atomic
from tests.benchmarks.positions import PositionsDataset, write_protocol
from tests.benchmarks.results import is_tiny, record, scaled
from train.data.feature_files import ENCODER, IDS, MANIFEST, FeatureManifest, FeaturePart, ids_table
from train.loop.fit import fit
from train.models import registry as models
from train.runs import checkpoint
from train.settings import TrainSettings

WINDOWS = {"database": 733_000, "query": 393_000}
LENGTH, DRIVE, WIDTH, CITIES = 5, 16, 4096, 22
LIMIT_GIB = 4.0
PART_BYTES = 1 << 30


class EnoughError(Exception):
    """The wanted steps are done."""


def tables(scale: float) -> PositionsDataset:
    """Drives of 16 frames, 3 m apart, on random streets of 22 cities that many drives share."""
    random = np.random.default_rng(0)
    parts = []
    for role, windows in WINDOWS.items():
        drives = max(CITIES, round(windows * scale / (DRIVE - LENGTH + 1)))
        city = random.integers(0, CITIES, drives)
        street = random.integers(0, 100, drives)
        start = random.uniform(0, 600, drives)
        along = start[:, None] + 3.0 * np.arange(DRIVE)
        trajectory = pl.Series(np.repeat(np.arange(drives), DRIVE))
        parts.append(
            pl.DataFrame({"easting": along.ravel(), "northing": np.repeat(200.0 * street, DRIVE)}).with_columns(
                trajectory=pl.lit(f"{role}-") + trajectory.cast(pl.String),
                role=pl.lit(role),
                city=pl.lit("city-") + pl.Series(np.repeat(city, DRIVE)).cast(pl.String),
            )
        )
    return PositionsDataset(pl.concat(parts))


def write_features(folder: Path, dataset: PositionsDataset, width: int = WIDTH) -> None:
    """A feature dataset of all frames whose parts are holes, with an encoder that gives `width` numbers a frame."""
    folder.mkdir()
    rows = len(dataset.table)
    model = models.create("netvlad-small", encoder="resnet10t", cut="layer1", clusters=width // 64)
    checkpoint.save_model(folder / ENCODER, model, {"dataset": dataset.id})
    keys = pl.Series(np.arange(rows)).cast(pl.String)
    write_parquet_atomic(ids_table(np.arange(rows), keys), folder / IDS)
    parts = []
    part_rows = PART_BYTES // (2 * width)
    for number, start in enumerate(range(0, rows, part_rows)):
        count = min(part_rows, rows - start)
        path = folder / f"part-{number:05d}.npy"
        with path.open("wb") as file:
            npy.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": (count, width)})
            header = file.tell()
            file.truncate(header + count * 2 * width)
        parts.append(FeaturePart(name=path.name, rows=count, start=header, hash=xxh3_file(path)))
    manifest = FeatureManifest(
        level="frame",
        dataset=dataset.id,
        encoder="0" * 64,
        shape=(width,),
        dtype="float16",
        rows=rows,
        parts=tuple(parts),
    )
    write_json_atomic(folder / MANIFEST, manifest.model_dump(mode="json"))


def gib(field: str = "VmHWM") -> float:
    """A field of this process's memory, GiB."""
    return int(re.findall(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 2**20


def main() -> None:
    """Train until the wanted steps are done, saying what memory each phase reached."""
    defaults = [str(0.01 if is_tiny() else 1), str(scaled(1000, 50)), "3"]
    arguments = sys.argv[1:] + defaults[len(sys.argv) - 1 :]
    scale, queries, steps = map(float, arguments[:3])
    torch.set_num_threads(1)
    started = time.perf_counter()

    def say(what: str) -> None:
        print(
            f"{time.perf_counter() - started:6.1f} s  peak {gib():.2f} GiB, now {gib('VmRSS'):.2f}  {what}", flush=True
        )

    seen: list[str] = []

    def progress(phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
        if phase == "mine" and done == total:
            say(f"a round described: {total} windows")
        if phase == "train":
            say(f"step {done} of {total}")
            if done >= steps:
                raise EnoughError
        seen.append(phase)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = tables(scale)
        write_features(folder / "features", dataset)
        size = sum(path.stat().st_size for path in (folder / "features").glob("*.npy")) / 2**30
        say(f"{len(dataset.table)} frames, features of {size:.1f} GiB")
        chosen = TrainSettings.create(
            "seqnet",
            model="seqnet-vgg16",
            features=str(folder / "features"),
            protocol=write_protocol(folder, LENGTH),
            round_queries=int(queries),
            kmeans_frames=0,
            device="cpu",
        )
        with contextlib.suppress(EnoughError):
            fit(dataset, chosen, folder / "run", progress=progress)  # type: ignore[arg-type]
    assert "mine" in seen, "no round was mined"
    record("peak memory", gib(), "GiB")
    print(f"peak {gib():.2f} GiB (wanted at most {LIMIT_GIB:g})")


if __name__ == "__main__":
    main()
