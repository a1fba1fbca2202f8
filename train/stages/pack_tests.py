"""What a pack says of itself: recorded frames with the places they lead to, latency, and how its frames are spaced."""

import platform
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import polars as pl

from indexer.localizer.frame_form import Picture, index_protocol
from indexer.localizer.localizer import Localizer
from indexer.localizer.pack import TEST, Latency, RecordedAnswer
from indexer.place_index import PlaceIndex
from seqdata.dataset.dataset import Dataset
from seqdata.geometry import IntArray
from seqdata.storage.files import write_bytes_atomic

WINDOWS = 3
"""Windows of the self-test: first, middle and last, so that the pack stays small."""
ROUNDS = 20
_WARM = 3
# Enough for a median, whatever the size of the database.
_MOST_WINDOWS = 2000


def recorded_windows(index: PlaceIndex, dataset: Dataset, split: str | None) -> IntArray:
    """Choose the windows of the self-test: queries of a split where there are some, else windows of the database.

    Returns:
        Frame rows (w, L) of up to three windows.
    """
    protocol = index_protocol(index)
    queries = pl.DataFrame() if split is None else dataset.sequences(protocol, split, "query")
    table = queries if queries.height else index.sequences
    rows = np.unique(np.linspace(0, table.height - 1, min(WINDOWS, table.height)).round().astype(np.int64))
    return dataset.frame_rows(table[rows])


def write_frames(folder: Path, dataset: Dataset, windows: IntArray) -> list[tuple[str, ...]]:
    """Write the stored bytes of windows' frames (w, L) to `folder/test`; returns their names, window by window."""
    images = dataset.frame_reader().encoded(np.unique(windows))
    names = []
    for number, window in enumerate(windows.tolist()):
        # A stored frame is a JPEG or a PNG; readers look at its bytes, the name is for people.
        suffixes = [".png" if images[row].startswith(b"\x89PNG") else ".jpg" for row in window]
        names.append(tuple(f"{number}-{position:02d}{suffix}" for position, suffix in enumerate(suffixes)))
        for row, name in zip(window, names[-1], strict=True):
            write_bytes_atomic(folder / TEST / name, images[row])
    return names


def record_answers(folder: Path, names: list[tuple[str, ...]]) -> tuple[RecordedAnswer, ...]:
    """Localize the frames in a pack's `test` folder, window by window."""
    localizer = Localizer(folder, keep_rejected=True, threads=1)
    answers = []
    for frames in names:
        localizer.reset()
        place = [localizer.push(folder / TEST / name) for name in frames][-1]
        if place is not None:
            answers.append(RecordedAnswer(frames=frames, key=place.key, distance=place.distance))
    return tuple(answers)


def measure_latency(folder: Path, names: list[tuple[str, ...]]) -> Latency:
    """Time `Localizer.push` on one thread, from a JPEG to a place; of a pack without frames, on noise."""
    localizer = Localizer(folder, keep_rejected=True, threads=1)
    pictures: list[Picture] = [(folder / TEST / name).read_bytes() for frames in names for name in frames]
    noise: Picture = np.random.default_rng(0).integers(0, 256, (*localizer.manifest.size, 3), np.uint8)
    milliseconds = []
    for picture in islice(cycle(pictures or [noise]), localizer.length + _WARM + ROUNDS):
        started = time.perf_counter()
        localizer.push(picture)
        milliseconds.append(1000 * (time.perf_counter() - started))
    median, high = np.percentile(milliseconds[-ROUNDS:], [50, 95])
    return Latency(
        machine=platform.processor() or platform.machine(),
        threads=1,
        rounds=ROUNDS,
        median_ms=round(float(median), 2),
        p95_ms=round(float(high), 2),
    )


def median_interval(index: PlaceIndex, dataset: Dataset) -> float | None:
    """Median seconds from one frame of a database window to the next, None where frames have no times."""
    rows = dataset.frame_rows(index.sequences.head(_MOST_WINDOWS))
    if rows.shape[1] < 2:
        return None
    times = dataset.frame_columns("time")["time"][rows.ravel()].cast(pl.Float64).to_numpy().reshape(rows.shape)
    seconds = np.diff(times, axis=1) / 1e6
    # Times may be absent, or those of a file's clip that all its frames share.
    moving = seconds[np.isfinite(seconds) & (seconds > 0)]
    return float(np.median(moving)) if len(moving) > seconds.size / 2 else None
