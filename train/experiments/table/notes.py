"""What stands below a table: what each group was measured on, and how the numbers were made."""

from collections.abc import Iterator

from train.experiments import grid as grids
from train.experiments.grid import Method
from train.experiments.measure.cells import Cell
from train.experiments.measure.scale import SMALL_PCA, SMALL_STA, small_model
from train.experiments.run import Result
from train.models import registry as models


def legend(result: Result) -> Iterator[tuple[str, str]]:
    """For each group: protocol, conditions, counts; rows that differ have a line each."""
    for number, label in enumerate(result.labels):
        texts: dict[str, list[str]] = {}
        for row, cells in result.cells.items():
            cell = cells[number]
            if cell.protocol is not None:
                texts.setdefault(_conditions(cell), []).append(row)
        for text, rows in texts.items():
            suffix = f" ({', '.join(rows)})" if len(texts) > 1 else ""
            yield f"{label}{suffix}", text


def _conditions(cell: Cell) -> str:
    """Protocol of a cell; of recalls their conditions and counts too."""
    if cell.queries is None:
        return str(cell.protocol)
    return (
        f"{cell.protocol}, {cell.conditions}; {cell.queries} queries counted, {cell.left_out} left out, "
        f"{cell.database} database windows; 95 % intervals: {cell.interval_method}"
    )


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
    if result.request.scale == "smoke" and result.grid.kind in ("recall", "extraction"):
        yield from _stand_ins(result)
    if result.request.runs is not None:
        yield f"Models are those of the runs in {result.request.runs}; none was trained here."
    if "memory" in result.grid.facts:
        yield "Memory: what torch holds at the most while one sequence is described, weights included."


def _made_of(result: Result) -> Iterator[str]:
    """Seed, weights at the start and datasets."""
    request = result.request
    default = "random" if request.scale == "smoke" else "pretrained"
    weights = default if request.weights == "default" else request.weights
    if result.grid.kind != "counts":
        start = "" if result.grid.kind != "recall" or request.runs is not None else f"; first weights: {weights}"
        yield f"Seed {request.seed}{start}."
    yield from (f"Dataset {dataset.location}, id {dataset.id[:12]}." for dataset in request.datasets)


def _stand_ins(result: Result) -> Iterator[str]:
    """What really stands behind the rows' names at smoke scale, of the rows that hold numbers."""
    # A stand-in of a row without numbers says nothing about what the table shows.
    filled = [row for row, cells in result.cells.items() if any(cell.values for cell in cells)]
    texts = dict.fromkeys(_stand_in(grids.method(row)) for row in filled)
    if texts:
        yield f"Small stand-ins: {', '.join(texts)}; 4096 dimensions are {SMALL_PCA}."


def _stand_in(method: Method) -> str:
    """A row's backbone, else its model, and the encoder that stands for it on small data."""
    name, options = small_model(method)
    encoder = models.resolve(name, options)
    label = method.method if method.backbone is None else grids.backbones()[method.backbone].label
    # STA's small preset has another backbone than its rows name.
    label = "STA" if name == SMALL_STA else label
    cut = f" to {encoder.cut}" if getattr(encoder, "cut", None) else ""
    return f"{label} is {encoder.encoder}{cut}"
