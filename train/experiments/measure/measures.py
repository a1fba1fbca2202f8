"""What fills a cell: recalls of a method on a target, the time of extraction, or the cost of matching."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from indexer.evaluation.recall import Evaluation
from indexer.evaluation.scoring import score
from train.devices import pick_device
from train.experiments.grid import Group
from train.experiments.measure.artifacts import Workshop
from train.experiments.measure.cells import Measured
from train.experiments.measure.predict import predict
from train.experiments.measure.scale import Resolved
from train.experiments.measure.targets import Target
from train.models import registry as models
from train.profiling import matching as match_profiling
from train.profiling import models as profiling

RANKS = (1, 5, 10)
Fields = Mapping[str, Any]


def recalls(shop: Workshop, method: Resolved, target: Target) -> Fields:
    """Fields of a `Cell`: R@1, R@5 and R@10 with their intervals, counts, descriptor size, memory of one pass.

    Raises: what training, indexing and scoring raise.
    """
    made = predict(shop, method, target)
    found = score(made.dataset, target.tested, made.table, made.info)
    where = pick_device(str(method.settings["device"]))
    height, width = target.dataset.frame_columns("height", "width").row(0)
    windows = profiling.noise(made.model, target.tested.length, (int(height), int(width)), where)
    memory = profiling.peak_memory(made.model.to(where), windows)
    return {**_of_evaluation(found), "facts": {"dimension": made.dimension, "memory": memory}}


def _of_evaluation(found: Evaluation) -> dict[str, Any]:
    known = [n for n in RANKS if n in found.recall]
    return {
        "values": {f"r{n}": Measured(value=found.recall[n], interval=found.interval[n]) for n in known},
        "protocol": found.label,
        "conditions": found.conditions,
        "queries": found.queries,
        "left_out": found.left_out,
        "database": found.database,
        "interval_method": found.interval_method,
    }


def extraction(method: Resolved, group: Group) -> Fields:
    """Fields of a `Cell`: seconds of one sequence (median, 95th percentile) and of its fusion, with random weights."""
    options = method.settings["options"]
    model = models.create(method.settings["model"], weights="random", **options)
    found = profiling.extraction(model, group.length or 5, device=str(method.settings["device"]))
    values = {name: Measured(value=getattr(found, name)) for name in ("p50", "p95", "fusion")}
    facts = {key: value for key, value in found.to_json().items() if key not in values and key != "size"}
    return {"values": values, "facts": {**facts, "dimension": found.descriptor}}


def matching(engine: str, database: int, dimensions: int, seed: int, length: int, folder: Path) -> Fields:
    """Fields of a `Cell`: milliseconds a query, megabytes, agreement with exact search; vectors lie in `folder`."""
    found = match_profiling.matching(engine, database, dimensions, seed=seed, length=length, folder=folder)
    values = {name: Measured(value=getattr(found, name)) for name in ("ms", "megabytes", "agreement")}
    facts = {key: value for key, value in asdict(found).items() if key not in values}
    return {"values": values, "facts": {**facts, "dimension": dimensions}, "database": database}
