"""How the camera moved: spacing, speed and standing still, a (city, role) at a time.

*Convention*: a step is from one frame to the next of a trajectory whose position is one higher; across a gap there is
none. A speed is a step's metres over its seconds, where both frames have a time at most `TIMED` seconds apart (dates
without a time of day give no speed). A frame is *standing* when the step to it is slower than `STANDING_SPEED`, or,
where there is no speed, shorter than `STANDING_STEP`; a standing stretch is an unbroken row of such frames.
"""

from typing import Any

import polars as pl

TIMED = 10.0
"""Longest time between two frames that is taken as driving, in seconds."""
STANDING_SPEED = 0.5
"""Metres a second: above the jitter of good poses, far below walking."""
STANDING_STEP = 0.1
"""Metres: repeated or nearly repeated fixes."""
MICROSECONDS = 1_000_000
QUANTILES = {"p5": 0.05, "p50": 0.5, "p95": 0.95, "max": 1.0}


def motion(frames: pl.LazyFrame) -> pl.DataFrame:
    """One row a (city, role) of a frames table, streamed.

    Columns: city, role, `spacing_m` and `speed_m_s` (structs of p5, p50, p95, max; null without a step or a time),
    `standing` (struct: frames, share of the frames that have a step, stretches, and seconds where times are known).
    """
    steps = frames.select("city", "role", "trajectory", "position", "track_m", "time").with_columns(*_steps())
    marked = steps.with_columns(
        pl.coalesce(pl.col("speed") < STANDING_SPEED, pl.col("step") < STANDING_STEP).alias("still")
    ).with_columns((pl.col("still") & ~pl.col("still").shift(1, fill_value=False).fill_null(value=False)).alias("halt"))
    grouped = marked.group_by("city", "role").agg(
        _quantiles("step").alias("spacing_m"),
        _quantiles("speed").alias("speed_m_s"),
        pl.struct(
            pl.col("still").sum().alias("frames"),
            pl.col("still").mean().alias("share"),
            pl.col("halt").sum().alias("stretches"),
            pl.when(pl.col("seconds").count() > 0)
            .then(pl.col("seconds").filter(pl.col("still")).sum())
            .alias("seconds"),
        ).alias("standing"),
    )
    return grouped.sort("city", "role", nulls_last=True).collect(engine="streaming")


def _steps() -> list[pl.Expr]:
    """Metres, seconds and speed of the step to each frame, null where there is none."""
    follows = (pl.col("trajectory") == pl.col("trajectory").shift(1)) & (pl.col("position").diff() == 1)
    step = pl.when(follows).then(pl.col("track_m").diff())
    apart = pl.col("time").diff() / MICROSECONDS
    seconds = pl.when(follows & (apart > 0) & (apart <= TIMED)).then(apart)
    return [step.alias("step"), seconds.alias("seconds"), (step / seconds).alias("speed")]


def _quantiles(column: str) -> pl.Expr:
    """A struct of `QUANTILES`, null where the column has no value."""
    values = [pl.col(column).quantile(share, "nearest").alias(name) for name, share in QUANTILES.items()]
    return pl.when(pl.col(column).count() > 0).then(pl.struct(values))


def rounded(value: Any) -> Any:
    """The same JSON value with every float rounded to four decimals."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return round(value, 4) if isinstance(value, float) else value
