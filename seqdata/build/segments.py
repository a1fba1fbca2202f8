"""Segments: what an append or a withdrawal writes beside the tables of the version before, instead of whole tables.

`seqdata.contracts.dataset_tables` lists them and reads both as one table.
"""

from collections.abc import Collection, Iterable, Mapping
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
from seqdata.sequences.window_numbers import SplitWindows, WindowNumbers, renumber, stored_numbers, to_table
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
        frames: Columns `GEOMETRY_COLUMNS`, one row a frame.
        stored: Stored row of each, int64 (F,).
    """

    frames: pl.DataFrame
    stored: IntArray

    def select(self, mask: pl.Series) -> "Ground":
        """Select frames by a bool each."""
        return Ground(self.frames.filter(mask), self.stored[mask.to_numpy()])


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
    summary = write_rows(tables, parts, draft, frames.stored)
    if summary.geometry is not None:
        old = frames.scan().select(GEOMETRY_COLUMNS).collect()
        # Old frames come first: frame rows of the version before stay what they are.
        stored = np.concatenate(
            [frames.stored_rows(np.arange(frames.height)), frames.stored + np.arange(summary.frames)]
        )
        names = summary.geometry["trajectory"].unique().to_list()
        write_pairs(tables, before, draft, None, Ground(pl.concat([old, summary.geometry]), stored), names)
    return summary


def write_pairs(
    tables: Tables,
    before: DatasetManifest,
    draft: Draft,
    changed: Ground | None,
    after: Ground,
    names: Collection[str],
) -> None:
    """Write the numbering of a version's windows, and the pairs of those that are new.

    Args:
        tables: The tables of the new version.
        before: Manifest of the version before.
        draft: What the version's manifest will say.
        changed: The frames that the trajectories `names` had before; None where these are new.
        after: All frames of the new version.
        names: Trajectories whose frames changed or are new.
    """
    protocol = draft.protocol
    if protocol is None:
        return
    numbers = stored_numbers(tables.store, before)
    old, new = None if changed is None else sequencer(changed.frames, draft), sequencer(after.frames, draft)
    current: dict[tuple[str, str], WindowNumbers] = {}
    for split in protocol.splits:
        sides: dict[str, tuple[pl.DataFrame, BoolArray]] = {}
        for role in ROLES:
            previous = None if changed is None or old is None else _windows(old, changed, protocol, split, role)
            windows = _windows(new, after, protocol, split, role)
            current[split, role], is_new = renumber(numbers.get((split, role)), previous, windows, names)
            sides[role] = windows.table, is_new
        if any(is_new.any() for _, is_new in sides.values()):
            query, database = (
                NumberedWindows(new.window_set(table, protocol.unit), current[split, role].numbers, is_new)
                for role, (table, is_new) in ((role, sides[role]) for role in ("query", "database"))
            )
            _write_new_pairs(tables, before, draft, split, query, database)
    tables.write(NUMBERING_NAME, to_table(current), {"seqdata.table": "numbering"})


def _windows(cutter: Sequencer, ground: Ground, protocol: Protocol, split: str, role: str) -> SplitWindows:
    return SplitWindows(cutter, ground.stored, cutter.protocol_windows(protocol, split, role))


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
