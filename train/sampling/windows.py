"""The windows that a model is trained on, and the frames of each."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from seqdata.contracts.protocol import Protocol
from seqdata.contracts.version import VERSION
from seqdata.errors import NotEnoughDataError
from seqdata.geometry import IntArray
from seqdata.storage.table_cache import shared_array, shared_table

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset


@dataclass(frozen=True)
class TrainData:
    """Windows of the training split.

    Attributes:
        queries: Window table of the queries; says where they lie.
        database: Window table of the database; says where its windows lie.
        pixels: The windows whose pixels are read for those of the database; others only in the shifted control.
        frame_rows: Frame rows int64 (n, L) of the queries' windows, followed by those of `pixels`.
    """

    queries: pl.DataFrame
    database: pl.DataFrame
    pixels: pl.DataFrame
    frame_rows: IntArray

    def pixel_windows(self, rows: IntArray) -> pl.DataFrame:
        """Select windows whose pixels are read, by rows (m,) of queries followed by database, in this order."""
        # Two gathers instead of one table of all windows, which would be in memory a second time.
        is_query = rows < len(self.queries)
        parts = [self.queries[rows[is_query]], self.pixels[rows[~is_query] - len(self.queries)]]
        order = np.argsort(np.concatenate([np.flatnonzero(is_query), np.flatnonzero(~is_query)]), kind="stable")
        return pl.concat(parts)[order]

    @classmethod
    def from_split(cls, dataset: "Dataset", protocol: Protocol, split: str = "train", shift: int = 0) -> "TrainData":
        """Cut the windows of a split.

        Args:
            dataset: The dataset.
            protocol: Defines the split, the windows' length and spacing.
            split: Name of the split.
            shift: The database shows the frames this many track frames further on: a control that must not learn.

        Raises:
            NotEnoughDataError: If a role is empty.
            ContractError: For an unknown split.
        """
        key = f"windows {dataset.id} {protocol.hash} {split} {VERSION}"
        frames = dataset.frame_count if dataset.is_shared else 0
        queries, database = (
            shared_table(f"{key} {role}", frames, partial(dataset.sequences, protocol=protocol, split=split, role=role))
            for role in ("query", "database")
        )
        pixels = database
        if shift:
            database, pixels = shifted(database, shift)
        if not len(queries) or not len(database):
            raise NotEnoughDataError(
                f"protocol {protocol.name}, split {split}: {len(queries)} query and {len(database)} database "
                f"windows of length {protocol.length}; both are needed to train"
            )
        rows = shared_array(
            f"{key} frames, {shift} on", frames, lambda: dataset.frame_rows(pl.concat([queries, pixels]))
        )
        return cls(queries, database, pixels, rows)

    @classmethod
    def from_any_split(cls, dataset: "Dataset", protocol: Protocol) -> "TrainData":
        """Cut the windows of the split "train", else of the first split that has any, in whatever role.

        For a model that is not trained: it needs frames for its VLAD words at most.

        Raises:
            NotEnoughDataError: If no split has a window.
        """
        splits = sorted(protocol.splits, key=lambda split: split != "train")
        for split in splits:
            queries, database = (
                dataset.sequences(protocol=protocol, split=split, role=role) for role in ("query", "database")
            )
            windows = pl.concat([queries, database])
            if len(windows):
                return cls(queries, database, database, dataset.frame_rows(windows))
        raise NotEnoughDataError(
            f"protocol {protocol.name}: no split ({', '.join(splits)}) has a window of length {protocol.length}; "
            "lower the length, or add data"
        )

    def sequence_ids(self, windows: IntArray) -> list[str]:
        """Name windows by trajectory and first row in its track."""
        rows = self.pixel_windows(windows).select("trajectory", "first")
        return [f"{trajectory}[{first}]" for trajectory, first in rows.iter_rows()]


def shifted(database: pl.DataFrame, shift: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pair database windows with those `shift` track frames further on in their trajectory.

    Returns:
        The windows that have such a partner, and the partners: row i of the second table is what row i of the first
        will show, a control in which positives are wrong by `shift`.
    """
    key = ["track", "trajectory", "first"]
    rows = database.select(*key).with_row_index("target")
    partners = database.select("track", "trajectory", pl.col("first") + shift).with_row_index("source")
    pairs = partners.join(rows, on=key, how="inner").sort("source")
    return database[pairs["source"].to_numpy()], database[pairs["target"].to_numpy()]


def drive_groups(inverse: IntArray, count: int) -> IntArray:
    """Group the distinct frames that windows link.

    Frames that share a window, directly or by a chain of windows, belong to one stretch of one drive.

    Args:
        inverse: Rows (B, L) of each window into the sorted distinct frames.
        count: Number of distinct frames.

    Returns:
        Group of each distinct frame, int64 (count,), from 0 on.

    Example:
        >>> drive_groups(np.array([[0, 1], [1, 2], [3, 4]]), 5).tolist()
        [0, 0, 0, 1, 1]
    """
    # Each window opens at its first frame and closes at its last; between two frames that no window spans the sum of
    # openings and closings is 0, and a new group starts.
    change = np.zeros(count + 1, np.int64)
    np.add.at(change, inverse.min(1), 1)
    np.add.at(change, inverse.max(1), -1)
    linked = np.cumsum(change)[: count - 1] > 0
    return np.concatenate([[0], np.cumsum(~linked)]).astype(np.int64)
