"""The scene of an index's report: its stored predictions under its own protocol, with thumbnails of the windows."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from indexer.evaluation import predictions
from indexer.evaluation.recall import Evaluation
from indexer.evaluation.scoring import read_recorded
from indexer.evaluation.shared_frames import shared_pairs, without_pairs
from indexer.place_index import PlaceIndex
from indexer.report.browser import query_rows
from indexer.report.scene import ReportScene, Retrieval, Side, make_scene
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.dataset.leakage import leakage
from seqdata.errors import InputError
from seqdata.frames.images import Pixels
from seqdata.parallel.steps import step
from seqdata.sequences.sequencer import ROLES

THUMBNAIL_WIDTH = 160  # pixels


@step("gather what the page shows")
def index_scene(
    dataset: Dataset, index: PlaceIndex, protocol: Protocol, predictions_file: Path, run: str
) -> tuple[ReportScene, list[Evaluation]]:
    """Make the scene of an index's own predictions under its protocol, and read all its evaluations.

    Args:
        dataset: The dataset that the index was built from.
        index: The index.
        protocol: The protocol that it was built under.
        predictions_file: Where its answers under that protocol are stored.
        run: Name of the run that it was built from.

    Raises:
        InputError: If the index was not evaluated under its protocol yet.
    """
    split = str(index.manifest.inputs["split"])
    evaluations = read_recorded(index.path)
    if not predictions_file.is_file() or not evaluations:
        raise InputError(f"{index.path}: not evaluated under its protocol {protocol.label} yet; run seqdata eval first")
    table, info = predictions.read(predictions_file)
    queries, database = (dataset.sequences(protocol, split, role) for role in ("query", "database"))
    shared = shared_pairs(dataset.frame_rows(queries), dataset.frame_rows(database))
    # Twice the radius is near: such a miss is seen as one of metres, not of another street.
    retrieval = Retrieval(
        without_pairs(table, shared),
        without_pairs(dataset.protocol_positives(protocol, split), shared),
        without_pairs(dataset.protocol_positives(protocol, split, 2 * protocol.radius), shared),
        dataset.places(queries),
        dataset.places(database),
    )
    size = _thumbnail_size(dataset)

    def read(side: Side, rows: list[int]) -> Pixels:
        return dataset.read(queries if side == "query" else database, rows, size)

    def read_centres(side: Side, rows: list[int]) -> Pixels:
        table = queries if side == "query" else database
        return dataset.read_frames(table["centre"].to_numpy()[rows], size)

    provenance = {
        "made": f"{datetime.now(UTC):%Y-%m-%d} by seqdata report {index.path}",
        "dataset": dataset.id,
        "credit": dataset.manifest.source.attribution,
        "licence": dataset.manifest.source.licence or "see the credit",
        "protocol": protocol.label,
        "index": index.id,
        "run": run,
        "checkpoint": str(index.manifest.inputs["checkpoint"]),
        "libraries": ", ".join(f"{name} {version}" for name, version in index.manifest.libraries.items()),
    }
    scene = make_scene(
        f"{info.method} on {protocol.name}",
        retrieval,
        read,
        method=info.method,
        provenance=provenance,
        leakage=_leakage(dataset, protocol),
    )
    scene = replace(scene, rows=query_rows(retrieval, scene.query_status, read_centres))
    return scene, evaluations


def _leakage(dataset: Dataset, protocol: Protocol) -> pl.DataFrame | None:
    """How much of the ground was trained on; None where the protocol trains on nothing of this dataset."""
    if "train" not in protocol.splits:
        return None
    is_training = [dataset.sequencer.frames_of(protocol, "train", role) for role in ROLES]
    return leakage(dataset.sequencer, protocol) if any(mask.any() for mask in is_training) else None


def _thumbnail_size(dataset: Dataset) -> tuple[int, int]:
    """(H, W) of the report's pictures: at most `THUMBNAIL_WIDTH` wide, in the shape of the first frame."""
    height, width = (int(value) for value in dataset.frame_columns("height", "width").row(0))
    thumbnail_width = min(width, THUMBNAIL_WIDTH)
    return max(1, round(height * thumbnail_width / width)), thumbnail_width
