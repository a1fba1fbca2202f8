"""Descriptors of a PCA sample: in memory while they are few, else in a file without a name, which nothing outlives.

At d = 327,680 the papers' 16,384 descriptors take 21 GB; `indexer.pca.fit.fit` reads them block by block.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seqdata.storage.files import explain_write_failure
from train.data.describe import describe, describe_blocks
from train.models.base import SequenceModel

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

MEMORY = 1 << 30


@contextmanager
def described(
    model: SequenceModel,
    dataset: "Dataset",
    table: pl.DataFrame,
    folder: Path,
    *,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Descriptors `(n, D)` float32 of the windows of `table`, row i for row i, or in track order where mapped.

    Beyond 1 GiB they are written to a file in `folder`, block by block, and mapped. The file has no name there: it goes
    with this process, however that ends.
    Raises: OutputError when the disk refuses; as `train.data.describe.describe_blocks`.
    """
    needed = 4 * len(table) * model.descriptor_size(table["length"][0]) if len(table) else 0
    if needed <= MEMORY:
        yield describe(model, dataset, table, device=device, progress=progress)
        return
    blocks = describe_blocks(model, dataset, table.sort("track", "first"), device=device, progress=progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
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
        yield np.memmap(file, np.float32, "r", shape=(len(table), block.shape[1]))
