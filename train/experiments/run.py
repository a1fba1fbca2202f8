"""Running an experiment: cell by cell, each stored when finished, each failure stored with its reason."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, Interrupted, OutputError, SeqdataError
from seqdata.parallel import StageProgress
from train.devices import pick_device
from train.experiments import grid as grids
from train.experiments.grid import Grid, Group
from train.experiments.measure import counts, measures
from train.experiments.measure.artifacts import Artifacts
from train.experiments.measure.cells import Cell, CellStore, key_of
from train.experiments.measure.run_folders import find_runs
from train.experiments.measure.scale import Scale, resolve
from train.experiments.measure.targets import Missing, Target, bind
from train.profiling import matching as match_profiling
from train.profiling import models as profiling
from train.runs.folder import environment

NOT_RUN = "not run (--only)"
ON_DATASETS = ("recall", "counts")
"""Kinds of experiments that need a dataset."""
DIMENSIONS: dict[Scale, int] = {"full": 4096, "smoke": 64}
Note = Callable[[str], None]
"""A callback that prints one line."""


@dataclass(frozen=True)
class Request:
    """What to run: `only` some rows, at a `scale`, below the folder `out`; `protocol` in place of the datasets' own.

    Of the other rows, a result holds the cells that were measured before.

    `weights`: see `train.experiments.measure.scale.resolve`. `runs`: a folder of runs that the cells take in place of
    training them (see `train.experiments.measure.run_folders.find_runs`).
    """

    name: str
    out: Path
    datasets: Sequence[Dataset] = ()
    scale: Scale = "full"
    only: tuple[str, ...] = ()
    protocol: str | None = None
    weights: str = "default"
    device: str = "auto"
    seed: int = 0
    runs: Path | None = None


@dataclass(frozen=True)
class NoDataset:
    """A group that is bound to no dataset: nothing is measured on one, or each row has its own."""

    label: str
    group: Group


AnyTarget = Target | Missing | NoDataset
"""A group of columns, bound to what it is measured on."""


@dataclass(frozen=True)
class Result:
    """A grid with its cells: `cells[row][number of the target]`, `targets` of the groups, cells `computed` just now.

    `title`: what the columns really are; the grid's own where they are the paper's.
    """

    request: Request
    grid: Grid
    title: str
    targets: tuple[AnyTarget, ...]
    cells: dict[str, tuple[Cell, ...]]
    computed: int

    @property
    def labels(self) -> tuple[str, ...]:
        """What stands over each target's columns."""
        return tuple(target.label for target in self.targets)


@dataclass(frozen=True)
class _Job:
    """A cell to be: what decides it and how it is measured, or the `reason` why it cannot be."""

    row: str
    inputs: dict[str, Any] = field(default_factory=dict)
    measure: Callable[[], Mapping[str, Any]] | None = None
    reason: str | None = None


def run(request: Request, note: Note | None = None, step: StageProgress | None = None) -> Result:
    """Run an experiment below `request.out`, continuing from what is there; a cell that fails stores its reason.

    Args:
        request: What to run.
        note: Called with a line for every cell that is finished.
        step: Called with the stage within a cell, steps finished and steps in all.

    Returns:
        The grid with its cells.

    Raises:
        ContractError: If the experiment or a row is unknown, or the datasets do not go together.
        OutputError: If the folder cannot be written.
    """
    request = replace(request, name=grids.canonical(request.name))
    grid = grids.load(request.name)
    if grid.kind in ON_DATASETS and not request.datasets:
        raise ContractError(f"experiment {request.name} needs a dataset: seqdata experiment {request.name} DATASET")
    if grid.kind == "counts":
        grid = counts.on_datasets(grid, request.datasets, request.protocol)
    selected = _selected_rows(grid, request.only)
    targets = _targets(grid, request)
    artifacts = Artifacts(request.out, step or (lambda stage, finished, total: None))
    store = CellStore(request.out / "cells")
    cells: dict[str, tuple[Cell, ...]] = {}
    computed = 0
    for row in grid.rows:
        row_cells = []
        for target in targets:
            cell, fresh = _cell(store, _job(request, grid, artifacts, row, target), row in selected)
            computed += fresh
            row_cells.append(cell)
            if note is not None and fresh:
                note(f"{row}, {target.label or 'test split'}: {cell.reason or f'{cell.seconds:.1f} s'}")
        cells[row] = tuple(row_cells)
    return Result(request, grid, _title(grid, targets), tuple(targets), cells, computed)


def _selected_rows(grid: Grid, only: tuple[str, ...]) -> tuple[str, ...]:
    """The rows to measure. Raises: ContractError for one that it does not have."""
    unknown = [row for row in only if row not in grid.rows]
    if unknown:
        raise ContractError(f"{grid.paper}: no row '{unknown[0]}'; there are {', '.join(grid.rows)}")
    return only or grid.rows


def _targets(grid: Grid, request: Request) -> Sequence[AnyTarget]:
    """Bind each group to what it is measured on."""
    if grid.kind != "recall":
        return [NoDataset(_label(group, request.scale), group) for group in grid.groups]
    return bind(grid, request.datasets, request.protocol)


def _title(grid: Grid, targets: Sequence[AnyTarget]) -> str:
    papers = any(target.group in grid.groups for target in targets)
    return grid.title if papers or grid.own_title is None else grid.own_title


def _label(group: Group, scale: Scale) -> str:
    return f"{group.small:,} vectors" if scale == "smoke" and group.small is not None else group.label


def _job(request: Request, grid: Grid, artifacts: Artifacts, row: str, target: AnyTarget) -> _Job:
    """One cell to be; what cannot be resolved becomes its reason."""
    if isinstance(target, Missing):
        return _Job(row, {"row": row, "label": target.label}, reason=target.reason)
    try:
        return _planned(request, grid, artifacts, row, target)
    except SeqdataError as error:
        return _Job(row, {"row": row, "label": target.label}, reason=f"{type(error).__name__}: {error}")


def _planned(request: Request, grid: Grid, artifacts: Artifacts, row: str, target: Target | NoDataset) -> _Job:
    if grid.kind == "matching":
        size = target.group.small if request.scale == "smoke" else target.group.database
        engine, length = grids.engine(row)
        sizes = (engine, size or 0, DIMENSIONS[request.scale], request.seed, length)
        inputs = {"matching": list(sizes), "recall_target": match_profiling.RECALL_TARGET, **_machine("cpu")}
        return _Job(row, inputs, partial(measures.matching, *sizes, request.out))
    if grid.kind == "counts":
        count = counts.bind(grid, row, target.group, request.datasets, request.protocol)
        return _Job(row, count.inputs(), count.measure)
    method = resolve(grids.method(row), request.scale, request.weights, request.seed, request.device)
    inputs = {"kind": grid.kind, "method": method.inputs()}
    if isinstance(target, NoDataset):
        timed = {**inputs, "length": target.group.length, **_machine(request.device)}
        return _Job(row, timed, partial(measures.extraction, method, target.group))
    if request.runs is None:
        return _Job(row, {**inputs, **target.inputs()}, partial(measures.recalls, artifacts, method, target))
    runs = find_runs(request.runs, row, target.trained.name)
    inputs = {"kind": grid.kind, **method.search_inputs(), **runs.inputs(), **target.inputs()}
    return _Job(row, inputs, partial(measures.recalls, artifacts, method, target, runs))


def _machine(device: str) -> dict[str, Any]:
    """What times depend on."""
    return {"device": profiling.device_name(pick_device(device)), "threads": torch.get_num_threads()}


def _cell(store: CellStore, job: _Job, is_selected: bool) -> tuple[Cell, bool]:
    """The finished cell of a job, or one measured now and stored where it is selected; and whether it is new.

    Raises: OutputError and Interrupted, which end the grid; every other failure becomes the cell's reason.
    """
    key = key_of(job.inputs)
    if job.measure is None:
        return Cell(row=job.row, key=key, inputs=job.inputs, reason=job.reason if is_selected else NOT_RUN), False
    previous = store.read(key)
    if previous is not None and (previous.reason is None or not is_selected):
        # Rows of several grids that come to the same inputs share one file; the row's name is that of the grid at hand.
        return previous.model_copy(update={"row": job.row}), False
    if not is_selected:
        return Cell(row=job.row, key=key, inputs=job.inputs, reason=NOT_RUN), False
    cell = _measured(job, key, job.measure)
    store.write(cell)
    return cell, True


def _measured(job: _Job, key: str, measure: Callable[[], Mapping[str, Any]]) -> Cell:
    """The cell as it turns out now."""
    start = time.perf_counter()
    fields: Mapping[str, Any] = {}
    reason = None
    try:
        fields = measure()
    except (OutputError, Interrupted):
        raise
    # RuntimeError: what torch raises when a GPU's memory ends; the other cells may still fit.
    except (SeqdataError, RuntimeError, MemoryError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    seconds = time.perf_counter() - start
    return Cell(
        row=job.row, key=key, inputs=job.inputs, reason=reason, seconds=seconds, environment=environment(), **fields
    )
