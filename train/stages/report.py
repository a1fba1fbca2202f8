"""What a report of an index shows: its recorded evaluations, and the scene behind the newest of them."""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer.evaluation import predictions
from indexer.evaluation.recall import Evaluation
from indexer.evaluation.scoring import read_recorded
from indexer.evaluation.shared_frames import shared_pairs, without_pairs
from indexer.place_index import PlaceIndex
from indexer.report.scene import ReportScene, make_scene
from seqdata import protocols
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.dataset.leakage import leakage
from seqdata.errors import InputError
from seqdata.sequences.sequencer import ROLES
from train.runs.record import predictions_path

THUMBNAIL_WIDTH = 160


def index_scene(dataset: Dataset, index: PlaceIndex, run: Path) -> tuple[ReportScene, list[Evaluation]]:
    """The scene of an index's own predictions under its protocol, and all its evaluations.

    Raises: InputError when the index was not evaluated under its own protocol yet.
    """
    protocol = protocols.parse(index.manifest.inputs["protocol"], index.path / "manifest.json")
    split = str(index.manifest.inputs["split"])
    stored = predictions_path(run, index, protocol)
    evaluations = read_recorded(index.path)
    if not stored.is_file() or not evaluations:
        raise InputError(f"{index.path}: not evaluated under its protocol {protocol.label} yet; run seqdata eval first")
    table, info = predictions.read(stored)
    queries = dataset.sequences(protocol, split, "query")
    database = dataset.sequences(protocol, split, "database")
    shared = shared_pairs(dataset.frame_rows(queries), dataset.frame_rows(database))
    near = dataset.protocol_positives(protocol, split, 2 * protocol.radius)
    size = _thumbnail(dataset)

    def read(side: Literal["query", "database"], rows: list[int]) -> npt.NDArray[np.uint8]:
        return dataset.read(queries if side == "query" else database, rows, size)

    scene = make_scene(
        title=f"{info.method} on {protocol.name}",
        predictions=without_pairs(table, shared),
        positives=without_pairs(dataset.protocol_positives(protocol, split), shared),
        near=without_pairs(near, shared),
        queries=dataset.places(queries),
        database=dataset.places(database),
        read=read,
        method=info.method,
        provenance={
            "dataset": dataset.id,
            "protocol": protocol.label,
            "index": index.id,
            "run": run.resolve().name,
            "checkpoint": str(index.manifest.inputs["checkpoint"]),
            "libraries": ", ".join(f"{name} {version}" for name, version in index.manifest.libraries.items()),
        },
        leakage=_leakage(dataset, protocol),
    )
    return scene, evaluations


def _leakage(dataset: Dataset, protocol: Protocol) -> pl.DataFrame | None:
    """How much of the ground was trained on; none where the protocol trains on nothing of this dataset."""
    if "train" not in protocol.splits:
        return None
    sides = [dataset.sequencer.frames_of(protocol, "train", role) for role in ROLES]
    return leakage(dataset.sequencer, protocol) if any(side.any() for side in sides) else None


def _thumbnail(dataset: Dataset) -> tuple[int, int]:
    """(H, W) of the report's pictures: at most `THUMBNAIL_WIDTH` wide, in the shape of the first frame."""
    height, width = dataset.frame_columns("height", "width").row(0)
    wide = min(int(width), THUMBNAIL_WIDTH)
    return max(1, round(int(height) * wide / int(width))), wide
