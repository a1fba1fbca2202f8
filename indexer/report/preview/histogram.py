"""Histograms as path data for inline SVG."""

from dataclasses import dataclass

import numpy as np

from seqdata.geometry import Float64Array

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 360.0, 190.0, 52.0, 150.0, 14.0
BINS = 30  # bars of 10 units: wide enough to be told from each other on a phone
CLIPPED = 0.99  # a few jumps would squeeze all else into the first bar, so the last bar holds the rest


@dataclass(frozen=True)
class Histogram:
    """One histogram: SVG path of its bars, labels of both axes, and what it counts in words."""

    title: str
    unit: str
    bars: str
    labels: tuple[tuple[float, str], ...]
    greatest: int
    summary: str


def make_histogram(title: str, unit: str, values: Float64Array, *, is_whole: bool = False) -> Histogram | None:
    """Count values (n,) in at most 30 bars; None without a finite value.

    The axis begins at 0 and ends at the 99th percentile; the last bar holds what lies beyond.

    Args:
        title: Its title.
        unit: Unit of the values.
        values: What is counted, not negative; values that are not finite are left out.
        is_whole: Whether values are whole numbers, each of which then has one bar where there is room.

    Example:
        >>> make_histogram("Step", "m", np.array([1.0, 2.0, 2.0])).summary
        '3 values, median 2 m, greatest 2 m'
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    end = float(np.quantile(finite, CLIPPED)) or 1.0
    if is_whole:
        width = np.ceil((end + 1) / BINS)
        edges = np.arange(0.0, end + 1 + width, width)
    else:
        edges = np.linspace(0.0, end, BINS + 1)
    counts, _ = np.histogram(np.minimum(finite, np.nextafter(edges[-1], 0)), edges)
    step = (WIDTH - LEFT - 10) / len(counts)
    heights = np.round(counts / counts.max() * (BOTTOM - TOP), 1)
    bars = "".join(
        f"M{LEFT + number * step:.1f} {BOTTOM:g}v{-height:g}h{max(step - 1, 0.5):.1f}v{height:g}z"
        for number, height in enumerate(heights)
        if height > 0
    )
    median, greatest = (_number(value) for value in (np.median(finite), finite.max()))
    ticks = [0, len(counts) // 2, len(counts)]
    return Histogram(
        title=title,
        unit=unit,
        bars=bars,
        labels=tuple((round(LEFT + tick * step, 1), _number(edges[tick])) for tick in ticks),
        greatest=int(counts.max()),
        summary=f"{len(finite):,} values, median {median} {unit}, greatest {greatest} {unit}",
    )


def _number(value: float) -> str:
    """Three digits, and whole numbers from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
