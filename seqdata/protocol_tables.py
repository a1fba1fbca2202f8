"""The tables that a build writes for its protocol: one track table, its windows, and each split's positives."""

from pathlib import Path

import polars as pl

from seqdata import truth
from seqdata.protocols import Protocol
from seqdata.sequences import GEOMETRY_COLUMNS, Sequencer, TrackPolicy
from seqdata.storage import write_parquet_atomic


def table_names(protocol: Protocol) -> tuple[str, str]:
    """File names of the protocol's track table and window table."""
    key = TrackPolicy.of_protocol(protocol).key
    shift = "-shift" if protocol.edges == "shift" else ""
    return f"tracks-{key}.parquet", f"sequences-{key}-L{protocol.length}-s{protocol.stride}{shift}.parquet"


def positives_name(protocol: Protocol, split: str) -> str:
    """File name of a split's pairs under a protocol."""
    return f"positives-{protocol.hash}-{split}.parquet"


def stored_radius(protocol: Protocol, split: str) -> float:
    """How far the stored pairs of a split reach: every radius that the protocol names for it."""
    if split == "train":
        return max(protocol.radius, protocol.train.positive_radius, protocol.train.negative_radius)
    return protocol.radius


def write_protocol_tables(out: Path, frames: pl.DataFrame, protocol: Protocol, rule: str) -> None:
    """Write tracks, windows and positives of `protocol` into the dataset folder, replacing an unfinished build's.

    Pairs are kept by least distance out to `stored_radius`, so every rule and smaller radius is a filter; their rows
    are those of `sequences(protocol, split, role)`. Raises: OutputError.
    """
    for pattern in ("tracks-*", "sequences-*", "positives-*", ".*.tmp"):
        for stale in out.glob(pattern):
            stale.unlink()
    sequencer = Sequencer(frames.select(GEOMETRY_COLUMNS), rule)
    policy = TrackPolicy.of_protocol(protocol)
    track_name, sequence_name = table_names(protocol)
    write_parquet_atomic(sequencer.track(policy.key), out / track_name, {"seqdata.table": "tracks"})
    write_parquet_atomic(
        sequencer.windows(policy, protocol.length, protocol.stride, protocol.edges),
        out / sequence_name,
        {"seqdata.table": "sequences"},
    )
    for split in protocol.splits:
        query = sequencer.of_protocol(protocol, split, "query")
        database = sequencer.of_protocol(protocol, split, "database")
        if not query.height or not database.height:
            continue
        truth.write_positives(
            out / positives_name(protocol, split),
            sequencer.window_set(query, protocol.unit),
            sequencer.window_set(database, protocol.unit),
            radius=stored_radius(protocol, split),
            unit=protocol.unit,
            metadata={"seqdata.table": "positives", "protocol": protocol.label, "split": split},
        )
