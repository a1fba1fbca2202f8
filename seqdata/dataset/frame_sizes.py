"""The sizes of the frames that windows show, without a look at every window where all frames have one size."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from seqdata.frames.resize import Kernel, default_kernel
from seqdata.geometry import IntArray

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset


def frame_sizes(dataset: "Dataset", rows: Callable[[], IntArray]) -> pl.DataFrame:
    """Find the distinct sizes of some frames.

    Args:
        dataset: The dataset.
        rows: Gives frame rows, of any shape and however often; asked only where the dataset has several sizes.

    Returns:
        Columns height and width, one row a size, sorted.
    """
    sizes = _all_sizes(dataset)
    if sizes.height <= 1:
        return sizes
    columns = dataset.frame_columns("height", "width")
    # A mark for each frame: np.unique sorts every frame of every window, which took a hundred times as long.
    is_used = np.zeros(columns.height, np.bool_)
    is_used[rows()] = True
    return columns.filter(pl.Series(is_used)).unique().sort("height", "width")


def new_kernel(dataset: "Dataset") -> Kernel:
    """Choose the resize kernel of what is begun anew over a dataset: Pillow's where no frame needs resizing."""
    return default_kernel() if _all_sizes(dataset).height > 1 else "pillow"


def _all_sizes(dataset: "Dataset") -> pl.DataFrame:
    """The distinct sizes of all frames, sorted: columns height and width."""
    # Scanned, so that two columns of a hundred million frames do not stay in memory.
    return dataset.frames.select("height", "width").unique().collect(engine="streaming").sort("height", "width")
