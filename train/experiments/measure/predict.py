"""The predictions of a method on a target: by its index, or by matching frame vectors one by one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from indexer.evaluation.predictions import PredictionsInfo
from indexer.matching.aligned import FrameReader
from indexer.matching.baselines import match_frames
from indexer.matching.frame_vectors import FrameVectors
from indexer.matching.rerank import rerank
from seqdata.dataset.dataset import Dataset
from seqdata.geometry import Float32Array, IntArray
from train.data.describe_settings import DescribeSettings
from train.data.feature_files import FeatureFiles
from train.experiments.measure.artifacts import Artifacts
from train.experiments.measure.run_folders import RowRuns
from train.experiments.measure.scale import Resolved
from train.experiments.measure.targets import SPLIT, Target
from train.experiments.measure.views import Backward
from train.models.base import SequenceModel
from train.runs import checkpoint
from train.stages.evaluate import method_name, search_queries
from train.stages.frame_vectors import frame_vectors

# Windows that HVPR re-ranks (docs/methods.md#hvpr; Mereu et al. 2022, Table II).
SHORTLIST = 20


@dataclass(frozen=True)
class Predicted:
    """Predictions, what they answer, the dataset (or view of it) whose windows they name, and the model behind them.

    `dimension`: numbers that are stored for a window, or for a frame where frames are matched.
    """

    table: pl.DataFrame
    info: PredictionsInfo
    dataset: Dataset
    model: SequenceModel
    dimension: int


def predict(artifacts: Artifacts, method: Resolved, target: Target, runs: RowRuns | None = None) -> Predicted:
    """Predict the test split of a target: train, index and search, or match.

    Args:
        artifacts: Makes and stores what is shared between cells.
        method: The method at its scale.
        target: Dataset and protocols.
        runs: Runs in place of those that would be trained; their models see pixels.

    Returns:
        Predictions and what stands behind them.

    Raises:
        SeqdataError: As training, indexing and searching.
    """
    if runs is not None:
        return _by_runs(artifacts, method, target, runs)
    features = None
    if method.base is not None and method.frames is not None:
        features = artifacts.frame_vectors(target.dataset, target.trained, method.base, method.frames, method.sample)
    run = artifacts.run(target.dataset, target.trained, method.recipe, method.settings, features)
    if features is not None and method.match in ("seqslam", "aligned"):
        model, files = checkpoint.load_model(run), FeatureFiles(features)
        read = _mapped(model, files) if model.distance == "aligned" else files.read
        width = model.descriptor_size(1) if model.distance == "aligned" else int(files.manifest.shape[0])
        return _by_frames(method, target, model, read, width)
    predicted = _by_index(artifacts, method, target, run)
    if features is not None and method.match == "hvpr":
        return _reranked(target, predicted, _single_frames(artifacts, method, target, features))
    return predicted


def _by_index(artifacts: Artifacts, method: Resolved, target: Target, run: Path) -> Predicted:
    device = str(method.settings["device"])
    index = artifacts.index(target.dataset, target.tested, run, method.pca, method.sample, device)
    describer = artifacts.describer(run, device)
    ((table, info),) = search_queries(target.dataset, index, describer, target.tested, method_name(index, run))
    return Predicted(table, info, target.dataset, describer.network, index.manifest.size)


def _by_runs(artifacts: Artifacts, method: Resolved, target: Target, runs: RowRuns) -> Predicted:
    """Predict with runs whose models see pixels, as imported ones do."""
    settings = DescribeSettings(str(method.settings["device"]))
    if method.match in ("seqslam", "aligned"):
        model = checkpoint.load_model(runs.run)
        read = frame_vectors(target.dataset, runs.run, settings).read
        return _by_frames(method, target, model, read, model.descriptor_size(1))
    predicted = _by_index(artifacts, method, target, runs.run)
    if runs.single is None:
        return predicted
    return _reranked(target, predicted, frame_vectors(target.dataset, runs.single, settings).read)


def _by_frames(method: Resolved, target: Target, model: SequenceModel, read: FrameReader, width: int) -> Predicted:
    """SeqSLAM or aligned matching of frame vectors of `width` numbers.

    SeqSLAM's lines run along the database whichever way its windows do: where those are turned round, the queries are
    turned instead.
    """
    vectors = FrameVectors(read, str(method.settings["model"]))
    dataset = target.dataset
    if method.match == "seqslam" and isinstance(dataset, Backward):
        dataset = Backward(dataset.forward, SPLIT, "query")
    if method.match == "seqslam":
        table, info = match_frames(dataset, target.tested, SPLIT, "seqslam", vectors=vectors)
    else:
        table, info = match_frames(dataset, target.tested, SPLIT, "aligned", vectors=vectors, metric="l2")
    return Predicted(table, info, dataset, model, width)


def _single_frames(artifacts: Artifacts, method: Resolved, target: Target, features: Path) -> FrameReader:
    """Vectors of SeqNet trained on single frames, by which HVPR re-ranks. Source: docs/methods.md#hvpr."""
    # SeqNet of one frame: its convolution over time has nothing else to cover.
    options = {**method.settings["options"], "kernel": 1}
    single = target.trained.variant(length=1)
    run = artifacts.run(target.dataset, single, method.recipe, {**method.settings, "options": options}, features)
    return _mapped(checkpoint.load_model(run), FeatureFiles(features))


def _reranked(target: Target, predicted: Predicted, read: FrameReader) -> Predicted:
    """The first answers of each query, put in order by aligned matching of frame vectors."""
    query, database = (
        target.dataset.frame_rows(target.dataset.sequences(target.tested, SPLIT, role))
        for role in ("query", "database")
    )
    table = rerank(predicted.table, query, database, read, SHORTLIST, metric="l2")
    return Predicted(table, predicted.info, predicted.dataset, predicted.model, predicted.dimension)


def _mapped(model: SequenceModel, files: FeatureFiles) -> FrameReader:
    """Frame vectors after a head that was trained on stored ones: `(n, p)` of frame rows `(n,)`."""

    @torch.no_grad()
    def read(rows: IntArray) -> Float32Array:
        vectors = torch.from_numpy(files.read(rows).astype(np.float32))
        mapped: Float32Array = model.fuse_rows(vectors, torch.arange(len(rows))[:, None]).numpy()
        return mapped

    return read
