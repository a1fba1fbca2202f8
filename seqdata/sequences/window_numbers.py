"""Numbers that windows keep when frames are appended or withdrawn, so that stored pairs need not be written again.

Rows of a window table move when a window before them goes; a *number* is given once and never again. The pair tables of
a first build hold rows, which are the numbers 0 to n-1; a later version gives further numbers to the windows that are
new in it and stores only their pairs. The table `numbering` says which number stands in which row; a pair counts when
both of its numbers still stand somewhere.

A window is the same one as before when it has the same frames and ranks: only then do all its distances stay.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from seqdata.contracts.dataset_tables import NUMBERING_NAME, stored_table
from seqdata.contracts.manifest import DatasetManifest
from seqdata.contracts.tables import table_contract
from seqdata.errors import ContractError
from seqdata.geometry import BoolArray, Int32Array, IntArray
from seqdata.sequences.sequencer import Sequencer
from seqdata.storage.store import Store

MOST = (1 << 31) - 1
"""Greatest number: pair tables hold them as int32."""
Side = tuple[str, str]
"""A split and a role."""


@dataclass(frozen=True)
class WindowNumbers:
    """The numbers of the windows of one split and role.

    Attributes:
        numbers: Number of the window in each row, int64 (n,).
        next: The next number to give, which is also how many were given so far.

    Example:
        >>> WindowNumbers(np.array([0, 2, 3]), 4).rows().tolist()
        [1, 0, 2, 3]
    """

    numbers: IntArray
    next: int

    @classmethod
    def first(cls, count: int) -> "WindowNumbers":
        """Number the windows of a first build: by their rows."""
        return cls(np.arange(count), count)

    def rows(self) -> Int32Array:
        """Give one more than the row of each number, int32 (next,); 0 where its window is gone."""
        # One more than the row, so that the array begins as zeros, of which the system makes no pages until they are
        # written: a stranger's table may claim numbers up to 2**31.
        rows = np.zeros(self.next, dtype=np.int32)
        rows[self.numbers] = np.arange(1, len(self.numbers) + 1)
        return rows

    def to_ranges(self) -> pl.DataFrame:
        """List the numbers as ranges: columns start and stop (int64); the last range is empty, at the next number."""
        starts = np.flatnonzero(np.diff(self.numbers, prepend=-2) != 1)
        stops = np.append(starts[1:], len(self.numbers)) if len(starts) else starts
        first = np.append(self.numbers[starts], self.next)
        last = np.append(self.numbers[stops - 1] + 1, self.next)
        return pl.DataFrame({"start": first, "stop": last}, schema={"start": pl.Int64, "stop": pl.Int64})

    @classmethod
    def from_ranges(cls, ranges: pl.DataFrame) -> "WindowNumbers":
        """Read what `to_ranges` wrote.

        Raises:
            ContractError: If a number is listed twice or was never given.
        """
        starts, stops = ranges["start"].to_numpy(), ranges["stop"].to_numpy()
        following = int(stops[-1]) if len(stops) else 0
        is_sound = (starts <= stops).all() and (stops <= following).all() and following <= MOST
        if not is_sound or (stops - starts).sum() > following:
            raise ContractError("numbering: ranges of window numbers overlap or do not rise; run seqdata verify")
        numbers = np.concatenate([np.arange(0), *(np.arange(a, b) for a, b in zip(starts, stops, strict=True))])
        if len(np.unique(numbers)) != len(numbers):
            raise ContractError("numbering: a window number is listed twice; run seqdata verify")
        return cls(numbers, following)


def stored_numbers(store: Store, manifest: DatasetManifest) -> dict[Side, WindowNumbers]:
    """Read the numbers of the windows of a dataset's own protocol; none where pairs hold rows.

    Args:
        store: The dataset's store.
        manifest: Manifest of the version.

    Raises:
        InputError, ContractError: As `stored_table` and `from_table`.
    """
    if not manifest.parts(NUMBERING_NAME):
        return {}
    return from_table(stored_table(store, manifest, "numbering"), manifest.counts.frames)


def to_table(numbers: Mapping[Side, WindowNumbers]) -> pl.DataFrame:
    """Write the numbers of all splits and roles as one table (contract `numbering`)."""
    contract = table_contract("numbering")
    parts = [
        side.to_ranges().with_columns(pl.lit(split).alias("split"), pl.lit(role).alias("role"))
        for (split, role), side in numbers.items()
    ]
    return pl.concat([pl.DataFrame(schema=contract.polars_schema()), *map(contract.conform, parts)])


def from_table(table: pl.DataFrame, most: int) -> dict[Side, WindowNumbers]:
    """Read the numbers of all splits and roles.

    Args:
        table: Contract `numbering`.
        most: Greatest number of windows that a split and role can have: the frames of the dataset.

    Raises:
        ContractError: If one has more, or as `WindowNumbers.from_ranges`.
    """
    # Before any array of that size is made: the table may come from a stranger.
    counts = table.group_by("split", "role").agg((pl.col("stop") - pl.col("start")).sum().alias("windows"))
    if counts.height and not (counts["windows"] <= most).all():
        raise ContractError(f"numbering: lists more windows than the {most} frames make; run seqdata verify")
    parts = table.partition_by("split", "role", as_dict=True, maintain_order=True)
    return {(str(split), str(role)): WindowNumbers.from_ranges(part) for (split, role), part in parts.items()}


@dataclass(frozen=True)
class SplitWindows:
    """The windows of one split and role, with the frames that they hold.

    Attributes:
        sequencer: Windows over some frames.
        stored_rows: Stored row of each of these frames, int64 (F,).
        table: Window table (contract `sequences`).
    """

    sequencer: Sequencer
    stored_rows: IntArray
    table: pl.DataFrame

    def first_frames(self) -> IntArray:
        """Stored row of every window's first frame, int64 (n,)."""
        if not self.table.height:
            return np.empty(0, dtype=np.int64)
        track = self.sequencer.track(str(self.table["track"][0]))
        frames: IntArray = self.stored_rows[track["frame"].to_numpy()[self.table["first"].to_numpy()]]
        return frames

    def identities(self, rows: IntArray) -> pl.DataFrame:
        """Say which windows are the same: one row a window of `rows` (n,); equal rows are the same window.

        Windows that were shifted inward at the ends of a run may be equal; the last column counts them.
        """
        table = self.table[rows]
        if not table.height:
            return pl.DataFrame()
        frames = self.stored_rows[self.sequencer.frame_rows(table)]
        # Ranks are coordinates where the unit is frames; within a window they step by one, so the first one says all.
        rank = self.sequencer.track(str(table["track"][0]))["rank"].to_numpy()[table["first"].to_numpy()]
        columns = {f"frame{index}": frames[:, index] for index in range(frames.shape[1])}
        identity = pl.DataFrame({"rank": rank, **columns})
        return identity.with_columns(pl.int_range(pl.len()).over(identity.columns).alias("copy"))


def renumber(
    numbers: WindowNumbers | None, before: SplitWindows | None, after: SplitWindows, changed: Collection[str]
) -> tuple[WindowNumbers, BoolArray]:
    """Number the windows of a split and role after some trajectories changed.

    Args:
        numbers: The numbers before; None where they were rows of a first build.
        before: The windows that the changed trajectories had before; None where these are new.
        after: All windows after.
        changed: Names of the trajectories whose frames changed or are new.

    Returns:
        Numbers of the rows of `after`: a window that was there before keeps its number, others get new ones. And
        whether each is new, bool (n,).

    Raises:
        ContractError: If `numbers` are of another number of windows.
    """
    is_changed = after.table["trajectory"].is_in(list(changed)).to_numpy()
    unchanged, altered = np.flatnonzero(~is_changed), np.flatnonzero(is_changed)
    # Windows of other trajectories are as they were. With those of `before` they make up the table before, whose order
    # is that of the windows' first frames: stored rows never move.
    firsts = [after.first_frames()[unchanged], *([] if before is None else [before.first_frames()])]
    order = np.argsort(np.concatenate(firsts), kind="stable")
    old = WindowNumbers.first(len(order)) if numbers is None else numbers
    if len(old.numbers) != len(order):
        raise ContractError(
            f"numbering: lists {len(old.numbers)} windows where the frames make {len(order)}; run seqdata verify"
        )
    previous = np.empty(len(order), dtype=np.int64)
    previous[order] = old.numbers
    current = np.full(after.table.height, -1, dtype=np.int64)
    current[unchanged] = previous[: len(unchanged)]
    if before is not None:
        current[altered] = _match(before, after, altered, previous[len(unchanged) :])
    is_new: BoolArray = current < 0
    count = int(is_new.sum())
    current[is_new] = old.next + np.arange(count)
    return WindowNumbers(current, old.next + count), is_new


def _match(before: SplitWindows, after: SplitWindows, altered: IntArray, previous: IntArray) -> IntArray:
    """Find the numbers of the windows `altered` (a,) among those of `before`: int64 (a,), -1 where a window is new."""
    if not before.table.height or not len(altered):
        return np.full(len(altered), -1, dtype=np.int64)
    old = before.identities(np.arange(before.table.height))
    names = old.columns
    new = after.identities(altered)
    matches = new.join(old.with_columns(pl.Series("number", previous)), on=names, how="left", maintain_order="left")
    numbers: IntArray = matches["number"].fill_null(-1).to_numpy()
    return numbers
