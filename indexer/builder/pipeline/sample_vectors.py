"""Descriptors of a PCA sample: in memory while they are few, else in a mapped file without a name.

At D = 327,680 the 16,384 descriptors of the papers' practice take 21 GB; `indexer.pca.fit.fit` reads them in blocks.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from indexer.describer import Describer
from seqdata.geometry import Float32Array
from seqdata.parallel import Progress
from seqdata.storage.files import explain_write_failure

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

# Above this the sample is mapped: a guess that leaves a laptop with 8 GB room for the model and the PCA.
MEMORY_BYTES = 1 << 30


@contextmanager
def sample_vectors(
    describer: Describer, dataset: "Dataset", windows: pl.DataFrame, folder: Path, progress: Progress | None = None
) -> Iterator[Float32Array]:
    """Describe a sample of windows, for the length of a `with` block.

    Args:
        describer: The model.
        dataset: The dataset that the windows were cut from.
        windows: Window table, all of one length.
        folder: Where a file is made if the descriptors need more than 1 GiB.
        progress: Counts windows.

    Yields:
        Descriptors (n, D) float32: row i of window i in memory, in track order where mapped (a PCA does not mind).

    Raises:
        OutputError: If the disk refuses.
    """
    size_bytes = 4 * len(windows) * describer.descriptor_size(windows["length"][0]) if len(windows) else 0
    if size_bytes <= MEMORY_BYTES:
        yield describer.vectors(dataset, windows, progress)
        return
    blocks = describer.blocks(dataset, windows.sort("track", "first"), progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A file without a name goes with this process, however that ends, so a killed build leaves nothing behind.
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (open while it is mapped)
    except OSError as error:
        explain_write_failure(folder, error)
    with file:
        for block in blocks:
            try:
                file.write(np.ascontiguousarray(block).data)
            except OSError as error:
                explain_write_failure(folder, error)
        file.flush()
        yield np.memmap(file, np.float32, "r", shape=(len(windows), block.shape[1]))
