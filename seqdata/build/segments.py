"""Segments: what an append or a withdrawal writes beside the tables of the version before, instead of whole tables.

`seqdata.contracts.dataset_tables` lists them and reads both as one table.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from seqdata.build.tables import Draft, Summary, Tables, sequencer, write_rows
from seqdata.contracts.dataset_tables import NUMBERING_NAME, frames_table
from seqdata.contracts.manifest import FRAMES_NAME, DatasetManifest, TableInfo
from seqdata.contracts.protocol import Protocol
from seqdata.geometry import BoolArray, IntArray
from seqdata.sequences.new_pairs import NumberedWindows, new_pairs
from seqdata.sequences.positives import write_blocks
from seqdata.sequences.sequencer import GEOMETRY_COLUMNS, ROLES, Sequencer
from seqdata.sequences.tables import MAX_RADIUS, positives_name, reach, stored_radius
from seqdata.sequences.window_numbers import (
    Side,
    SplitWindows,
    WindowNumbers,
    renumber,
    stored_numbers,
    to_table,
)
from seqdata.storage.table_cache import local_table

# These tables grow by segments; all others follow from the frames, and segmented versions have none.
_GROWING = (FRAMES_NAME, "trajectories.parquet", "quarantine.parquet", "positives-")


def join_tables(
    before: DatasetManifest | None, infos: Mapping[str, TableInfo]
) -> tuple[dict[str, TableInfo], dict[str, tuple[TableInfo, ...]]]:
    """Give the fields `tables` and `segments` of a new manifest.

    Args:
        before: Manifest of the version that the tables are segments of; None where they are whole.
        infos: The tables that were written, by name.
    """
    if before is None:
        return dict(sorted(infos.items())), {}
    segments = dict(before.segments)
    for name, info in infos.items():
        # The numbering is small and written whole each time: only the last one holds.
        segments[name] = (info,) if name == NUMBERING_NAME else (*segments.get(name, ()), info)
    whole = {name: info for name, info in before.tables.items() if name.startswith(_GROWING)}
    return whole, dict(sorted(segments.items()))


@dataclass(frozen=True)
class Ground:
    """Frames that windows are cut from.

    Attributes:
        cutter: Windows over the frames.
        stored_rows: Stored row of each frame, int64 (F,).
    """

    cutter: Sequencer
    stored_rows: IntArray

    @classmethod
    def of_frames(cls, frames: pl.DataFrame, stored_rows: IntArray, draft: Draft) -> "Ground":
        """Make it of the columns `GEOMETRY_COLUMNS`, F rows, with the spacing rule of a version."""
        return cls(sequencer(frames, draft), stored_rows)

    def windows(self, protocol: Protocol, split: str, role: str) -> SplitWindows:
        """Cut the windows of a split and role."""
        return SplitWindows(self.cutter, self.stored_rows, self.cutter.protocol_windows(protocol, split, role))


@dataclass(frozen=True)
class GroundChange:
    """Trajectories whose frames changed or are new.

    Attributes:
        names: Their names.
        before: Their frames as they were; None where they are new.
        altered: Their frames as they are; None where none is left.
        after: All frames of the new version.
    """

    names: tuple[str, ...]
    before: Ground | None
    altered: Ground | None
    after: Ground

    def touches(self, protocol: Protocol, split: str, role: str) -> bool:
        """Whether the trajectories had or have windows in a split and role."""
        sides = [side for side in (self.before, self.altered) if side is not None]
        return any(side.windows(protocol, split, role).table.height for side in sides)


def add_frames(tables: Tables, before: DatasetManifest, parts: Iterable[pl.DataFrame], draft: Draft) -> Summary:
    """Write the segments of an append: frames, trajectories, numbering, and pairs with a new window.

    Args:
        tables: The tables of the new version.
        before: Manifest of the version before.
        parts: The new frames, in parts of whole trajectories.
        draft: What the version's manifest will say.

    Returns:
        Counts over the new frames alone.
    """
    frames = frames_table(tables.store, before)
    summary = write_rows(tables, parts, draft, frames.stored_height)
    new = summary.geometry
    if new is not None:
        # Old frames come first: frame rows of the version before stay what they are.
        every = pl.concat([frames.scan().select(GEOMETRY_COLUMNS).collect(), new])
        new_rows = frames.stored_height + np.arange(summary.frames)
        rows = np.concatenate([frames.stored_rows(np.arange(frames.height)), new_rows])
        after, altered = Ground.of_frames(every, rows, draft), Ground.of_frames(new, new_rows, draft)
        write_pairs(tables, before, draft, GroundChange(tuple(new["trajectory"].unique()), None, altered, after))
    return summary


def write_pairs(tables: Tables, before: DatasetManifest, draft: Draft, change: GroundChange) -> None:
    """Write the numbering of a version's windows, and the pairs of those that are new.

    Args:
        tables: The tables of the new version.
        before: Manifest of the version before.
        draft: What the version's manifest will say.
        change: What changed.
    """
    protocol = draft.protocol
    if protocol is None:
        return
    numbers = stored_numbers(tables.store, before)
    for split in protocol.splits:
        # All windows are cut only where some changed: a city's change costs nothing in the other splits.
        touched = [role for role in ROLES if change.touches(protocol, split, role)]
        sides = {role: _renumbered(numbers, change, protocol, split, role) for role in touched}
        numbers |= {(split, role): numbered for role, (_, numbered, _) in sides.items()}
        if any(is_new.any() for _, _, is_new in sides.values()):
            sides |= {role: _as_before(numbers, change, protocol, split, role) for role in ROLES if role not in touched}
            query, database = (
                NumberedWindows(change.after.cutter.window_set(table, protocol.unit), numbered.numbers, is_new)
                for table, numbered, is_new in (sides["query"], sides["database"])
            )
            _write_new_pairs(tables, before, draft, split, query, database)
    if numbers:
        tables.write(NUMBERING_NAME, to_table(numbers), {"seqdata.table": "numbering"})


Numbered = tuple[pl.DataFrame, WindowNumbers, BoolArray]
"""A window table, the numbers of its windows, and whether each is new."""


def _renumbered(
    numbers: Mapping[Side, WindowNumbers], change: GroundChange, protocol: Protocol, split: str, role: str
) -> Numbered:
    """Number the windows of a split and role of which some changed."""
    windows = change.after.windows(protocol, split, role)
    previous = None if change.before is None else change.before.windows(protocol, split, role)
    return windows.table, *renumber(numbers.get((split, role)), previous, windows, change.names)


def _as_before(
    numbers: Mapping[Side, WindowNumbers], change: GroundChange, protocol: Protocol, split: str, role: str
) -> Numbered:
    """Give the windows of a split and role of which none changed their numbers: where none are stored, their rows."""
    table = change.after.windows(protocol, split, role).table
    numbered = numbers.get((split, role), WindowNumbers.first(table.height))
    return table, numbered, np.zeros(table.height, dtype=bool)


def _write_new_pairs(
    tables: Tables,
    before: DatasetManifest,
    draft: Draft,
    split: str,
    query: NumberedWindows,
    database: NumberedWindows,
) -> None:
    """Write the pairs of a split that have a new window, out to where the stored ones reach."""
    protocol = draft.protocol
    if protocol is None or not len(query.numbers) or not len(database.numbers):
        return
    name = positives_name(protocol, split)
    paths = [local_table(tables.store, part.path, part) for part in before.parts(name)]
    farthest = MAX_RADIUS if draft.settings.max_radius is None else draft.settings.max_radius
    reaches = [reach(path, protocol, split) for path in paths] or [max(stored_radius(protocol, split), farthest)]
    radius = min(reaches)
    labels = {"seqdata.table": "positives", "protocol": protocol.label, "split": split, "radius": repr(radius)}
    with tables.writing(name) as temporary:
        write_blocks(temporary, new_pairs(query, database, radius, protocol.unit), labels)
