"""The training split of a protocol as windows, and the frames of each."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from seqdata.contracts.protocol import Protocol
from seqdata.errors import NotEnoughDataError
from seqdata.geometry import IntArray

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset


@dataclass(frozen=True)
class TrainData:
    """Windows of the training split.

    `queries`, `database`: window tables that say where windows lie. `shown`: queries followed by database, the windows
    whose pixels are read, row for row; it differs only in the shifted control. `frame_rows` int64 `(n, L)` belongs to
    `shown`.
    """

    queries: pl.DataFrame
    database: pl.DataFrame
    shown: pl.DataFrame
    frame_rows: IntArray

    @classmethod
    def of(cls, dataset: "Dataset", protocol: Protocol, split: str = "train", shift: int = 0) -> "TrainData":
        """The split's windows; with `shift` the database shows the frames `shift` track frames further on.

        Raises: NotEnoughDataError when a role is empty, ContractError for an unknown split.
        """
        queries = dataset.sequences(protocol=protocol, split=split, role="query")
        database = dataset.sequences(protocol=protocol, split=split, role="database")
        pixels = database
        if shift:
            database, pixels = shifted(database, shift)
        if not len(queries) or not len(database):
            raise NotEnoughDataError(
                f"protocol {protocol.name}, split {split}: {len(queries)} query and {len(database)} database "
                f"windows of length {protocol.length}; both are needed to train"
            )
        shown = pl.concat([queries, pixels])
        return cls(queries, database, shown, dataset.frame_rows(shown))

    @classmethod
    def untrained(cls, dataset: "Dataset", protocol: Protocol) -> "TrainData":
        """Windows of the split "train" where it has any, in either role, else of the first split that has.

        For a run of 0 epochs. Raises: NotEnoughDataError when no split has a window.
        """
        for split in sorted(protocol.splits, key=lambda name: name != "train"):
            queries, database = (dataset.sequences(protocol, split, role) for role in ("query", "database"))
            shown = pl.concat([queries, database])
            if shown.height:
                return cls(queries, database, shown, dataset.frame_rows(shown))
        raise NotEnoughDataError(f"protocol {protocol.name}: no split has a window of length {protocol.length}")

    def sequence_ids(self, windows: IntArray) -> list[str]:
        """What names each window: trajectory and first row in its track."""
        chosen = self.shown[windows].select("trajectory", "first")
        return [f"{trajectory}[{first}]" for trajectory, first in chosen.iter_rows()]


def shifted(database: pl.DataFrame, shift: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Database windows that have one `shift` track frames further on in their trajectory, and those windows.

    Row i of the second table is what row i of the first will show: a control in which positives are wrong by `shift`.
    """
    key = ["track", "trajectory", "first"]
    rows = database.select(*key).with_row_index("target")
    wanted = database.select("track", "trajectory", pl.col("first") + shift).with_row_index("source")
    found = wanted.join(rows, on=key, how="inner").sort("source")
    return database[found["source"].to_numpy()], database[found["target"].to_numpy()]


def drive_groups(inverse: IntArray, count: int) -> IntArray:
    """Groups of distinct frames that windows link: `inverse` `(B, L)` into `count` sorted frames → int64 `(count,)`.

    Frames that share a window, directly or by a chain of windows, belong to one stretch of one drive.
    """
    change = np.zeros(count + 1, np.int64)
    np.add.at(change, inverse.min(1), 1)
    np.add.at(change, inverse.max(1), -1)
    linked = np.cumsum(change)[: count - 1] > 0
    return np.concatenate([[0], np.cumsum(~linked)]).astype(np.int64)
