"""The recall curve as numbers for an inline SVG: lines, interval bands, ticks."""

from collections.abc import Sequence
from dataclasses import dataclass

from indexer.evaluation.recall import Evaluation

WIDTH, HEIGHT = 520, 320
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 40
DASHES = ("", "7 4", "2 4", "9 3 2 3")  # lines differ without colour too; six colours and four dashes repeat late


@dataclass(frozen=True)
class Tick:
    """A tick: its position along the axis in SVG units and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """One method's curve: SVG path data of the line and of its band, series number (colour) and dash pattern."""

    name: str
    path: str
    band: str
    marks: tuple[tuple[float, float], ...]
    series: int
    dash: str


@dataclass(frozen=True)
class Curve:
    """A whole chart; all coordinates in SVG units of a `width` × `height` box."""

    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def make_curve(evaluations: Sequence[Evaluation]) -> Curve:
    """Draw R@1 … R@max of evaluations of one protocol.

    Convention: SVG's y grows downwards, shares upwards.
    """
    # Curves of different depth share one axis, so that they can be read against each other.
    most = max(len(evaluation.curve) for evaluation in evaluations)
    lines = tuple(_line(evaluation, number, most) for number, evaluation in enumerate(evaluations))
    # Every fifth N is labelled, because all would not fit the width.
    labelled = [n for n in range(1, most + 1) if n == 1 or n % 5 == 0]
    return Curve(
        lines=lines,
        x_ticks=tuple(Tick(_x(n, most), str(n)) for n in labelled),
        y_ticks=tuple(Tick(_y(share / 100), f"{share}") for share in range(0, 101, 20)),
    )


def _line(evaluation: Evaluation, number: int, most: int) -> Line:
    """The curve of one evaluation, the `number`-th of the chart."""
    points = [(_x(n, most), _y(share)) for n, share in enumerate(evaluation.curve, start=1)]
    # The band runs along the upper ends and back along the lower ones as one closed path.
    low = [(_x(n, most), _y(bounds[0])) for n, bounds in enumerate(evaluation.curve_interval, start=1)]
    high = [(_x(n, most), _y(bounds[1])) for n, bounds in enumerate(evaluation.curve_interval, start=1)]
    return Line(
        name=evaluation.method,
        path=_path(points),
        band=_path([*high, *reversed(low)]) + "Z",
        marks=tuple(points[n - 1] for n in evaluation.recall),
        series=number % 6,
        dash=DASHES[number % len(DASHES)],
    )


def _x(n: int, most: int) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * (n - 1) / max(most - 1, 1), 1)


def _y(share: float) -> float:
    return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 1)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
