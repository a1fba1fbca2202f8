"""Frames in the shape of MSLS, without pixels: uneven cities, contributors' sequences along streets, GNSS noise.

Warburg et al., Mapillary Street-Level Sequences: A Dataset for Lifelong Place Recognition, CVPR 2020, sec. 3: 30 cities
of very different sizes, sequences of many contributors that pass the same streets at other times. Sequences are walks
on a street grid, at one of five speeds, with noise, drift and a rare jump; the ground of a city grows with its frames,
so that a window has as many positives at every size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from seqdata.contracts.tables import table_contract
from seqdata.geometry import Float64Array, IntArray

MSLS_FRAMES, MSLS_CITIES = 1_460_000, 30
STREET = 110.0
"""Metres from corner to corner."""
FRAMES_A_CORNER = 150
"""Frames for each corner of a city's grid: a query window of five then has 35 to 50 windows within 25 m, where the
two real cities at hand have 84 (Austin) and 11 (Amman)."""
SEQUENCE = (20, 400)
"""Fewest and most frames of a contributor's sequence."""
QUERIES = 0.35
"""Share of sequences that are queries: 393 k of 1,126 k windows."""
LEAST_CITIES = 15
SHARD_FRAMES, FRAME_BYTES = 5_000, 50_000


@dataclass(frozen=True)
class City:
    """One city: its name, number of frames, and the split that it belongs to."""

    name: str
    frames: int
    split: str


def cities(frames: int) -> list[City]:
    """Cut frames into cities whose sizes fall like 1, 1/2, 1/3 …, thirty for every 1.46 M frames."""
    shares = 1 / np.arange(2, MSLS_CITIES + 2)
    sizes = np.random.default_rng(0).permutation((MSLS_FRAMES * shares / shares.sum()).astype(int))
    # Few frames are still many cities, so that every split has some.
    sizes = np.minimum(sizes, max(1, frames // LEAST_CITIES))
    repeated = np.tile(sizes, -(-frames // int(sizes.sum())))
    ends = np.minimum(np.cumsum(repeated), frames)
    counts = np.diff(ends, prepend=0)
    return [City(f"city{number:04d}", int(count), _split(number)) for number, count in enumerate(counts) if count]


def _split(number: int) -> str:
    """Two cities of thirty validate and six test, as in MSLS."""
    return "test" if number % 5 == 4 else "val" if number % 15 == 7 else "train"


def protocol_text(city_list: list[City]) -> str:
    """The protocol of these cities: windows of five, 25 m, each city searched alone."""
    splits = [
        f"[splits.{split}]\ncities = [{', '.join(repr(city.name) for city in city_list if city.split == split)}]"
        for split in ("train", "val", "test")
    ]
    head = [
        'name = "scale"', 'source = "folder"', "length = 5", 'rule = "any"', "radius = 25.0", 'panoramas = "drop"',
        'pool = "each"', "[train]", "positive_radius = 10.0", "negative_radius = 25.0", 'rule = "any"',
    ]  # fmt: skip
    return "\n".join([*head, *splits]) + "\n"


def frames_of(city: City, number: int, first: int) -> Iterator[pl.DataFrame]:
    """Yield the frames of a city as sealed shards hold them: all columns but those that follow from a whole drive.

    Args:
        city: The city.
        number: Its number, the seed of its frames.
        first: Frame row of its first frame.
    """
    rng = np.random.default_rng((7, number))
    corners = max(3, round((city.frames / FRAMES_A_CORNER) ** 0.5))
    sizes = _sequence_sizes(rng, city.frames)
    order = np.argsort(roles := rng.random(len(sizes)) < QUERIES, kind="stable")
    # A thousand sequences at a time, database before query, as a listing is sorted.
    for start in range(0, len(order), 1_000):
        part = order[start : start + 1_000]
        xy = np.concatenate([_drive(rng, int(size), corners) for size in sizes[part]]) + _centre(number)
        names = [f"{city.name}/{'query' if roles[row] else 'database'}/{start + at:06d}" for at, row in enumerate(part)]
        yield _table(rng, city, names, sizes[part], xy, first)
        first += len(xy)


def _sequence_sizes(rng: np.random.Generator, frames: int) -> IntArray:
    sizes = rng.integers(*SEQUENCE, 2 * frames // SEQUENCE[1] + 20)
    while sizes.sum() < frames:
        sizes = np.append(sizes, rng.integers(*SEQUENCE, 20))
    ends = np.minimum(np.cumsum(sizes), frames)
    counts = np.diff(ends, prepend=0)
    return counts[counts > 0].astype(np.int64)


def _drive(rng: np.random.Generator, frames: int, corners: int) -> Float64Array:
    """One contributor's sequence: a walk on the grid, (frames, 2) metres with noise, drift and a rare jump."""
    spacing = rng.choice([1.05, 3.1, 5.0, 8.0, 13.6], p=[0.2, 0.3, 0.25, 0.15, 0.1])
    along = np.cumsum(np.clip(rng.normal(spacing, spacing / 3, frames), 0, None))
    turns = int(along[-1] / STREET) + 2
    quarter = (np.cumsum(rng.choice([-1, 0, 0, 0, 1], turns)) + rng.integers(4)) * np.pi / 2
    moves = np.stack([np.cos(quarter), np.sin(quarter)], 1).round()
    walk = np.vstack([np.zeros(2), np.cumsum(moves, 0)]) + rng.integers(0, corners, 2)
    # Reflected at the edge of the city, whose density would thin out otherwise.
    walk = np.abs((walk + corners) % (2 * corners) - corners) * STREET
    marks = np.arange(len(walk)) * STREET
    xy = np.stack([np.interp(along, marks, walk[:, axis]) for axis in (0, 1)], 1)
    xy += np.cumsum(rng.normal(0, 0.05, (frames, 2)), 0) + rng.normal(0, 3.0, 2) + rng.normal(0, 0.4, (frames, 2))
    if rng.random() < 0.03:
        xy[frames // 2 :] += rng.uniform(-8_000, 8_000, 2)
    return xy


def _centre(number: int) -> Float64Array:
    """Where a city lies: no two are nearer than 60 km, or windows of one zone would find those of other cities."""
    row, column = divmod(number, 8)
    return np.array([200_000.0 + 60_000 * column, 60_000.0 * (1 + row)])


def _table(
    rng: np.random.Generator, city: City, names: list[str], sizes: IntArray, xy: Float64Array, first: int
) -> pl.DataFrame:
    rows, number = len(xy), np.arange(first, first + len(xy))
    position = np.arange(rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    trajectory = pl.Series(names).gather(np.repeat(np.arange(len(sizes)), sizes))
    key = pl.Series(rng.integers(1 << 60, 1 << 62, rows)).cast(pl.String) + pl.Series(number).cast(pl.String)
    is_dark = np.repeat(rng.random(len(sizes)) < 0.03, sizes)
    columns = {
        "key": key,
        "trajectory": trajectory,
        "position": position,
        "city": pl.Series([city.name]).new_from_index(0, rows),
        "role": trajectory.str.split("/").list.get(1),
        "time": 1_500_000_000_000_000 + number * 1_000_000,
        "latitude": xy[:, 1] / 111_000,
        "longitude": xy[:, 0] / 111_000,
        "zone": pl.Series(["31N"]).new_from_index(0, rows),
        "easting": xy[:, 0],
        "northing": xy[:, 1],
        "night": is_dark,
        "panorama": np.repeat(rng.random(len(sizes)) < 0.02, sizes),
        "view_direction": pl.Series(["Forward"]).new_from_index(0, rows),
        "subtasks": pl.Series(["all"]).new_from_index(0, rows),
        "source": f"{city.name}/" + key + ".jpg",
        "bytes": rng.integers(30_000, 49_000, rows),
        "shard": number // SHARD_FRAMES,
        "offset": 512 + FRAME_BYTES * (number % SHARD_FRAMES),
        "width": np.full(rows, 640, dtype=np.int32),
        "height": np.full(rows, 480, dtype=np.int32),
        "hash": _hashes(rng, rows),
    }
    nothing = pl.lit(None)
    table = pl.DataFrame(columns).with_columns(length=pl.col("bytes"), clean_position=nothing, heading=nothing)
    types = {**table_contract("records").polars_schema(), **table_contract("frames").polars_schema()}
    return table.cast({name: types[name] for name in table.columns})  # type: ignore[arg-type]


def _hashes(rng: np.random.Generator, rows: int) -> pl.Series:
    """Sixteen random bytes a row, as hashes are: they do not compress."""
    values = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), rows, [None, pa.py_buffer(rng.bytes(16 * rows))])
    return pl.Series(pl.from_arrow(values.cast(pa.binary())))
