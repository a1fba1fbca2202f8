"""New windows of a dataset into an index built from an older version of it, by the same model and transform."""

from pathlib import Path
from typing import Any

import polars as pl

from indexer.builder import append as adding
from indexer.evaluation.scoring import table_key
from indexer.place_index import PlaceIndex
from seqdata import protocols
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError
from train.data.describe import describe_blocks
from train.runs.record import checkpoint_hash
from train.stages.index.build import Progress, as_described, frame_size, index_model, stage


def append_index(
    dataset: Dataset,
    index: PlaceIndex,
    run: Path,
    *,
    device: str = "auto",
    model_from: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Publish a version of the index that also holds the windows which the dataset has gained; its folder.

    Only they are described; PCA and quantiser stay those of `index`. Where there are none, `index` itself is returned.
    Raises: ContractError when the dataset does not begin with the index's windows, or the run is another.
    """
    before = index.manifest.inputs
    if checkpoint_hash(run) != before["checkpoint"]:
        raise ContractError(f"{run}: the index {index.id} was built from another checkpoint; name its run with --run")
    protocol = protocols.parse(before["protocol"], index.path / "manifest.json")
    database = dataset.sequences(protocol, before["split"], "database")
    places = dataset.places(database)
    fresh = _fresh(places, index, dataset)
    if not fresh.height:
        return index.path
    inputs: dict[str, Any] = {
        **before,
        "dataset": dataset.id,
        "windows": table_key(database),
        "frame_size": frame_size(dataset, database),
    }
    blocks = describe_blocks(
        index_model(run, model_from),
        dataset,
        as_described(database, before)[len(index) :],
        device=device,
        progress=stage(progress, "describe new windows"),
    )
    return adding.append(index.path, blocks, fresh, inputs)


def _fresh(places: pl.DataFrame, index: PlaceIndex, dataset: Dataset) -> pl.DataFrame:
    """The places after those of the index. Raises: ContractError when these do not begin with the index's."""
    if not places[: len(index)].equals(index.sequences):
        raise ContractError(
            f"{dataset.location}: its windows do not begin with those of the index {index.id} (frames withdrawn, or "
            "another dataset); build the index again"
        )
    return places[len(index) :]
