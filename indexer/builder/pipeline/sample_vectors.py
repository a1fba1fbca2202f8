"""Descriptors of a PCA sample: in memory while they are few, else in a mapped file without a name.

At D = 327,680 the 16,384 descriptors of the papers' practice take 21 GB; `indexer.pca.fit.fit` reads them in blocks.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from indexer.arrays import map_blocks
from indexer.describer import Describer
from seqdata.geometry import Float32Array
from seqdata.parallel import Progress

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

# Above this the sample is mapped: a guess that leaves a laptop with 8 GB room for the model and the PCA.
MEMORY_BYTES = 1 << 30


def sample_vectors(
    describer: Describer, dataset: "Dataset", windows: pl.DataFrame, folder: Path, progress: Progress | None = None
) -> Float32Array:
    """Describe a sample of windows.

    Args:
        describer: The model.
        dataset: The dataset that the windows were cut from.
        windows: Window table, all of one length.
        folder: Where a file is made if the descriptors need more than 1 GiB.
        progress: Counts windows.

    Returns:
        Descriptors (n, D) float32: row i of window i in memory, in track order where mapped (a PCA does not mind).

    Raises:
        OutputError: If the disk refuses.
    """
    size = describer.descriptor_size(windows["length"][0]) if len(windows) else 0
    if 4 * len(windows) * size <= MEMORY_BYTES:
        return describer.vectors(dataset, windows, progress)
    blocks = describer.blocks(dataset, windows.sort("track", "first"), progress)
    return map_blocks(folder, blocks, (len(windows), size))
