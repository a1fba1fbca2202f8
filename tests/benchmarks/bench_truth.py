"""Ground truth at MSLS size: 733k database × 393k query windows, L=5, 25 m, written to Parquet as it goes.

Run `python tests/benchmarks/bench_truth.py [--scale 1.0] [--subset 20000] [--sample 200]`. Every row of the
table is measured in a process of its own, so that its time and peak memory are its own. Tracks are generated:
drives through the street grids of 22 cities, 1 to 14 m a frame, GNSS noise and drift, several passes of the
same streets in both directions, some sequences with a jump of kilometres inside.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

from seqdata.geometry import driving_headings
from seqdata.sequences.positives import positives, write_positives
from seqdata.sequences.tiles import WindowSet
from seqdata.sequences.windows import windows
from tests.benchmarks.results import is_tiny, record, scaled

DATABASE, QUERY, LENGTH, RADIUS = 733_048, 393_000, 5, 25.0
LIMITS = {"seconds": 60.0, "peak": 2.0}
CITIES, STREET, START = 22, 110.0, 20  # metres between corners; drives start within 20 × 20 corners
DISTANCES = ["min_distance", "centre_distance", "last_distance", "worst_distance"]


def drive(rng: Any, frames: Any) -> Any:
    """One contributor's sequence: a walk along a street grid, (frames, 2) metres with noise, drift and a rare
    jump.
    """
    spacing = rng.choice([1.05, 3.1, 5.0, 8.0, 13.6], p=[0.2, 0.3, 0.25, 0.15, 0.1])
    along = np.cumsum(np.clip(rng.normal(spacing, spacing / 3, frames), 0, None))
    turns = int(along[-1] / STREET) + 2
    quarter = (np.cumsum(rng.choice([-1, 0, 0, 0, 1], turns)) + rng.integers(4)) * np.pi / 2
    moves = np.stack([np.cos(quarter), np.sin(quarter)], 1).round() * STREET
    corners = np.vstack([np.zeros(2), np.cumsum(moves, 0)]) + rng.integers(0, START, 2) * STREET
    marks = np.arange(len(corners)) * STREET
    xy = np.stack([np.interp(along, marks, corners[:, axis]) for axis in (0, 1)], 1)
    xy += np.cumsum(rng.normal(0, 0.05, (frames, 2)), 0) + rng.normal(0, 3.0, 2)
    xy += rng.normal(0, 0.4, (frames, 2)) + np.array([400_000.0, 6_000_000.0])
    if rng.random() < 0.03:
        xy[frames // 2 :] += rng.uniform(-8_000, 8_000, 2)
    return xy


def window_set(rng: Any, wanted: Any) -> Any:
    """`wanted` windows of one role: contributors' sequences city by city, uneven cities as in MSLS."""
    sizes = rng.integers(20, 400, wanted // 200 + 50)
    while (sizes - LENGTH + 1).sum() < wanted:
        sizes = np.append(sizes, rng.integers(20, 400, 50))
    shares = 1.0 / np.arange(2, CITIES + 2)
    cities = np.sort(rng.choice(CITIES, len(sizes), p=shares / shares.sum()))
    drives = [drive(rng, size) for size in sizes]
    track = pl.DataFrame({"run": np.repeat(np.arange(len(sizes)), sizes)})
    # A random order of drives would leave whole cities out when cut to size: drop evenly instead.
    first = windows(track, length=LENGTH)["first"].to_numpy()
    first = first[np.linspace(0, len(first) - 1, wanted).round().astype(int)] if len(first) > wanted else first
    return WindowSet.from_coordinates(
        np.concatenate(drives),
        first,
        LENGTH,
        group=np.repeat(cities, sizes)[first],
        heading=np.concatenate([driving_headings(xy[:, 0], xy[:, 1]) for xy in drives]),
    )


def both_sets(scale: Any) -> Any:
    """The same query and database windows in every process."""
    rng = np.random.default_rng(2024)
    return window_set(rng, int(QUERY * scale)), window_set(rng, int(DATABASE * scale))


def spread(query: Any, count: Any) -> Any:
    """Every n-th stretch of 100 query windows: about `count` windows from all cities."""
    keep = np.arange(len(query)) // 100 % max(1, len(query) // count) == 0
    columns = (getattr(query, name)[keep] for name in ("first", "length"))
    return WindowSet.from_coordinates(query.xy, *columns, group=query.group[keep], heading=query.heading)


def brute(query: Any, row: Any, database: Any) -> Any:
    """All pairs of one query window by measuring its frames against every database frame: rows and four
    distances.
    """
    frames = query.xy[query.first[row] + np.arange(LENGTH)]
    found = np.flatnonzero(database.group == query.group[row])
    used = database.first[found][:, None] + np.arange(LENGTH)
    delta = frames[:, None, None] - database.xy[used][None]
    distance = np.sqrt((delta**2).sum(-1))
    least, centre = distance.min((0, 2)), distance[(LENGTH - 1) // 2, :, (LENGTH - 1) // 2]
    four = np.stack([least, centre, distance[-1, :, -1], distance.min(2).max(0)], 1)
    return found[least < RADIUS], four[least < RADIUS]


def agreement(file: Any, query: Any, database: Any, sample: Any) -> Any:
    """Compare a written file with brute force on `sample` random queries: pairs compared, wrong pairs, worst
    error.
    """
    rows = np.sort(np.random.default_rng(7).choice(len(query), sample, replace=False))
    stored = pl.scan_parquet(file).filter(pl.col("query").is_in(rows.astype(np.int32))).collect()
    pairs = wrong = 0
    error = 0.0
    for row in rows.tolist():
        found, four = brute(query, row, database)
        ours = stored.filter(pl.col("query") == row)
        pairs += len(found)
        if ours["database"].to_numpy().tolist() != found.tolist():
            wrong += len(set(ours["database"].to_list()) ^ set(found.tolist()))
        elif len(found):
            error = max(error, float(np.abs(ours.select(DISTANCES).to_numpy() - four).max()))
    return {"compared": pairs, "wrong": wrong, "error": error}


def frame_tree(query: Any, database: Any) -> Any:
    """Frame-level comparison: a cKDTree of frames, near frame pairs expanded to window pairs, then all L²
    distances.
    """
    tables = []
    starts = np.full(len(database.xy), -1)
    starts[database.first] = np.arange(len(database))
    for group in np.unique(query.group):
        rows = np.flatnonzero(query.group == group)
        theirs = database.first[database.group == group]
        if len(theirs) == 0:
            continue
        used = np.unique(theirs[:, None] + np.arange(LENGTH))
        asked = np.unique(query.first[rows][:, None] + np.arange(LENGTH))
        near = cKDTree(database.xy[used]).query_ball_point(query.xy[asked], RADIUS)
        for row, first in zip(rows, query.first[rows], strict=True):
            at = np.searchsorted(asked, first)
            frames = used[np.unique(np.concatenate([near[i] for i in range(at, at + LENGTH)]).astype(int))]
            first_frames = np.unique((frames[:, None] - np.arange(LENGTH)).ravel())
            found = starts[first_frames[first_frames >= 0]]
            found = found[found >= 0]
            found = found[database.group[found] == group]
            delta = query.xy[first + np.arange(LENGTH)][:, None, None]
            delta = delta - database.xy[database.first[found][:, None] + np.arange(LENGTH)][None]
            distance = np.sqrt((delta**2).sum(-1))
            keep = distance.min((0, 2)) < RADIUS if len(found) else np.zeros(0, bool)
            tables.append((row, found[keep], distance.min(2).max(0)[keep] if len(found) else found))
    return sum(len(found) for _, found, _ in tables)


def measure(side: Any, scale: Any, subset: Any, sample: Any) -> Any:
    """One row of the table, in this process."""
    query, database = both_sets(scale)
    few = query if side == "whole" else spread(query, subset)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result = {"query": len(few), "database": len(database), "base": base}
    begin = time.perf_counter()
    if side == "tree":
        pairs, size = frame_tree(few, database), 0
    elif side == "subset":
        pairs, size = len(positives(few, database, radius=RADIUS)), 0
    else:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "positives.parquet"
            pairs = write_positives(file, few, database, radius=RADIUS)
            result["seconds"] = time.perf_counter() - begin
            result["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            size = file.stat().st_size / 1e6
            result |= agreement(file, few, database, min(sample, len(few)))
    result.setdefault("seconds", time.perf_counter() - begin)
    result.setdefault("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
    return result | {"pairs": pairs, "megabytes": size}


def report(rows: Any) -> None:
    """Print the table, both sides of the comparison from this run."""
    print(f"{'':26}{'query':>9}{'database':>10}{'pairs':>12}{'a query':>9}{'s':>8}{'peak GiB':>10}{'MB':>7}")
    names = {"whole": "tiles, to Parquet", "subset": "tiles, subset", "tree": "frame cKDTree, subset"}
    for side, row in rows.items():
        print(
            f"{names[side]:26}{row['query']:>9,}{row['database']:>10,}{row['pairs']:>12,}"
            f"{row['pairs'] / row['query']:>9.1f}{row['seconds']:>8.1f}{row['peak']:>10.2f}{row['megabytes']:>7.0f}"
        )
    for side, row in rows.items():
        record(f"{names[side]}: time", row["seconds"], "s")
        record(f"{names[side]}: peak memory", row["peak"], "GiB")
    whole, subset, tree = (rows[side] for side in ("whole", "subset", "tree"))
    print(
        f"brute force on a sample: {whole['compared']:,} pairs, {whole['wrong']} differ, "
        f"greatest distance error {whole['error']:g} m"
    )
    same = "the same pairs" if subset["pairs"] == tree["pairs"] else f"{tree['pairs'] - subset['pairs']:+,} pairs"
    print(f"tiles over frame cKDTree: {tree['seconds'] / subset['seconds']:.1f} times faster, {same}")
    print(
        f"limits: {whole['seconds']:.1f} s of {LIMITS['seconds']:.0f} s, {whole['peak']:.2f} GiB of "
        f"{LIMITS['peak']:.0f} GiB (of which tracks and imports {whole['base']:.2f})"
    )


def main() -> None:
    """Measure each side in a fresh process and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--scale", type=float, default=0.002 if is_tiny() else 1.0, help="share of the MSLS window counts"
    )
    parser.add_argument(
        "--subset", type=int, default=scaled(20_000, 300), help="query windows for the comparison with cKDTree"
    )
    parser.add_argument("--sample", type=int, default=scaled(200, 20), help="query windows checked by brute force")
    parser.add_argument("--side", choices=["whole", "subset", "tree"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(measure(given.side, given.scale, given.subset, given.sample)))
        return
    options = [f"--{name}={getattr(given, name)}" for name in ("scale", "subset", "sample")]
    rows = {}
    for side in ("whole", "subset", "tree"):
        command = [sys.executable, __file__, f"--side={side}", *options]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
        rows[side] = json.loads(done.stdout)
    report(rows)


if __name__ == "__main__":
    main()
