"""Times in file names as tables, and clips whose frames share one stamp; stamps are read by `name_stamps`.

Convention: int64 microseconds since 1970, UTC.
"""

import polars as pl

from seqdata.sources.folder.name_stamps import read_stamps

# Microseconds from a shared time to the next one: photos of a burst share a second, and the next second follows.
_CLIP_GAP = 2_000_000
_SHARED_AT_LEAST = 3


def stamped_times(names: pl.Series, folders: pl.Series | None = None) -> pl.DataFrame:
    """Read the times in file names.

    Args:
        names: File names without folder and suffix.
        folders: What lies in one folder is written in one way; all in one where None.

    Returns:
        One row a name: `time` (int64 microseconds, null where none stands there) and `numbered` (whether a counter
        follows, as in frames of a clip).
    """
    rows = read_stamps(names.to_list(), None if folders is None else folders.to_list())
    return pl.DataFrame(rows, schema={"time": pl.Int64, "numbered": pl.Boolean}, orient="row")


def shared_times(time: pl.Series, folder: pl.Series, numbered: pl.Series) -> pl.Series:
    """Find frames of a clip that all carry the clip's start as their time.

    Args:
        time: (n,) int64 microseconds, null where unknown.
        folder: (n,) the folder of each image.
        numbered: (n,) bool, whether a counter follows the time in its name.

    Returns:
        (n,) uint32, how many images of the folder share the time, where they cannot all have been taken then; else
        null. Photos of a burst share a second too, but then the next second follows.

    Example:
        >>> times = pl.Series([0, 0, 0, 10_000_000, 11_000_000, 11_000_000])
        >>> shared_times(times, pl.Series(["a"] * 6), pl.Series([True] * 6)).to_list()
        [3, 3, 3, None, None, None]
    """
    # Joined on (folder, time) instead of a window over rows: most drives have no shared time at all.
    rows = pl.DataFrame({"time": time, "folder": folder, "numbered": numbered}).with_row_index("nth")
    moments = rows.drop_nulls("time").group_by("folder", "time").agg(pl.len().alias("count"), pl.col("numbered").any())
    moments = moments.sort("folder", "time").with_columns(
        pl.min_horizontal(
            pl.col("time").diff().over("folder"), (pl.col("time").shift(-1) - pl.col("time")).over("folder")
        ).alias("gap")
    )
    is_clip = (pl.col("gap").fill_null(_CLIP_GAP + 1) > _CLIP_GAP) & (
        (pl.col("count") >= _SHARED_AT_LEAST) | ((pl.col("count") > 1) & pl.col("numbered"))
    )
    clips = moments.filter(is_clip).select("folder", "time", "count")
    return rows.join(clips, on=["folder", "time"], how="left", maintain_order="left")["count"]
