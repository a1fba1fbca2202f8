"""A dataset in memory with the methods that training uses; its truth is brute force, its pixels are made."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from seqdata import protocols
from seqdata.frames.cache import DecodeCache

PROTOCOL = """
name = "fake"
source = "none"
length = {length}
unit = "metres"
rule = "any"
radius = 4.0
pool = "{pool}"
[train]
positive_radius = {positive}
negative_radius = {negative}
rule = "any"
[splits.train]
[splits.val]
"""


def write_protocol(
    folder: Path, length: int = 3, positive: float = 2.5, negative: float = 6.0, pool: str = "together"
) -> str:
    path = folder / "fake.toml"
    path.write_text(PROTOCOL.format(length=length, positive=positive, negative=negative, pool=pool))
    return str(path)


WINDOW_TYPES = dict.fromkeys(("track", "trajectory", "city", "role", "split"), pl.String()) | {
    "first": pl.Int32(), "centre": pl.Int32(), "length": pl.Int64(), "step": pl.Int64(),
}  # fmt: skip


@dataclass(frozen=True)
class Drive:
    name: str
    role: str
    start: float
    count: int
    split: str = "train"
    city: str = "here"
    step: float = 2.0
    heading: float | None = 90.0


DRIVES = (
    Drive("map-a", "database", 0.0, 24),
    Drive("map-b", "database", 30.0, 17),
    Drive("query-a", "query", 1.0, 22),
    Drive("query-b", "query", 35.0, 13),
    Drive("map-val", "database", 500.0, 14, "val"),
    Drive("query-val", "query", 501.0, 12, "val"),
)


@dataclass
class FakeReader:
    """What `Dataset.frame_reader` gives: pixels in the place of JPEGs."""

    dataset: "FakeDataset"

    def cache(self, cache_bytes: int) -> DecodeCache:
        return DecodeCache(self.fetch, self.decode, cache_bytes)

    def fetch(self, rows: list[int]) -> dict[int, bytes]:
        return {row: pixels.tobytes() for row, pixels in zip(rows, self.dataset.read_frames(rows), strict=True)}

    def decode(self, row: int, data: bytes | None) -> Any:
        assert data is not None
        return np.frombuffer(data, np.uint8).reshape(3, *self.dataset.size).transpose(1, 2, 0)


@dataclass
class FakeDataset:
    drives: tuple[Drive, ...] = DRIVES
    size: tuple[int, int] = (16, 24)
    seed: int = 0
    id: str = "f" * 64
    path: Path = Path("fake")
    location: str = "fake"
    address: str = "fake"
    read_rows: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        scene = rng.integers(0, 256, (3, self.size[0], 4000), dtype=np.uint8)
        rows, pixels = [], []
        for drive in self.drives:
            for position in range(drive.count):
                x = drive.start + drive.step * position
                rows.append((drive.name, position, drive.role, drive.city, drive.split, x, drive.heading))
                at = round(3 * x) % 3900
                noise = rng.integers(0, 40, (3, *self.size))
                pixels.append(np.clip(scene[:, :, at : at + self.size[1]] + noise, 0, 255))
        names = ["trajectory", "position", "role", "city", "split", "easting", "heading"]
        self.table = pl.DataFrame(rows, schema=names, orient="row", schema_overrides={"heading": pl.Float64})
        self.pixels = np.stack(pixels).astype(np.uint8)

    is_shared = False

    def share_tables(self) -> None:
        """Nothing here is large."""

    @property
    def frame_count(self) -> int:
        return len(self.table)

    @property
    def frames(self) -> Any:
        height, width = self.size
        key = pl.format("{}-{}", "trajectory", "position")
        place = {"zone": pl.lit("32N"), "northing": pl.lit(5.0)}
        return self.table.lazy().with_columns(height=pl.lit(height), width=pl.lit(width), key=key, **place)

    def frame_columns(self, *names: str) -> pl.DataFrame:
        return self.frames.select(names).collect()

    def load_protocol(self, protocol: Any) -> Any:
        return protocols.load(protocol)

    def sequences(
        self,
        protocol: Any = None,
        split: Any = None,
        role: Any = None,
        length: Any = 5,
        stride: Any = 1,
        spacing: Any = None,
    ) -> Any:
        length = protocol.length if protocol is not None else length
        rows = []
        at = 0
        for drive in self.drives:
            wanted = split in (None, drive.split) and role in (None, drive.role)
            for first in range(at, at + drive.count - length + 1, stride) if wanted else ():
                centre = first + (length - 1) // 2
                rows.append(("all", first, length, 1, drive.name, drive.city, drive.role, drive.split, centre))
            at += drive.count
        names = ["track", "first", "length", "step", "trajectory", "city", "role", "split", "centre"]
        return pl.DataFrame(rows, schema=names, orient="row", schema_overrides=WINDOW_TYPES)

    def frame_rows(self, table: Any) -> Any:
        length = int(table["length"][0])
        return table["first"].to_numpy().astype(np.int64)[:, None] + np.arange(length)

    def distances(self, query: Any, database: Any) -> Any:
        x = self.table["easting"].to_numpy()
        q, d = x[self.frame_rows(query)], x[self.frame_rows(database)]
        return np.abs(q[:, None, :, None] - d[None, :, None, :])

    def positives(self, query: Any, database: Any, radius: Any = 25.0, rule: Any = "any", unit: Any = "metres") -> Any:
        assert rule == "any"
        least = self.distances(query, database).min((2, 3))
        near = least < radius if unit == "metres" else least <= radius
        q, d = np.nonzero(near)
        heading = self.table["heading"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        ways = heading[query["centre"].to_numpy()][q] - heading[database["centre"].to_numpy()][d]
        turn = np.abs((ways + 180) % 360 - 180)
        schema = {"query": pl.Int32, "database": pl.Int32, "min_distance": pl.Float64, "heading_difference": pl.Float32}
        columns = {"query": q, "database": d, "min_distance": least[q, d], "heading_difference": turn}
        return pl.DataFrame(columns, schema_overrides=schema).with_columns(pl.col("heading_difference").fill_nan(None))

    def pair_finder(self, database: Any, radius: Any = 25.0, rule: Any = "any", unit: Any = "metres") -> Any:
        return lambda query: self.positives(query, database, radius, rule, unit)

    def protocol_positives(self, protocol: Any, split: Any) -> Any:
        query = self.sequences(protocol, split, "query")
        return self.positives(query, self.sequences(protocol, split, "database"), protocol.radius)

    def read_frames(self, rows: Any, size: Any = None) -> Any:
        assert size is None
        self.read_rows.extend(int(row) for row in rows)
        return self.pixels[np.asarray(rows)]

    def frame_reader(self, size: Any = None, device: str = "cpu", resize: str = "pillow") -> "FakeReader":
        assert size is None
        return FakeReader(self)

    def read(self, table: Any, rows: Any, size: Any = None) -> Any:
        frames = self.frame_rows(table)[np.atleast_1d(rows)]
        return self.read_frames(frames.ravel()).reshape(*frames.shape, 3, *self.size)
