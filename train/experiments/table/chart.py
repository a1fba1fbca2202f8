"""The papers' two figures as numbers for an inline SVG: memory against recall, and extraction times as bars."""

import math
from dataclasses import dataclass

from train.experiments import grid as grids
from train.experiments.measure.cells import Cell
from train.experiments.run import Result

WIDTH, SCATTER, BAR = 760, 420, 34
TOP, RIGHT, BOTTOM = 24, 70, 44
# Colours of the page's style sheet; marks take them in turn.
SERIES = 6


@dataclass(frozen=True)
class Tick:
    """A tick: its position in SVG units and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A row in the figure: a dot with the line of its interval, or a bar. Convention: y grows downwards."""

    name: str
    label: str
    x: float
    y: float
    series: int
    spread: str = ""
    bar: str = ""


@dataclass(frozen=True)
class Chart:
    """A figure; all coordinates in SVG units of a `width` × `height` box."""

    title: str
    x_label: str
    caption: str
    marks: tuple[Mark, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    legend: tuple[str, ...]
    left: int
    right: int
    top: int
    bottom: int
    width: int
    height: int


def make_chart(result: Result) -> Chart | None:
    """The figure of a result, None where the experiment has none or no cell was measured."""
    finished = {row: cells[0] for row, cells in result.cells.items() if cells and cells[0].reason is None}
    if result.grid.chart is None or not finished:
        return None
    return _scatter(finished) if result.grid.chart == "memory" else _bars(finished)


def _scatter(cells: dict[str, Cell]) -> Chart:
    """Memory at inference, in logarithms, against R@1."""
    left, right, bottom = 52, WIDTH - RIGHT, SCATTER - BOTTOM
    memory = {row: float(cell.facts["memory"]) / 1e6 for row, cell in cells.items()}
    # A margin of 1.3 on a logarithmic axis, so that no mark sits on the frame.
    low, high = math.log10(min(memory.values()) / 1.3), math.log10(max(memory.values()) * 1.3)

    def x(megabytes: float) -> float:
        return round(left + (right - left) * (math.log10(megabytes) - low) / (high - low), 1)

    def y(share: float) -> float:
        return round(bottom - (bottom - TOP) * share, 1)

    marks = []
    for number, (row, cell) in enumerate(cells.items(), start=1):
        recall = cell.values["r1"]
        mark_x = x(memory[row])
        ends = recall.interval or (recall.value, recall.value)
        spread = f"M{mark_x} {y(ends[0])}V{y(ends[1])}"
        marks.append(Mark(row, str(number), mark_x, y(recall.value), (number - 1) % SERIES, spread))
    named = tuple(f"{number} {_name(row)}" for number, row in enumerate(cells, start=1))
    ticks = tuple(Tick(y(share / 100), str(share)) for share in range(0, 101, 20))
    steps = tuple(Tick(x(value), f"{value:g}") for value in _round_values(low, high))
    caption = "Vertical axis: R@1 in per cent, the line is its 95 % interval. Nearer to the upper left is better."
    x_label = "MB held while one sequence is described"
    return Chart("Recall against memory", x_label, caption, tuple(marks), steps, ticks,
                 named, left, right, TOP, bottom, WIDTH, SCATTER)  # fmt: skip


def _bars(cells: dict[str, Cell]) -> Chart:
    """Median time of one sequence, a bar a row; the colour tells convolutional from attention backbones."""
    left, right, bottom = 210, WIDTH - RIGHT, TOP + BAR * len(cells)
    times = {row: 1000 * cell.values["p50"].value for row, cell in cells.items()}
    # The axis ends on the tick above the longest bar.
    step = _step(max(times.values()))
    most = step * math.ceil(max(times.values()) / step)
    marks = []
    for number, (row, value) in enumerate(times.items()):
        y = TOP + BAR * number + BAR / 2
        x = round(left + (right - left) * value / most, 1)
        series = 1 if (grids.method(row).backbone or "") in ("r18", "r50", "vgg16") else 0
        marks.append(Mark(_name(row), f"{value:.1f}", x, y, series, bar=f"M{left} {y}H{x}"))
    ticks = tuple(
        Tick(round(left + (right - left) * value / most, 1), f"{value:g}")
        for value in (step * number for number in range(round(most / step) + 1))
    )
    caption = "Orange: convolutional backbones; blue: attention. Median over repeated single sequences."
    return Chart("Time of one sequence", "milliseconds", caption, tuple(marks), ticks, (), (), left, right, TOP, bottom,
                 WIDTH, bottom + BOTTOM)  # fmt: skip


def _name(row: str) -> str:
    """Method and backbone of a row, as a legend names it."""
    method = grids.method(row)
    backbone = f", {grids.backbones()[method.backbone].label}" if method.backbone else ""
    return f"{method.method}{backbone}"


def _round_values(low: float, high: float) -> list[float]:
    """1, 2, 5, 10 … between two powers of ten."""
    every = [digit * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for digit in (1, 2, 5)]
    return [value for value in every if low <= math.log10(value) <= high]


def _step(most: float) -> float:
    """A round distance of about five ticks up to `most`."""
    rough = 10.0 ** math.floor(math.log10(most / 5)) if most > 0 else 1.0
    return next(rough * digit for digit in (1, 2, 5, 10) if rough * digit >= most / 5)
