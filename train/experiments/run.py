"""Running an experiment: cell by cell, each kept when done, each failure kept with its reason."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, Interrupted, OutputError, SeqdataError
from train.devices import pick_device
from train.experiments import grid as grids
from train.experiments.grid import Grid, Group
from train.experiments.measure import measures
from train.experiments.measure.artifacts import Workshop
from train.experiments.measure.cells import Cell, Store, key_of
from train.experiments.measure.scale import Scale, resolve
from train.experiments.measure.targets import Missing, Target, bind
from train.profiling import matching as match_profiling
from train.profiling import models as profiling
from train.runs.folder import environment

NOT_RUN = "not run (--only)"
DIMENSIONS: dict[Scale, int] = {"full": 4096, "smoke": 64}
Note = Callable[[str], None]
Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Request:
    """What to run: `only` some rows, at a `scale`, below the folder `out`; `protocol` in place of the datasets' own.

    Of the other rows, a result holds the cells that were measured before.

    `weights`: see `train.experiments.measure.scale.resolve`.
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


@dataclass(frozen=True)
class Result:
    """A grid with its cells: `cells[row][number of the group]`, `labels` of the groups, cells `computed` just now.

    `title`: what the columns really are; the grid's own where they are the paper's.
    """

    request: Request
    grid: Grid
    title: str
    labels: tuple[str, ...]
    cells: dict[str, tuple[Cell, ...]]
    computed: int


@dataclass(frozen=True)
class _Job:
    """A cell to be: what decides it and how it is measured, or the `reason` why it cannot be."""

    row: str
    inputs: dict[str, Any] = field(default_factory=dict)
    measure: Callable[[], Mapping[str, Any]] | None = None
    reason: str | None = None


def run(request: Request, note: Note | None = None, step: Step | None = None) -> Result:
    """Run an experiment below `request.out`, taking up what is there; a cell that fails keeps its reason.

    `note(line)` is told of every cell that is finished, `step(stage, done, total)` of what goes on within one.
    Raises: ContractError for an unknown experiment or row, or datasets that do not go together; OutputError where the
    folder cannot be written.
    """
    request = replace(request, name=grids.canonical(request.name))
    grid = grids.load(request.name)
    wanted = _wanted(grid, request.only)
    places = _places(grid, request)
    shop = Workshop(request.out, step or (lambda stage, done, total: None))
    store = Store(request.out / "cells")
    cells: dict[str, tuple[Cell, ...]] = {}
    computed = 0
    for row in grid.rows:
        of_row = []
        for place in places:
            cell, fresh = _cell(store, _job(request, grid, shop, row, place), row in wanted)
            computed += fresh
            of_row.append(cell)
            if note is not None and fresh:
                note(f"{row}, {place.label or 'test split'}: {cell.reason or f'{cell.seconds:.1f} s'}")
        cells[row] = tuple(of_row)
    return Result(request, grid, _title(grid, places), tuple(place.label for place in places), cells, computed)


def _wanted(grid: Grid, only: tuple[str, ...]) -> tuple[str, ...]:
    """The rows to measure. Raises: ContractError for one that it does not have."""
    unknown = [row for row in only if row not in grid.rows]
    if unknown:
        raise ContractError(f"{grid.paper}: no row '{unknown[0]}'; there are {', '.join(grid.rows)}")
    return only or grid.rows


@dataclass(frozen=True)
class _NoDataset:
    """A group that needs no dataset."""

    label: str
    group: Group


def _places(grid: Grid, request: Request) -> Sequence[Target | Missing | _NoDataset]:
    """Where each group is measured. Raises: ContractError where recalls are wanted of no dataset."""
    if grid.kind != "recall":
        return [_NoDataset(_label(group, request.scale), group) for group in grid.groups]
    if not request.datasets:
        raise ContractError(f"experiment {request.name} needs a dataset: seqdata experiment {request.name} DATASET")
    return bind(grid, request.datasets, request.protocol)


def _title(grid: Grid, places: Sequence[Target | Missing | _NoDataset]) -> str:
    papers = any(place.group in grid.groups for place in places)
    return grid.title if papers or grid.own_title is None else grid.own_title


def _label(group: Group, scale: Scale) -> str:
    return f"{group.small:,} vectors" if scale == "smoke" and group.small is not None else group.label


def _job(request: Request, grid: Grid, shop: Workshop, row: str, place: Target | Missing | _NoDataset) -> _Job:
    """One cell to be; what cannot be resolved becomes its reason."""
    if isinstance(place, Missing):
        return _Job(row, {"row": row, "label": place.label}, reason=place.reason)
    try:
        return _planned(request, grid, shop, row, place)
    except SeqdataError as error:
        return _Job(row, {"row": row, "label": place.label}, reason=f"{type(error).__name__}: {error}")


def _planned(request: Request, grid: Grid, shop: Workshop, row: str, place: Target | _NoDataset) -> _Job:
    if grid.kind == "matching":
        size = place.group.small if request.scale == "smoke" else place.group.database
        engine, length = grids.engine(row)
        sizes = (engine, size or 0, DIMENSIONS[request.scale], request.seed, length)
        inputs = {"matching": list(sizes), "recall_target": match_profiling.RECALL_TARGET, **_machine("cpu")}
        return _Job(row, inputs, partial(measures.matching, *sizes, request.out))
    method = resolve(grids.method(row), request.scale, request.weights, request.seed, request.device)
    inputs = {"kind": grid.kind, "method": method.inputs()}
    if isinstance(place, Target):
        return _Job(row, {**inputs, **place.inputs()}, partial(measures.recalls, shop, method, place))
    timed = {**inputs, "length": place.group.length, **_machine(request.device)}
    return _Job(row, timed, partial(measures.extraction, method, place.group))


def _machine(device: str) -> dict[str, Any]:
    """What times depend on."""
    return {"device": profiling.device_name(pick_device(device)), "threads": torch.get_num_threads()}


def _cell(store: Store, job: _Job, wanted: bool) -> tuple[Cell, bool]:
    """The finished cell of a job, or, where it is wanted, one measured now and kept; and whether it is new.

    Raises: OutputError and Interrupted, which end the grid; every other failure becomes the cell's reason.
    """
    key = key_of(job.inputs)
    if job.measure is None:
        return Cell(row=job.row, key=key, inputs=job.inputs, reason=job.reason if wanted else NOT_RUN), False
    found = store.read(key)
    if found is not None and (found.reason is None or not wanted):
        return found.model_copy(update={"row": job.row}), False
    if not wanted:
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
    except (SeqdataError, RuntimeError, MemoryError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    seconds = time.perf_counter() - start
    return Cell(
        row=job.row, key=key, inputs=job.inputs, reason=reason, seconds=seconds, environment=environment(), **fields
    )
