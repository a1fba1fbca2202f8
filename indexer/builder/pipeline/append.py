"""New windows of a dataset into an index built from an older version of it, by the same model and transform."""

from pathlib import Path
from typing import Any

import polars as pl

from indexer.builder import append as appending
from indexer.builder.pipeline.request import check_distance, database_windows, frame_size, stored_form
from indexer.describer import Describer, blocks_to_project, check_arithmetic, check_weights
from indexer.evaluation.truth import table_key
from indexer.place_index import PlaceIndex
from seqdata import protocols
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError
from seqdata.parallel import StageProgress, stage_progress


def append_index(
    dataset: Dataset, index: PlaceIndex, describer: Describer, progress: StageProgress | None = None
) -> Path:
    """Publish a version of the index that also holds the windows which the dataset has gained.

    Only those windows are described; PCA and quantiser stay those of `index`.

    Args:
        dataset: A newer version of the dataset that `index` was built from.
        index: The version to append to; it stays as it is.
        describer: The model that `index` was built with.
        progress: Called with the stage and its windows.

    Returns:
        The folder of the new version, or of `index` itself where no window is new.

    Raises:
        ContractError: If the dataset does not begin with the index's windows, or the model is another.
    """
    before = index.manifest.inputs
    check_weights(describer, index.id, before["checkpoint"])
    check_arithmetic(describer, index.id, before.get("computed", {}))
    protocol = protocols.parse(before["protocol"], index.path / "manifest.json")
    database = dataset.sequences(protocol, before["split"], "database")
    new_places = _new_places(dataset.places(database), index, dataset)
    if not new_places.height:
        return index.path
    inputs: dict[str, Any] = {
        **before,
        **stored_form(dataset),
        "dataset": dataset.id,
        "windows": table_key(database),
        "frame_size": frame_size(dataset, database),
    }
    # Looked at last of the checks, for it loads the weights.
    check_distance(describer)
    windows = database_windows(database, before)[len(index) :]
    blocks = blocks_to_project(describer, dataset, windows, stage_progress(progress, "describe new windows"))
    return appending.append(index.path, blocks, new_places, inputs)


def _new_places(places: pl.DataFrame, index: PlaceIndex, dataset: Dataset) -> pl.DataFrame:
    """The places after those of the index. Raises: ContractError when these do not begin with the index's."""
    # Rows are only ever added at the end: an index names windows by row, so older rows may not move.
    if not places[: len(index)].equals(index.sequences):
        raise ContractError(
            f"{dataset.location}: its windows do not begin with those of the index {index.id} (frames withdrawn, or "
            "another dataset); build the index again"
        )
    return places[len(index) :]
