"""Rows of photos that no table lists: their drives from folders, their places from EXIF or from a GPX track.

Convention: a drive is the folder that its photos lie in (`drive` for those on top). Their order before times are looked
at is that of names, in which numbers count as numbers (2.jpg before 10.jpg). A photo's time is that of its EXIF, else
the stamp in its file name.
"""

from pathlib import Path

import polars as pl

from seqdata.sources.folder.drives import NO_DRIVE
from seqdata.sources.folder.exif import read_exif
from seqdata.sources.folder.gpx import place_on, read_track
from seqdata.sources.folder.times import show_moment, stamped_times

_WIDEST_NUMBER = 40
"""Digits; longer runs in a file name count by their last ones."""


def photo_rows(raw: Path, images: pl.DataFrame) -> pl.DataFrame:
    """A row for each image below `raw` (`images` needs `source`): row, source, drive, role, time, latitude, longitude.

    Places are those of EXIF; where there is none, `reason` and `message` say so.
    """
    folder = pl.col("source").str.extract(r"^(.*)/[^/]*$").fill_null(NO_DRIVE)
    listed = images.select("source", folder.alias("drive"), pl.lit(None, pl.String).alias("role"))
    ordered = listed.sort(_natural(pl.col("source")), "source").with_row_index("row", offset=1)
    rows = read_exif(raw, ordered)
    nowhere = pl.col("latitude").is_null() | pl.col("longitude").is_null()
    return _with_fault(rows, [(nowhere, "no_position", "no usable GPS position in its EXIF")])


def track_rows(raw: Path, images: pl.DataFrame, path: Path, offset: float, gap: float) -> pl.DataFrame:
    """As `photo_rows`, but placed on the GPX track `path` by time: `offset` seconds are added to that of each image.

    Images without a time, outside the track, or where two of its points are more than `gap` seconds apart have no place
    but a `reason` and a `message`. Raises: InputError when the track cannot be used.
    """
    track = read_track(path)
    rows = photo_rows(raw, images)
    stamped = stamped_times(rows["source"].str.extract(r"([^/]*)\.[^./]*$"))
    time = pl.coalesce("time", stamped) + round(offset * 1e6)
    timed = rows.with_columns(time.alias("time"))
    placed = place_on(track, timed["time"].fill_null(0).to_numpy(), gap)
    no_time = pl.col("time").is_null()
    degrees = {name: pl.Series(getattr(placed, name)).fill_nan(None) for name in ("latitude", "longitude")}
    timed = timed.with_columns(pl.when(~no_time).then(values).alias(name) for name, values in degrees.items())
    first, last = (show_moment(int(moment)) for moment in (track.time[0], track.time[-1]))
    outside = (
        f"taken outside {path.name} ({first} to {last}); a camera clock in local time needs time_offset, in seconds"
    )
    apart = f"the points of {path.name} around it are more than {gap:g} s apart, or of two segments"
    faults = [
        (no_time, "no_time", "neither its EXIF nor its file name says when it was taken"),
        (pl.lit(pl.Series(placed.outside)), "outside_track", outside),
        (pl.lit(pl.Series(placed.in_gap)), "pose_gap", apart),
    ]
    return _with_fault(timed, faults)


def _with_fault(rows: pl.DataFrame, faults: list[tuple[pl.Expr, str, str]]) -> pl.DataFrame:
    """Set reason and message from the first fault that holds; null where none does."""
    reason = pl.coalesce(pl.when(holds).then(pl.lit(code)) for holds, code, _ in faults)
    message = pl.coalesce(pl.when(holds).then(pl.lit(text)) for holds, _, text in faults)
    return rows.with_columns(reason.alias("reason"), message.alias("message"))


def _natural(name: pl.Expr) -> pl.Expr:
    """A text that sorts as `name` does when runs of digits count as numbers."""
    zeros = "0" * _WIDEST_NUMBER
    return name.str.replace_all(r"(\d+)", zeros + "$1").str.replace_all(rf"\d*(\d{{{_WIDEST_NUMBER}}})", "$1")
