"""Measurements of a cell: recalls of a method on a target, the time of extraction, or the cost of matching."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from indexer.evaluation.recall import SHORT_RANKS, Evaluation
from indexer.evaluation.scoring import score
from train.devices import pick_device
from train.experiments.grid import Group
from train.experiments.measure.artifacts import Artifacts
from train.experiments.measure.cells import Measured
from train.experiments.measure.predict import predict
from train.experiments.measure.run_folders import RowRuns
from train.experiments.measure.scale import Resolved
from train.experiments.measure.targets import Target
from train.models import registry as models
from train.profiling import matching as match_profiling
from train.profiling import models as profiling

Fields = Mapping[str, Any]


def recalls(artifacts: Artifacts, method: Resolved, target: Target, runs: RowRuns | None = None) -> Fields:
    """Measure recalls: R@N of `SHORT_RANKS` with intervals, counts, descriptor size, and memory of one pass.

    Args:
        artifacts: Makes and stores what is shared between cells.
        method: The method at its scale.
        target: Dataset and protocols.
        runs: Runs in place of those that would be trained.

    Returns:
        Fields of a `Cell`.

    Raises:
        SeqdataError: As training, indexing and scoring.
    """
    predicted = predict(artifacts, method, target, runs)
    evaluation = score(predicted.dataset, target.tested, predicted.table, predicted.info)
    torch_device = pick_device(str(method.settings["device"]))
    height, width = target.dataset.frame_columns("height", "width").row(0)
    # Memory of a pass depends on shapes alone, so noise does as well as frames.
    windows = profiling.noise(predicted.model, target.tested.length, (int(height), int(width)), torch_device)
    memory = profiling.peak_memory(predicted.model.to(torch_device), windows)
    return {**_evaluation_fields(evaluation), "facts": {"dimension": predicted.dimension, "memory": memory}}


def _evaluation_fields(evaluation: Evaluation) -> dict[str, Any]:
    ranks = [n for n in SHORT_RANKS if n in evaluation.recall]
    return {
        "values": {f"r{n}": Measured(value=evaluation.recall[n], interval=evaluation.interval[n]) for n in ranks},
        "protocol": evaluation.label,
        "conditions": evaluation.conditions,
        "queries": evaluation.queries,
        "left_out": evaluation.left_out,
        "database": evaluation.database,
        "interval_method": evaluation.interval_method,
    }


def extraction(method: Resolved, group: Group) -> Fields:
    """Measure seconds of one sequence (median, 95th percentile) and of its fusion, with random weights.

    Returns fields of a `Cell`.
    """
    options = method.settings["options"]
    model = models.create(method.settings["model"], weights="random", **options)
    cost = profiling.extraction(model, group.length or 5, device=str(method.settings["device"]))
    values = {name: Measured(value=getattr(cost, name)) for name in ("p50", "p95", "fusion")}
    facts = {key: value for key, value in cost.to_json().items() if key not in values and key != "size"}
    return {"values": values, "facts": {**facts, "dimension": cost.descriptor}}


def matching(engine: str, database: int, dimensions: int, seed: int, length: int, folder: Path) -> Fields:
    """Measure milliseconds a query, megabytes and agreement with exact search; the vectors lie in `folder`.

    Returns fields of a `Cell`.
    """
    cost = match_profiling.matching(engine, database, dimensions, seed=seed, length=length, folder=folder)
    values = {name: Measured(value=getattr(cost, name)) for name in ("ms", "megabytes", "agreement")}
    facts = {key: value for key, value in asdict(cost).items() if key not in values}
    return {"values": values, "facts": {**facts, "dimension": dimensions}, "database": database}
