"""Classes of single frames by where they were taken and which way they look, in groups of classes far apart.

Berton et al., Rethinking Visual Geo-localization for Large-Scale Applications (CosPlace), CVPR 2022, sec. 3.2; with
sequences in Berton et al., JIST: Joint Image and Sequence Training for Sequential Visual Place Recognition, RA-L 2023.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from seqdata.errors import ContractError, NotEnoughDataError
from seqdata.geometry import IntArray

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset


@dataclass(frozen=True)
class ClassGrid:
    """How frames are classed; the defaults are those of CosPlace and JIST.

    Attributes:
        cell: Side of a cell, in metres.
        heading: Degrees of heading of a class.
        spacing: Cells from one cell of a group to the next, in each direction.
        heading_spacing: Classes of heading from one of a group to the next.
        frames: Least frames of a class.
        groups: Most groups.
    """

    cell: float = 10.0
    heading: float = 30.0
    spacing: int = 5
    heading_spacing: int = 2
    frames: int = 10
    groups: int = 8


class FrameClasses:
    """Frames by class, classes by group; a batch holds one random frame of each of its classes.

    Convention:
        Easting and northing are UTM metres, heading is degrees clockwise from north, as in the frames table.

    Attributes:
        members: Frame rows of each class of each group.
        sizes: Classes of each group.
    """

    def __init__(self, dataset: "Dataset", rows: IntArray, grid: ClassGrid, seed: int = 0) -> None:
        """Class the frames `rows` (n,) of a dataset.

        Raises:
            ContractError: For frames without position or heading.
            NotEnoughDataError: Where no group has two classes of enough frames.
        """
        self.seed = seed
        table = _classed(dataset, np.unique(rows), grid)
        if table.null_count().sum_horizontal().sum():
            raise ContractError(
                "frame classes need the position and the heading of every training frame; some have none"
            )
        classes = (
            table.group_by("group", "class", maintain_order=True)
            .agg("row")
            .filter(pl.col("row").list.len() >= grid.frames)
            .sort("group", "class")
        )
        groups = [part["row"].to_list() for _, part in classes.group_by("group", maintain_order=True)]
        # A group of one class has nothing to tell apart; the largest groups come first.
        groups = sorted((group for group in groups if len(group) > 1), key=len, reverse=True)[: grid.groups]
        if not groups:
            raise NotEnoughDataError(
                f"no two frame classes of one group have {grid.frames} frames; lower class_frames or class_spacing "
                "by --set"
            )
        self.members = [[np.asarray(frames, np.int64) for frames in group] for group in groups]
        self.sizes = [len(group) for group in groups]

    def group(self, epoch: int) -> int:
        """Tell which group an epoch (from 1) trains: each in turn."""
        return (epoch - 1) % len(self.sizes)

    def batch(self, epoch: int, step: int, count: int) -> tuple[IntArray, IntArray]:
        """Draw the frames of a step, a pure function of (seed, epoch, step).

        Args:
            epoch: The epoch, from 1.
            step: The step of the epoch, from 0.
            count: Frames; each class comes once before any comes again.

        Returns:
            Frame rows and labels within the group, int64 (count,).
        """
        classes = self.members[self.group(epoch)]
        turns = range(step * count // len(classes), ((step + 1) * count - 1) // len(classes) + 1)
        order = np.concatenate([np.random.default_rng((self.seed, epoch, t)).permutation(len(classes)) for t in turns])
        start = step * count - turns[0] * len(classes)
        labels = order[start : start + count]
        counts = np.array([len(classes[label]) for label in labels])
        places = np.random.default_rng((self.seed, epoch, step, 1)).integers(counts)
        rows = [classes[label][place] for label, place in zip(labels, places, strict=True)]
        return np.array(rows, np.int64), labels.astype(np.int64)


def _classed(dataset: "Dataset", rows: IntArray, grid: ClassGrid) -> pl.DataFrame:
    """Columns row, group, class of frames, null where a frame has no position or heading."""
    columns = dataset.frame_columns("zone", "easting", "northing", "heading")[rows]
    cells = columns.with_columns(
        pl.Series("row", rows),
        (pl.col("easting") / grid.cell).floor().cast(pl.Int64, strict=False).alias("east"),
        (pl.col("northing") / grid.cell).floor().cast(pl.Int64, strict=False).alias("north"),
        (pl.col("heading") / grid.heading).floor().cast(pl.Int64, strict=False).alias("way"),
    )
    group = pl.struct(
        pl.col("east") % grid.spacing, pl.col("north") % grid.spacing, pl.col("way") % grid.heading_spacing
    )
    has_place = pl.all_horizontal(pl.col("east", "north", "way").is_not_null())
    return cells.select(
        "row",
        pl.when(has_place).then(group).alias("group"),
        pl.when(has_place).then(pl.struct("zone", "east", "north", "way")).alias("class"),
    )
