"""Rows of photos that no table lists: their drives from folders, their places from EXIF or from a GPX track.

Convention: a drive is the folder that its photos lie in (`drive` for those on top). Their order before times are looked
at is that of names without suffix, in which numbers count as numbers (2.jpg before 10.jpg). A photo's time is that of
its EXIF, else the stamp in its file name.
"""

from pathlib import Path

import polars as pl

from seqdata.sources.csv_tables import shorten
from seqdata.sources.folder.drives import NO_DRIVE
from seqdata.sources.folder.exif import read_exif
from seqdata.sources.folder.gpx import place_on, read_track
from seqdata.sources.folder.name_times import shared_times, stamped_times
from seqdata.sources.folder.times import show_moment

# Digits; longer runs in a file name count by their last ones.
_WIDEST_NUMBER = 40
_COUNTER = r"^(.*?)(\d+)$"
_ROLLOVER_WIDTHS = (3, 4, 5)


def photo_rows(raw: Path, images: pl.DataFrame) -> pl.DataFrame:
    """List photos with the positions and times of their EXIF.

    Args:
        raw: Folder of the dump.
        images: One row an image, with `source` (path below `raw`).

    Returns:
        One row an image in order of its name: `row` (from 1), `source`, `drive`, `role`, `time`, `clock_error`,
        `latitude`, `longitude`, and `reason` and `message` where there is no position.
    """
    folder = pl.col("source").str.extract(r"^(.*)/[^/]*$").fill_null(NO_DRIVE)
    listed = images.select("source", folder.alias("drive"), pl.lit(None, pl.String).alias("role"))
    rows = read_exif(raw, in_order_of_names(listed).with_row_index("row", offset=1))
    nowhere = pl.col("latitude").is_null() | pl.col("longitude").is_null()
    return _with_fault(rows, [(nowhere, "no_position", pl.lit("no usable GPS position in its EXIF"))])


def track_rows(
    raw: Path, images: pl.DataFrame, path: Path, offset: float, gap: float
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """List photos with their positions on a GPX track.

    Args:
        raw: Folder of the dump.
        images: One row an image, with `source` (path below `raw`).
        path: The GPX track.
        offset: Seconds that are added to each image's time.
        gap: Greatest time between the two points around an image, in seconds.

    Returns:
        Rows as `photo_rows`, in which images without a time of their own, outside the track, or in a gap of it have no
        position, but a `reason` and a `message`; and notes about the track for the user.

    Raises:
        InputError: If the track cannot be used.
    """
    track = read_track(path)
    rows = photo_rows(raw, images)
    stamps = stamped_times(rows["source"].str.extract(r"([^/]*)\.[^./]*$").fill_null(""), rows["drive"])
    time = rows["time"].fill_null(stamps["time"])
    shared = shared_times(time, rows["drive"], rows["time"].is_null() & stamps["numbered"])
    time = time + round(offset * 1e6)
    # Images without a time are looked up too, at 1970, and get no position from it below.
    positions = place_on(track, time.fill_null(0).to_numpy(), gap)
    usable = pl.lit(time.is_not_null() & shared.is_null())
    timed = rows.with_columns(
        time.alias("time"),
        pl.when(usable).then(pl.Series(positions.latitude).fill_nan(None)).alias("latitude"),
        pl.when(usable).then(pl.Series(positions.longitude).fill_nan(None)).alias("longitude"),
    )
    first, last = (show_moment(int(moment)) for moment in (track.time[0], track.time[-1]))
    is_shared = pl.lit(shared.is_not_null())
    faults = [
        (pl.lit(time.is_null()), "no_time", pl.lit("neither its EXIF nor its file name says when it was taken")),
        (
            is_shared,
            "no_time",
            pl.format(
                "{} images of the drive have this one time, as frames of a clip that is named by its start; name each "
                "by its own time",
                pl.lit(shared),
            ),
        ),
        (
            pl.lit(pl.Series(positions.outside)),
            "outside_track",
            pl.lit(
                f"taken outside {path.name} ({first} to {last}); a camera clock in local time needs time_offset, in "
                "seconds"
            ),
        ),
        (
            pl.lit(pl.Series(positions.in_gap)),
            "pose_gap",
            pl.lit(f"the points of {path.name} around it are more than {gap:g} s apart, or of two segments"),
        ),
    ]
    # A shared time orders nothing either: it is no time of the photo.
    rows = _with_fault(timed, faults).with_columns(pl.when(~is_shared).then("time").alias("time"))
    return rows, track.notes(path.name)


def clock_notes(rows: pl.DataFrame) -> tuple[str, ...]:
    """Say of each drive whose camera clock is off by itself by how much, and that GPS time is used instead."""
    wrong = rows.filter(pl.col("clock_error").is_not_null()).group_by("drive").agg(pl.col("clock_error").first())
    return tuple(
        f"drive '{shorten(drive)}': the camera's clock is {_duration(abs(error))} "
        f"{'ahead of' if error > 0 else 'behind'} its GPS clock; GPS time is used"
        for drive, error in wrong.sort("drive").iter_rows()
    )


def _duration(microseconds: int) -> str:
    """A span as people say it."""
    minutes, seconds = divmod(round(microseconds / 1e6), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min {seconds} s" if hours else f"{minutes} min {seconds} s"


def _with_fault(rows: pl.DataFrame, faults: list[tuple[pl.Expr, str, pl.Expr]]) -> pl.DataFrame:
    """Set reason and message from the first fault that holds; null where none does."""
    reason = pl.coalesce(pl.when(holds).then(pl.lit(code)) for holds, code, _ in faults)
    message = pl.coalesce(pl.when(holds).then(text) for holds, _, text in faults)
    return rows.with_columns(reason.alias("reason"), message.alias("message"))


def in_order_of_names(listed: pl.DataFrame) -> pl.DataFrame:
    """Sort photos by their names without suffix (`X.jpg` before `X (1).jpg`), counters that roll over in one run.

    A camera counts DSC_9998, DSC_9999, DSC_0001: where a drive's counter uses both ends of its digits and leaves a hole
    between, what lies before the hole was taken last.
    """
    stem = pl.col("source").str.replace(r"\.[^./]*$", "")
    parts = stem.str.extract_groups(_COUNTER).struct
    names = listed.with_columns(
        stem.alias("stem"),
        parts.field("1").alias("prefix"),
        parts.field("2").str.len_chars().cast(pl.Int64).alias("width"),
        parts.field("2").str.slice(-18).cast(pl.Int64).alias("counter"),
    )
    # Only cameras' own counters: times and dates in names have more digits.
    counted = names.filter(pl.col("width").is_in(_ROLLOVER_WIDTHS)).sort("prefix", "width", "counter")
    step = pl.col("counter").diff().over("prefix", "width")
    holes = (
        counted.with_columns(step.alias("step"))
        .group_by("prefix", "width")
        .agg(
            pl.col("counter").min().alias("least"),
            pl.col("counter").max().alias("greatest"),
            pl.col("step").max(),
            pl.col("counter").filter(pl.col("step") == pl.col("step").max()).first().alias("after_hole"),
        )
    )
    full = pl.lit(10).pow(pl.col("width"))
    rolled = holes.filter(pl.col("least") <= 1, pl.col("greatest") == full - 1, pl.col("step") > 1)
    joined = names.join(rolled, on=["prefix", "width"], how="left", maintain_order="left")
    later = (pl.col("prefix") + (pl.col("counter") + full).cast(pl.Int64).cast(pl.String)).alias("stem")
    key = pl.when(pl.col("counter") < pl.col("after_hole")).then(later).otherwise(pl.col("stem"))
    return joined.sort(_natural(key), _natural(pl.col("stem")), "source").select(listed.columns)


def _natural(name: pl.Expr) -> pl.Expr:
    """A text that sorts as `name` does when runs of digits count as numbers."""
    # Numbers of equal width sort as text: zeros are put before each, and its last digits are cut off.
    zeros = "0" * _WIDEST_NUMBER
    return name.str.replace_all(r"(\d+)", zeros + "$1").str.replace_all(rf"\d*(\d{{{_WIDEST_NUMBER}}})", "$1")
