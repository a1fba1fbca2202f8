"""Ground truth at MSLS size: 733k database × 393k query windows, L=5, 25 m, written to Parquet as it goes.

Run `python tests/benchmarks/bench_truth.py [--scale 1.0]`. Tracks are generated: drives through street grids of 22
cities, 1 to 14 m a frame, GNSS noise and drift, several passes of the same streets in both directions, some sequences
with a jump inside. Each side runs in a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

from seqdata.geometry import driving_headings
from seqdata.truth import WindowSet, write_positives
from seqdata.windows import centre_index, windows

DATABASE, QUERY, LENGTH, RADIUS = 733_048, 393_000, 5, 25.0
CITIES, BLOCK_METRES, BLOCKS = 22, 110.0, 12


def drive(rng, frames, city):
    """One contributor's sequence: a walk over a city's street grid, `frames` positions (n, 2) in metres."""
    spacing = rng.choice([1.05, 3.1, 5.0, 8.0, 13.6], p=[0.2, 0.3, 0.25, 0.15, 0.1])
    turns = max(2, int(frames * spacing / BLOCK_METRES) + 2)
    headings = np.cumsum(rng.choice([-1, 0, 0, 0, 1], turns)) + rng.integers(4)
    moves = np.stack([np.cos(headings * np.pi / 2), np.sin(headings * np.pi / 2)], 1).round() * BLOCK_METRES
    start = rng.integers(0, BLOCKS, 2) * BLOCK_METRES
    corners = np.vstack([start, start + np.cumsum(moves, 0)])
    along = np.cumsum(np.clip(rng.normal(spacing, spacing / 3, frames), 0, None))
    at = np.arange(len(corners)) * BLOCK_METRES
    xy = np.stack([np.interp(along, at, corners[:, axis]) for axis in (0, 1)], 1)
    drift = np.cumsum(rng.normal(0, 0.05, (frames, 2)), 0) + rng.normal(0, 3.0, 2)
    xy += drift + rng.normal(0, 0.4, (frames, 2)) + np.array([400_000.0, 6_000_000.0])
    if rng.random() < 0.03:
        xy[frames // 2 :] += rng.uniform(-8_000, 8_000, 2)
    return xy, city


def side(rng, wanted):
    """A window set of about `wanted` windows of one role, contributors' sequences city by city."""
    points, run, group, headings = [], [], [], []
    frames = 0
    sizes = []
    while frames < wanted + (LENGTH - 1) * len(sizes):
        sizes.append(int(rng.integers(20, 400)))
        frames += sizes[-1]
    cities = np.sort(rng.choice(CITIES, len(sizes), p=city_shares()))
    for number, (size, city) in enumerate(zip(sizes, cities, strict=True)):
        xy, _ = drive(rng, size, city)
        points.append(xy)
        run.append(np.full(size, number))
        group.append(np.full(size, city))
        headings.append(driving_headings(xy[:, 0], xy[:, 1]))
    track = pl.DataFrame({"run": np.concatenate(run)})
    first = windows(track, length=LENGTH)["first"].to_numpy()[:wanted]
    return WindowSet.of(
        np.concatenate(points), first, LENGTH, group=np.concatenate(group)[first], heading=np.concatenate(headings)
    )


def city_shares():
    """Uneven cities, as in MSLS: the greatest holds a sixth of all frames."""
    shares = 1.0 / np.arange(2, CITIES + 2)
    return shares / shares.sum()
