"""The image-folder tree that the SeqVLAD reference code reads: `<role>/<sequence>/@easting@northing@…@.jpg`.

*Convention*: a name is `@easting@northing@sequence@frame@key@city@timestamp@.jpg`: UTM metres with seven digits and two
decimals (southern northings with the false northing, as `utm.from_latlon` gives them), timestamp YYYYMMDD_hhmmss in UTC
or nothing. That code splits names at `@` and reads fields 1, 2 and 4; frames whose numbers differ by one may share a
sequence. Numbers count the exported frames of a trajectory, with one left out wherever no window crosses, so it cuts
the same windows again (all of a stride-1 table with an odd length; of an even length it leaves out the first window
of each stretch).

Source: github.com/vandal-vpr/vg-transformers, main_scripts/msls/1_reformat_mapillary.py (names and tree) and
tvg/datasets/dataset.py (how they are read).
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from seqdata.dataset.dataset import Dataset
from seqdata.dataset.export.tars import suffix_of
from seqdata.storage.files import atomic_path
from seqdata.storage.hashing import xxh3_hex

FRAMES_AT_ONCE = 128  # frames read together; bounds memory
_UNSAFE = r"[^A-Za-z0-9._-]+"
_LONGEST = 60


def write_folders(dataset: Dataset, table: pl.DataFrame, place: Path, report_progress: Callable[[int], None]) -> None:
    """Write every frame of some windows once, as the bytes that are stored; whole files that are there already stay.

    Args:
        dataset: The dataset.
        table: Window table (contract `sequences`).
        place: Folder of one split and role.
        report_progress: Called with the number of windows that are finished.
    """
    named = _names(dataset, table)
    reader = dataset.frame_reader()
    for folder in named["folder"].unique():
        (place / folder).mkdir(parents=True, exist_ok=True)
    for part in named.iter_slices(FRAMES_AT_ONCE):
        rows = part["row"].to_numpy()
        images = reader.encoded(rows)
        for row, folder, name in part.select("row", "folder", "name").iter_rows():
            _write_once(place / folder / f"{name}.{suffix_of(images[row])}", images[row])
        report_progress(int(part["windows"].item(-1)))


def _write_once(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all, unless an interrupted export has written it."""
    # After a power cut a name may be there without its bytes, for files are flushed all together at the end.
    if path.is_file() and path.read_bytes() == data:
        return
    with atomic_path(path, in_batch=True) as temporary:
        temporary.write_bytes(data)


def _names(dataset: Dataset, table: pl.DataFrame) -> pl.DataFrame:
    """Name each exported frame: row, folder, name without suffix, and how many windows end at or before it."""
    used, joined, ending = _marks(dataset, table)
    rows = np.flatnonzero(used)
    frames = dataset.frame_columns("key", "trajectory", "city", "easting", "northing", "time")[rows]
    # Names of trajectories and cities repeat for every frame, so that each is made safe once.
    safe = {text: _safe(text) for name in ("trajectory", "city") for text in frames[name].unique().to_list()}
    # One number is left out wherever no window joins two frames, which is where the reading code breaks sequences.
    after_break = np.concatenate([[False], ~joined[rows[:-1]]])
    numbered = frames.with_columns(
        pl.col("trajectory", "city").replace_strict(safe),
        pl.col("key").str.replace_all(_UNSAFE, "_"),
        pl.Series("step", 1 + after_break),
        pl.Series("row", rows),
        pl.Series("windows", np.cumsum(ending[rows])),
    ).with_columns((pl.col("step").cum_sum() - pl.col("step").first()).over("trajectory").alias("number"))
    stamp = pl.from_epoch("time", time_unit="us").dt.strftime("%Y%m%d_%H%M%S").fill_null("")
    name = pl.format(
        "@{}@{}@{}@{}@{}@{}@{}@", _metres("easting"), _metres("northing"), "trajectory", "number", "key", "city", stamp
    )
    return numbered.select("row", "windows", pl.col("trajectory").alias("folder"), name.alias("name"))


def _metres(name: str) -> pl.Expr:
    """A coordinate with seven digits and two decimals, rounded to the centimetre."""
    # Whole centimetres as integers: the text of a float has as many digits as it likes.
    cents = (pl.col(name) * 100).round().cast(pl.Int64)
    return pl.format("{}.{}", (cents // 100).cast(pl.String).str.zfill(7), (cents % 100).cast(pl.String).str.zfill(2))


def _marks(dataset: Dataset, table: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mark every frame of the dataset: used, in one window with the next used frame; count windows that end there."""
    count = len(dataset.frame_reader().locations.length)
    used, joined, ending = np.zeros(count, bool), np.zeros(count, bool), np.zeros(count, np.int64)
    for part in table.iter_slices(100_000):
        frame_rows = dataset.frame_rows(part)
        used[frame_rows] = True
        joined[frame_rows[:, :-1]] = True
        # add.at and not +=: several windows may end at one frame, and += would count them once.
        np.add.at(ending, frame_rows[:, -1], 1)
    return used, joined, ending


def _safe(text: str) -> str:
    """A text without @, comma, slash or blank, at most 60 characters; one that had to change keeps a hash of itself."""
    safe = re.sub(_UNSAFE, "_", text)
    if safe == text and len(safe) <= _LONGEST:
        return text
    return f"{safe[:_LONGEST]}-{xxh3_hex(text.encode())[:8]}"
