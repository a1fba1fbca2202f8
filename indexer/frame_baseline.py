"""The frame-level baseline: plain matching of grey, patch-normalised thumbnails, without any model."""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer import predictions
from indexer.matching import match_aligned, match_single
from indexer.predictions import PredictionsInfo
from indexer.scoring import KEEP, make_info
from indexer.thumbnails import SIZE, thumbnails_of
from seqdata.dataset import Dataset
from seqdata.errors import NotEnoughDataError
from seqdata.protocols import Protocol

Method = Literal["frame", "aligned"]
METHODS: dict[str, str] = {
    "frame": "frame matching (SAD, centre frame)",
    "aligned": "aligned frame matching (SAD, mean over the window)",
}
FRAMES_A_BLOCK = 256


def match_frames(
    dataset: Dataset,
    protocol: Protocol,
    split: str,
    method: Method,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[pl.DataFrame, PredictionsInfo]:
    """Predictions of the split's queries by sums of absolute differences of thumbnails.

    `frame` compares the windows' centre frames, `aligned` the mean over their L frames in order. Thumbnails are
    64×32 grey, every 8×8 patch normalised; each distinct frame is read once. `progress(done, total)` counts frames.
    Raises: NotEnoughDataError when the split has no query or no database window.
    """
    queries = dataset.sequences(protocol, split, "query")
    database = dataset.sequences(protocol, split, "database")
    if not queries.height or not database.height:
        raise NotEnoughDataError(
            f"protocol {protocol.name}, split {split}: {database.height} database and {queries.height} query windows "
            "in this dataset; both are needed"
        )
    frames, windows = np.unique(
        np.concatenate([dataset.frame_rows(queries), dataset.frame_rows(database)]), return_inverse=True
    )
    pictures = thumbnails_of(_read_blocks(dataset, frames, progress))
    of_queries, of_database = np.split(windows.reshape(-1, protocol.length), [queries.height])
    match = match_single if method == "frame" else match_aligned

    def search(
        query_rows: npt.NDArray[np.int64], database_rows: npt.NDArray[np.int64]
    ) -> tuple[npt.ArrayLike, npt.ArrayLike]:
        keep = min(KEEP, len(database_rows))
        apart, found = match(pictures, of_queries[query_rows], pictures, of_database[database_rows], keep)
        return apart, database_rows[found]

    if protocol.pool == "each":
        table = predictions.by_city(queries["city"].to_list(), database["city"].to_list(), search)
    else:
        table = predictions.table(*search(np.arange(queries.height), np.arange(database.height)))
    return table, make_info(dataset, protocol, split, queries, database, method=METHODS[method])


def _read_blocks(
    dataset: Dataset, rows: npt.NDArray[np.int64], progress: Callable[[int, int], None] | None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Frames in blocks; those of mixed sizes are brought to the thumbnail's size while decoding."""
    sizes = dataset.frame_columns("height", "width")[rows].unique()
    size = None if sizes.height == 1 else SIZE
    for start in range(0, len(rows), FRAMES_A_BLOCK):
        yield dataset.read_frames(rows[start : start + FRAMES_A_BLOCK], size)
        if progress is not None:
            progress(min(start + FRAMES_A_BLOCK, len(rows)), len(rows))
