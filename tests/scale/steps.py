"""The stages that are measured, each in a process of its own: `python -m tests.scale.steps STAGE FOLDER FRAMES`."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image
from typer.testing import CliRunner

import indexer
import seqdata
from cli.main import app
from seqdata import protocols
from seqdata.build.builder import BuildRequest
from seqdata.build.finish import seal_version
from seqdata.build.plan import describe_source, make_work
from seqdata.build.tables import Draft, Tables, by_trajectory, complete, write_frames
from seqdata.contracts.manifest import BuildSettings, ShardInfo, SourceInfo
from seqdata.contracts.protocol import Protocol
from seqdata.contracts.tables import table_contract
from seqdata.dataset.versions import append, withdraw
from seqdata.geometry import Float32Array, IntArray
from seqdata.sources.base import Listing
from seqdata.storage.store import Store
from tests.scale.shape import FRAME_BYTES, SHARD_FRAMES, cities, frames_of, protocol_text

Figures = dict[str, float]
VALUES = 8
"""Numbers of a stored vector: so few that ids and places, not vectors, are what an index of a stage holds."""
APPENDED = 1_000


def protocol_of(folder: Path) -> Protocol:
    """The protocol of the generated cities."""
    return protocols.load(folder / "scale.toml")


def generate(folder: Path, frames: int) -> Figures:
    """Write the frames of sealed shards, a file a city."""
    (folder / "shards").mkdir(parents=True)
    city_list, first = cities(frames), 0
    (folder / "scale.toml").write_text(protocol_text(city_list))
    for number, city in enumerate(city_list):
        pl.concat(list(frames_of(city, number, first))).write_parquet(folder / "shards" / f"{city.name}.parquet")
        first += city.frames
    return {"cities": len(city_list)}


def plan(folder: Path, frames: int) -> Figures:
    """Identify a listing and cut it into shards, as a build does before its first byte."""
    columns = list(table_contract("records").polars_schema())
    records = pl.read_parquet(sorted((folder / "shards").glob("*.parquet")), columns=columns)
    quarantine = pl.DataFrame(schema=table_contract("quarantine").polars_schema())
    source = _Generated()
    listing = Listing(table_contract("records").conform(records), quarantine)
    info = describe_source("folder", {}, source, listing)
    work = make_work(source, listing, info, BuildSettings(), protocol_of(folder))
    return {"shards": len(work.plan.shards)}


class _Generated:
    """A source that is its listing alone."""

    attribution = "generated"

    def listing(self) -> Listing:
        raise NotImplementedError

    def read(self, source: str) -> bytes:
        raise NotImplementedError

    def check_protocol(self, protocol: Protocol) -> None:
        raise NotImplementedError

    def pinned_options(self, protocol: Protocol) -> dict[str, tuple[str, str]]:
        raise NotImplementedError


class _TimedTables(Tables):
    """Counts the CPU seconds of each kind of table."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.seconds: Figures = {}

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        started = time.process_time()
        with super().writing(name) as path:
            yield path
        kind = f"{name.removesuffix('.parquet').split('-')[0]}, CPU s"
        self.seconds[kind] = self.seconds.get(kind, 0.0) + time.process_time() - started


def seal(folder: Path, frames: int) -> Figures:
    """Join sealed shards to a dataset: frames, trajectories, windows, truth, manifest."""
    tables, settings = _TimedTables(Store(folder / "dataset", is_output=True)), BuildSettings()
    sources = (SourceInfo(kind="folder", options={}, fingerprint="generated", attribution="generated"),)
    draft = Draft(1, None, sources, settings, protocol_of(folder))
    parts = (pl.read_parquet(path).drop("bytes") for path in sorted((folder / "shards").glob("*.parquet")))
    summary = write_frames(tables, (complete(part, settings) for part in by_trajectory(parts)), draft)
    shard = {"bytes": 512 + FRAME_BYTES * SHARD_FRAMES, "hash": "0" * 32, "seal": "0" * 32, "frames": SHARD_FRAMES}
    shards = [ShardInfo(name=f"part-{n:06d}.tar", halo=0, **shard) for n in range(-(-frames // SHARD_FRAMES))]  # type: ignore[arg-type]
    quarantine = pl.DataFrame(schema=table_contract("quarantine").polars_schema())
    manifest = seal_version(tables, draft, shards, summary, quarantine)
    pairs = sum(table.rows for name, table in manifest.tables.items() if name.startswith("positives"))
    sizes = sum(table.bytes for table in manifest.tables.values())
    return {**tables.seconds, "pairs": pairs, "tables, MB": sizes / 1e6}


def opened(folder: Path, frames: int) -> Figures:
    """Open the dataset and count."""
    return {"frames": seqdata.open(folder / "dataset").manifest.counts.frames}


def _run(*arguments: str) -> None:
    ended = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output


def info(folder: Path, frames: int) -> Figures:
    """`seqdata info`."""
    _run("info", str(folder / "dataset"), "--json")
    return {}


def windows(folder: Path, frames: int) -> Figures:
    """Cut the windows of every split."""
    dataset, protocol = seqdata.open(folder / "dataset"), protocol_of(folder)
    return {"windows": sum(dataset.sequences(protocol, split).height for split in protocol.splits)}


def truth(folder: Path, frames: int) -> Figures:
    """Read the positives of the validation split, of its own radius and rule."""
    dataset, protocol = seqdata.open(folder / "dataset"), protocol_of(folder)
    return {"pairs": dataset.protocol_positives(protocol, "val").height}


def train_start(folder: Path, frames: int) -> Figures:
    """What a training holds before its first step: windows, frame rows, places of frames, and two mined rounds.

    The first rank of a machine makes the tables, and the next ones map them.
    """
    from train.data.frames import FrameSource, native_size
    from train.sampling.mining import mine
    from train.sampling.pairs import Radii
    from train.sampling.windows import TrainData

    # What is no page of a file, which all ranks share.
    before = resident("RssAnon")
    dataset, protocol = seqdata.open(folder / "dataset"), protocol_of(folder)
    dataset.share_tables()
    data = TrainData.from_split(dataset, protocol)
    FrameSource(dataset, native_size(dataset, lambda: data.frame_rows, (48, 64)), replace_among=lambda: data.frame_rows)
    started = time.process_time()

    def describe(rows: IntArray) -> Float32Array:
        return np.random.default_rng(0).random((len(rows), VALUES), dtype=np.float32)

    for key in range(2):
        mine(dataset, data.queries, data.database, Radii.from_protocol(protocol), describe, key=(key,))
    seconds = time.process_time() - started
    return {"two mined rounds, CPU s": seconds, "own MB": resident("RssAnon") - before}


def index(folder: Path, frames: int) -> Figures:
    """Write an index of the training database from made vectors."""
    dataset, protocol = seqdata.open(folder / "dataset"), protocol_of(folder)
    places = dataset.places(dataset.sequences(protocol, "train", "database"))
    rng = np.random.default_rng(0)
    starts = range(0, places.height, 65_536)
    blocks = (rng.random((min(65_536, places.height - at), VALUES), dtype=np.float32) for at in starts)
    indexer.build(folder / "index", blocks=blocks, places=places, transform=None, inputs={"data": "generated"})
    np.save(folder / "query.npy", rng.random((1, VALUES), dtype=np.float32))
    return {"rows": places.height}


def search(folder: Path, frames: int) -> Figures:
    """The first answer of an index: `seqdata search INDEX query.npy`."""
    _run("search", str(folder / "index"), str(folder / "query.npy"), "--json")
    return {}


def append_day(folder: Path, frames: int) -> Figures:
    """Append a dump of 1,000 frames, pixels and all."""
    raw = folder / "day"
    raw.mkdir()
    Image.new("RGB", (64, 48)).save(raw / "0000.jpg")
    for number in range(1, APPENDED):
        (raw / f"{number:04d}.jpg").hardlink_to(raw / "0000.jpg")
    rows = [f"{n:04d}.jpg,{400_000 + 3 * n},6000000,31N,new,query,city0000" for n in range(APPENDED)]
    (raw / "positions.csv").write_text("\n".join(["image,easting,northing,zone,drive,role,city", *rows]) + "\n")
    started = time.process_time()
    before = seqdata.open(folder / "dataset").manifest
    manifest = append(BuildRequest("folder", raw, folder / "dataset")).manifest
    old = {table.path for table in before.table_files()}
    written = sum(table.bytes for table in manifest.table_files() if table.path not in old)
    return {"append alone, CPU s": time.process_time() - started, "tables written, MB": written / 1e6}


def withdraw_frame(folder: Path, frames: int) -> Figures:
    """Withdraw one frame in the middle."""
    dataset = seqdata.open(folder / "dataset")
    old = {table.path for table in dataset.manifest.table_files()}
    manifest = withdraw(folder / "dataset", [dataset.frame_key(frames // 2)], "a face")
    written = sum(table.bytes for table in manifest.table_files() if table.path not in old)
    return {"tables written, MB": written / 1e6}


STAGES: dict[str, Callable[[Path, int], Figures]] = {
    "generate": generate,
    "plan": plan,
    "seal": seal,
    "open": opened,
    "info": info,
    "windows": windows,
    "truth": truth,
    "train start": train_start,
    "next rank": train_start,
    "index": index,
    "first search": search,
    "append 1,000": append_day,
    "withdraw 1": withdraw_frame,
}


def resident(field: str) -> float:
    """Memory of this process in MB: "VmHWM" for the most there was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def main() -> None:
    """Run one stage and print its figures as JSON."""
    name, folder, frames = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if name in ("train start", "next rank"):
        import train.sampling.mining  # noqa: F401  (PyTorch is no part of the stage)
    before, started, wall = resident("VmHWM"), time.process_time(), time.monotonic()
    figures = STAGES[name](folder, frames)
    measured = {"CPU s": time.process_time() - started, "MB": resident("VmHWM") - before}
    print(json.dumps({**measured, "wall s": time.monotonic() - wall, **figures}))


if __name__ == "__main__":
    main()
