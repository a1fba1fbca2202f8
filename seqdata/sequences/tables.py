"""The tables of a protocol: one track table, its windows, each split's positives and nearest distances.

A build writes them beside the frames; `seqdata sequences` adds those of other protocols to a sealed dataset.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from seqdata.contracts.protocol import Protocol
from seqdata.errors import ContractError
from seqdata.sequences import positives as truth
from seqdata.sequences.nearest import nearest
from seqdata.sequences.sequencer import Sequencer, TrackPolicy
from seqdata.storage.parquet import read_metadata, write_parquet_atomic

# How far stored pairs reach at least, in the protocol's unit: the field's usual radius, so that the usual questions are
# answered from the stored table.
MAX_RADIUS = 25.0


@dataclass(frozen=True)
class PlannedTable:
    """A table to be written.

    Attributes:
        name: Its file name.
        write: Writes it to a path.
        split: For pairs, their split.
        radius: For pairs, how far they reach, in the protocol's unit.
    """

    name: str
    write: Callable[[Path], None]
    split: str = ""
    radius: float = 0.0


def track_name(key: str) -> str:
    """Name the file of the track table of a key."""
    return f"tracks-{key}.parquet"


def table_names(protocol: Protocol) -> tuple[str, str]:
    """Name the files of the protocol's track table and window table."""
    key = TrackPolicy.from_protocol(protocol).key
    shift = "-shift" if protocol.edges == "shift" else ""
    return track_name(key), f"sequences-{key}-L{protocol.length}-s{protocol.stride}{shift}.parquet"


def positives_name(protocol: Protocol, split: str) -> str:
    """Name the file of a split's pairs under a protocol."""
    return f"positives-{protocol.hash}-{split}.parquet"


def nearest_name(protocol: Protocol, split: str) -> str:
    """Name the file of the nearest distances of a split's queries."""
    return f"nearest-{protocol.hash}-{split}.parquet"


def stored_radius(protocol: Protocol, split: str) -> float:
    """Return the greatest radius that a protocol names for a split, in its unit."""
    if split == "train":
        return max(protocol.radius, protocol.train.positive_radius, protocol.train.negative_radius)
    return protocol.radius


def reach(path: Path, protocol: Protocol, split: str) -> float:
    """Read how far the pairs of a stored table reach; tables of the first release reach the protocol's own radii.

    Raises:
        ContractError: When the table is damaged.
    """
    text = read_metadata(path).get("radius", stored_radius(protocol, split))
    try:
        return float(text)
    except ValueError as error:
        raise ContractError(f"{path}: its radius '{text}' is no number; run seqdata verify") from error


def planned_tables(sequencer: Sequencer, protocol: Protocol, max_radius: float | None = None) -> Iterator[PlannedTable]:
    """Yield the tables of a protocol, one at a time; a split with an empty role has no pairs.

    Rows of the pairs are those of `Sequencer.protocol_windows(protocol, split, role)`. Memory: one split's window
    tables, and what `write_positives` needs.

    Args:
        sequencer: Windows over the frames.
        protocol: The protocol.
        max_radius: How far pairs reach by least distance where that is farther than the protocol's radii, in its unit;
            default 25. Every rule and smaller radius is then a filter.

    Raises:
        ContractError: As `Sequencer.protocol_windows`.
    """
    policy = TrackPolicy.from_protocol(protocol)
    protocol.check_rule(sequencer.rule)
    track_name, sequence_name = table_names(protocol)
    yield PlannedTable(track_name, lambda path: _write(path, sequencer.track(policy.key), "tracks"))
    windows = sequencer.windows(policy, protocol.length, protocol.stride, protocol.edges)
    yield PlannedTable(sequence_name, lambda path: _write(path, windows, "sequences"))
    for split in protocol.splits:
        yield from _truth_tables(sequencer, protocol, split, MAX_RADIUS if max_radius is None else max_radius)


def _truth_tables(sequencer: Sequencer, protocol: Protocol, split: str, max_radius: float) -> Iterator[PlannedTable]:
    """The pairs and the nearest distances of one split."""
    query, database = (
        sequencer.window_set(sequencer.protocol_windows(protocol, split, role), protocol.unit)
        for role in ("query", "database")
    )
    if not len(query) or not len(database):
        return
    radius = max(stored_radius(protocol, split), max_radius)
    labels = {"protocol": protocol.label, "split": split}
    metadata = {"seqdata.table": "positives", **labels, "radius": repr(radius)}

    def write_pairs(path: Path) -> None:
        truth.write_positives(path, query, database, radius=radius, unit=protocol.unit, metadata=metadata)

    yield PlannedTable(positives_name(protocol, split), write_pairs, split, radius)
    yield PlannedTable(
        nearest_name(protocol, split), lambda path: _write(path, nearest(query, database), "nearest", **labels)
    )


def _write(path: Path, table: pl.DataFrame, kind: str, **labels: str) -> None:
    write_parquet_atomic(table, path, {"seqdata.table": kind, **labels})
