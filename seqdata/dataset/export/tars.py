"""Classic webdataset tars: one sample a window, `<number>.000.jpg … <number>.json`, as in one-sample-a-sequence sets.

Overlapping windows repeat their frames, so such tars are about L times the dataset: use the shards themselves with
`seqdata.windows(length)` where the reader can.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from seqdata.dataset.dataset import Dataset
from seqdata.storage.files import atomic_path
from seqdata.storage.tar import TarWriter

WINDOWS_AT_ONCE = 32  # windows whose images are read together; bounds memory
_PNG = b"\x89PNG"
_COLUMNS = ("key", "position", "latitude", "longitude", "easting", "northing", "zone", "time")


def suffix_of(image: bytes) -> str:
    """Tell the suffix of stored bytes, png or jpg, by their signature."""
    return "png" if image.startswith(_PNG) else "jpg"


def write_tars(
    dataset: Dataset, table: pl.DataFrame, place: Path, shard_bytes: int, report_progress: Callable[[int], None]
) -> None:
    """Write windows to `part-000000.tar …`, in the order of their table; tars that are there already stay.

    A sample's JSON holds trajectory, city, split, role, and for each frame `keys`, `positions`, `latitude`,
    `longitude` (degrees), `easting`, `northing` (metres), `zone` and `time` (microseconds since 1970, UTC).

    Convention: frames in driving order; a tar ends with the window that reaches `shard_bytes`.

    Args:
        dataset: The dataset.
        table: Window table (contract `sequences`).
        place: Folder of one split and role.
        shard_bytes: Bytes of images of a tar.
        report_progress: Called with the number of windows that are finished.
    """
    for number, (start, stop) in enumerate(_cuts(dataset, table, shard_bytes)):
        path = place / f"part-{number:06d}.tar"
        if not path.is_file():
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                tar = TarWriter(file)
                for first in range(start, stop, WINDOWS_AT_ONCE):
                    _write_windows(dataset, table[first : min(stop, first + WINDOWS_AT_ONCE)], first, tar)
                tar.finish()
        report_progress(stop)


def _cuts(dataset: Dataset, table: pl.DataFrame, shard_bytes: int) -> list[tuple[int, int]]:
    """Cut the table into the rows [start, stop) of each tar."""
    lengths = dataset.frame_reader().locations.length
    parts = [lengths[dataset.frame_rows(part)].sum(axis=1) for part in table.iter_slices(100_000)]
    before = np.concatenate([[0], np.cumsum(np.concatenate(parts))[:-1]])
    # A tar begins where the bytes before a window pass another multiple of the size: the cuts follow from the table
    # alone, so a continued export makes the same tars.
    starts = np.flatnonzero(np.diff(before // shard_bytes, prepend=-1)).tolist()
    return list(zip(starts, [*starts[1:], table.height], strict=True))


def _write_windows(dataset: Dataset, windows: pl.DataFrame, first: int, tar: TarWriter) -> None:
    frame_rows = dataset.frame_rows(windows)
    reader = dataset.frame_reader()
    images = reader.encoded(frame_rows.ravel())
    fields = dataset.frame_columns(*_COLUMNS)
    labels = windows.select("trajectory", "city", "split", "role").to_dicts()
    for number, (rows, of_window) in enumerate(zip(frame_rows, labels, strict=True), first):
        for index, row in enumerate(rows.tolist()):
            tar.add(f"{number:09d}.{index:03d}.{suffix_of(images[row])}", images[row])
        tar.add(f"{number:09d}.json", _sample_json(of_window, fields[rows]))


def _sample_json(of_window: dict[str, Any], frames: pl.DataFrame) -> bytes:
    columns = frames.rename({"key": "keys", "position": "positions"}).to_dict(as_series=False)
    # A window lies in one zone, because a city does.
    columns["zone"] = columns["zone"][0]
    return json.dumps({**of_window, **columns}, separators=(",", ":"), ensure_ascii=False).encode()
