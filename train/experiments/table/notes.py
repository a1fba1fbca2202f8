"""What stands below a table: what each group was measured on, and how the numbers were made."""

from collections.abc import Iterator
from typing import Any

from train.experiments import grid as grids
from train.experiments.measure.scale import SMALL_PCA
from train.experiments.run import Result


def legend(result: Result) -> Iterator[tuple[str, str]]:
    """For each group: protocol, conditions, counts; rows that differ have a line each."""
    for number, label in enumerate(result.labels):
        texts: dict[str, list[str]] = {}
        for row, cells in result.cells.items():
            cell = cells[number]
            if cell.protocol is not None:
                text = (
                    f"{cell.protocol}, {cell.conditions}; {cell.queries} queries counted, {cell.left_out} left out, "
                    f"{cell.database} database windows; 95 % intervals: {cell.interval_method}"
                )
                texts.setdefault(text, []).append(row)
        for text, rows in texts.items():
            suffix = f" ({', '.join(rows)})" if len(texts) > 1 else ""
            yield f"{label}{suffix}", text


def notes(result: Result) -> Iterator[str]:
    """What the grid says of itself; seed, weights, datasets, machine; what stands for what at smoke scale."""
    yield from result.grid.notes
    yield from _made_of(result)
    if result.grid.difference:
        yield "Diff.: second column against the first, relative; judge it by the intervals of both."
    machines = dict.fromkeys(
        f"{cell.inputs['device']}, {cell.inputs['threads']} threads"
        for cells in result.cells.values()
        for cell in cells
        if "device" in cell.inputs and cell.values
    )
    yield from (f"Measured on {machine}." for machine in machines)
    if any((cell.reason or "").startswith("MissingDependencyError") for row in result.cells.values() for cell in row):
        yield "Missing weights: name a folder with a file for each encoder by --weights, or take --weights random."
    if result.request.scale == "smoke" and result.grid.kind != "matching":
        yield from _stand_ins(result)
    if "memory" in result.grid.facts:
        yield "Memory: what torch holds at the most while one sequence is described, weights included."


def _made_of(result: Result) -> Iterator[str]:
    """Seed, weights at the start and datasets."""
    request = result.request
    default = "random" if request.scale == "smoke" else "pretrained"
    weights = default if request.weights == "default" else request.weights
    yield f"Seed {request.seed}." if result.grid.kind != "recall" else f"Seed {request.seed}; first weights: {weights}."
    yield from (f"Dataset {dataset.location}, id {dataset.id[:12]}." for dataset in request.datasets)


def _stand_ins(result: Result) -> Iterator[str]:
    """What really stands behind the backbones' names at smoke scale, of the rows that hold numbers."""
    # A stand-in of a row without numbers says nothing about what the table shows.
    filled = [row for row, cells in result.cells.items() if any(cell.values for cell in cells)]
    used = dict.fromkeys(grids.method(row).backbone for row in filled)
    named = {name: backbone for name, backbone in grids.backbones().items() if name in used}
    texts = [f"{backbone.label} is {backbone.small['encoder']}{_cut(backbone.small)}" for backbone in named.values()]
    if texts:
        yield f"Small stand-ins: {', '.join(texts)}; 4096 dimensions are {SMALL_PCA}."


def _cut(options: dict[str, Any]) -> str:
    return f" to {options['cut']}" if "cut" in options else ""
