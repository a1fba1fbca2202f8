"""Figures of a dataset: counts, roles, spacing, speed, sizes, schema, and what a protocol expects of it."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, TypeVar

import polars as pl

from seqdata.contracts.protocol import Protocol
from seqdata.contracts.tables import table_contract
from seqdata.dataset.dataset import Dataset
from seqdata.errors import InputError, SeqdataError
from seqdata.protocols import agrees
from seqdata.sequences.sequencer import ROLES, TrackPolicy
from seqdata.storage.parquet import translated
from seqdata.storage.table_cache import local_table

Result = TypeVar("Result")


def describe(dataset: Dataset) -> dict[str, Any]:
    """Describe a dataset in JSON values.

    Returns:
        Identity, counts, sizes in bytes, settings, tables, motion of each (city, role) in metres and seconds, and the
        windows of the protocol's splits; `faults`, a line for each part that could not be read, which is null.
    """
    manifest = dataset.manifest
    faults: list[str] = []
    if dataset.store.is_local:  # of a remote dataset only the tables that are needed are fetched
        for table in manifest.table_files():
            _readable(faults, partial(local_table, dataset.store, table.path, table))
    groups = _readable(faults, lambda: _groups(dataset))
    resampling = None if groups is None else _readable(faults, lambda: _resampling(dataset, groups))
    own = manifest.protocol
    protocol = None if own is None else _readable(faults, partial(protocol_counts, dataset, own))
    return {
        "id": dataset.id,
        "path": dataset.location,
        "schema_version": manifest.schema_version,
        "source": manifest.source.kind,
        "attribution": manifest.source.attribution,
        "frames": manifest.counts.frames,
        "trajectories": manifest.counts.trajectories,
        "quarantined": manifest.counts.quarantined,
        "image_bytes": manifest.counts.image_bytes,
        "shards": len(manifest.shards),
        "shard_bytes": sum(shard.bytes for shard in manifest.shards),
        "table_bytes": sum(table.bytes for table in manifest.table_files()),
        "tables": _tables(dataset),
        "settings": manifest.settings.model_dump(mode="json"),
        "resampling": resampling,
        "groups": groups,
        "protocol": protocol,
        "faults": list(dict.fromkeys(faults)),
    }


def _readable(faults: list[str], read: Callable[[], Result]) -> Result | None:
    """What `read` returns; None where a file cannot be read, with a line in `faults` that names it."""
    try:
        return read()
    except SeqdataError as error:
        faults.append(str(error))
    except OSError as error:
        faults.append(f"{error.filename or 'storage'}: cannot be read ({error.strerror or error})")
    return None


def _tables(dataset: Dataset) -> list[dict[str, Any]]:
    """List every table: name, files, rows, bytes, and the contract it follows with the contract's version."""
    tables = []
    manifest = dataset.manifest
    for name in sorted({*manifest.tables, *manifest.segments}):
        parts = manifest.parts(name)
        contract = name.removesuffix(".parquet").split("-")[0]
        try:
            version = table_contract(contract).version
        except InputError:  # a table of a later program
            version = None
        sizes = {
            "files": len(parts),
            "rows": sum(part.rows for part in parts),
            "bytes": sum(part.bytes for part in parts),
        }
        tables.append({"name": name, **sizes, "contract": contract, "contract_version": version})
    return tables


def _resampling(dataset: Dataset, groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The dataset's spacing rule, how many frames it keeps, and a sentence where frames are sparser than the spacing.

    Nordland at one frame a second, for example, is driven at about 25 m a frame: 2 m removes frames at halts alone.
    """
    settings = dataset.manifest.settings
    frames = sum(group["frames"] for group in groups)
    kept_frames = sum(group["resampled"] for group in groups)
    removed = frames - kept_frames
    medians = [group["spacing_m"]["p50"] for group in groups if group["spacing_m"]]
    note = ""
    if not removed:
        note = f"resampling to {settings.resample_metres:g} m changes nothing: it keeps every frame"
    elif medians and min(medians) > settings.resample_metres:
        with translated(f"{dataset.location}/frames.parquet"):
            standing = _removed_standing(dataset.frames)
        note = (
            f"frames are {min(medians):.4g} m apart or more in the median; resampling to {settings.resample_metres:g} "
            f"m removes {removed} frame{'s' if removed > 1 else ''}, {standing} recorded while standing"
        )
    return {
        "rule": settings.resample_rule,
        "metres": settings.resample_metres,
        "frames": frames,
        "kept": kept_frames,
        "note": note,
    }


def _removed_standing(frames: pl.LazyFrame) -> int:
    """How many of the frames that resampling removes stand still, by the same rule as `motion`."""
    marked = frames.select("trajectory", "position", "track_m", "time", "resampled").with_columns(*_steps())
    removed = marked.filter(~pl.col("resampled")).select(_STILL.sum())
    return int(removed.collect(engine="streaming").item())


def _groups(dataset: Dataset) -> list[dict[str, Any]]:
    """Summarise each (city, role): frames, trajectories, gaps, jumps, resampled frames, spacing and speed."""
    keys = ["city", "role"]
    frames = dataset.frames.group_by(keys).agg(
        pl.len().alias("frames"),
        pl.col("panorama").sum().alias("panoramas"),
        pl.col("resampled").sum(),
        pl.col("length").sum().alias("image_bytes"),
        # A city lies in one zone: its source chooses one for all its frames.
        pl.col("zone").first(),
    )
    trajectories = (
        dataset.trajectories.lazy()
        .group_by(keys)
        .agg(
            pl.len().alias("trajectories"),
            pl.col("gaps").sum(),
            pl.col("jumps").sum(),
            (pl.col("length_m").sum() / 1000).alias("kilometres"),
        )
    )
    with translated(f"{dataset.location}/frames.parquet"):
        joined = frames.join(trajectories, on=keys, nulls_equal=True).collect(engine="streaming")
        # nulls_equal: frames without a role form a group of their own.
        whole = joined.join(motion(dataset.frames), on=keys, nulls_equal=True).sort(keys)
    return [rounded(group) for group in whole.to_dicts()]


def protocol_counts(dataset: Dataset, protocol: Protocol) -> dict[str, Any]:
    """Count the windows of each split and its queries without a positive, beside what the protocol expects.

    Args:
        dataset: The dataset.
        protocol: The protocol.

    Returns:
        Name, hash and length of the protocol, and the counts of each split.
    """
    splits = {}
    for name in protocol.splits:
        expected = protocol.expected_counts.get(name, {})
        counts = split_counts(dataset, protocol, name, {*ROLES, "without_positive", *expected})
        if protocol.heading_max is not None:
            answerable = dataset.answerable(protocol, name, any_heading=True) if all(counts[r] for r in ROLES) else 0
            counts["without_positive_any_heading"] = counts["query"] - answerable
        differs = {key: value for key, value in expected.items() if not agrees(counts.get(key), value)}
        splits[name] = {**counts, "expected": expected, "differs_from_expected": sorted(differs)}
    return {"name": protocol.name, "hash": protocol.hash, "length": protocol.length, "splits": splits}


def split_counts(dataset: Dataset, protocol: Protocol, split: str, names: Collection[str]) -> dict[str, int]:
    """Count what names in a protocol's `expected_counts` mean.

    Args:
        dataset: The dataset.
        protocol: The protocol.
        split: Name of the split.
        names: `database` and `query` (windows), `without_positive` (queries), `<role>_frames`, and `<role>_images` or
            `<role>_images_<city>` (before panoramas are dropped).

    Returns:
        Counts by name; other names have none.

    Raises:
        ContractError: If the protocol has no such split.
    """
    counts = {}
    if {*ROLES, "without_positive"} & set(names):
        windows = {role: dataset.sequences(protocol, split, role).height for role in ROLES}
        counts = {role: windows[role] for role in ROLES if role in names}
    if "without_positive" in names:
        answerable = dataset.answerable(protocol, split) if all(windows.values()) else 0
        counts["without_positive"] = windows["query"] - answerable
    for role in ROLES:
        if f"{role}_frames" in names:
            counts[f"{role}_frames"] = int(dataset.sequencer.frames_of(protocol, split, role).sum())
        counts |= _image_counts(dataset, protocol, split, role, names)
    return counts


def _image_counts(
    dataset: Dataset, protocol: Protocol, split: str, role: str, expected: Collection[str]
) -> dict[str, int]:
    """Count a split's images before panoramas are dropped, in all or in one city, for the names that mean such a count.

    The names are `<role>_images` and `<role>_images_<city>`.
    """
    names = [name for name in expected if name == f"{role}_images" or name.startswith(f"{role}_images_")]
    if not names:
        return {}
    whole = protocol.model_copy(update={"panoramas": "keep"})
    track = dataset.sequencer.track(TrackPolicy.from_protocol(whole).key)
    rows = track["frame"].to_numpy()[dataset.sequencer.frames_of(whole, split, role)]
    cities = dict(dataset.sequencer.frames["city"][rows].value_counts().iter_rows())
    prefix = f"{role}_images_"
    return {name: len(rows) if name == f"{role}_images" else cities.get(name.removeprefix(prefix), 0) for name in names}


TIMED = 10.0  # seconds: longest time between two frames that counts as driving
STANDING_SPEED = 0.5  # metres a second: above the jitter of good poses, far below walking
STANDING_STEP = 0.1  # metres: repeated or nearly repeated fixes
# A frame without a usable time is judged by its step alone.
_STILL = pl.coalesce(pl.col("speed") < STANDING_SPEED, pl.col("step") < STANDING_STEP)

MICROSECONDS = 1_000_000

QUANTILES = {"p5": 0.05, "p50": 0.5, "p95": 0.95, "max": 1.0}


def motion(frames: pl.LazyFrame) -> pl.DataFrame:
    """Measure how the camera moved in each (city, role) of a frames table, streamed.

    Columns: city, role, `spacing_m` and `speed_m_s` (structs of p5, p50, p95, max; null without a step or a time),
    `standing` (struct: frames, share of the frames that have a step, stretches, and seconds where times are known).
    """
    steps = frames.select("city", "role", "trajectory", "position", "track_m", "time").with_columns(*_steps())
    marked = steps.with_columns(_STILL.alias("still")).with_columns(
        (pl.col("still") & ~pl.col("still").shift(1, fill_value=False).fill_null(value=False)).alias("halt")
    )
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


def read_steps(frames: pl.LazyFrame) -> pl.DataFrame:
    """Read the metres `step` and the metres a second `speed` to every frame, in the table's order; null where none."""
    columns = frames.select("trajectory", "position", "track_m", "time").with_columns(*_steps())
    return columns.select("step", "speed").collect()


def _steps() -> list[pl.Expr]:
    """Express metres, seconds and speed of the step to each frame, null where there is none."""
    # A step counts within a trajectory and without a gap in the positions.
    follows = (pl.col("trajectory") == pl.col("trajectory").shift(1)) & (pl.col("position").diff() == 1)
    step = pl.when(follows).then(pl.col("track_m").diff())
    interval = pl.col("time").diff() / MICROSECONDS
    seconds = pl.when(follows & (interval > 0) & (interval <= TIMED)).then(interval)
    return [step.alias("step"), seconds.alias("seconds"), (step / seconds).alias("speed")]


def _quantiles(column: str) -> pl.Expr:
    """Express a struct of `QUANTILES`, null where the column has no value."""
    values = [pl.col(column).quantile(share, "nearest").alias(name) for name, share in QUANTILES.items()]
    return pl.when(pl.col(column).count() > 0).then(pl.struct(values))


def rounded(value: Any) -> Any:
    """Round every float of a JSON value to four decimals."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return round(value, 4) if isinstance(value, float) else value
