"""Maps of a dataset's frames in metres, one a city and view: coloured by role, split, heading, speed or light."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer.report.maps import MOST_CITIES, dots, fit_box, place_points, round_length
from seqdata.geometry import BoolArray, Float64Array

Labels = npt.NDArray[np.str_]
# Edges in m/s: standing (as in seqdata.dataset.info), walking pace, a street, a main road, a railway.
SPEEDS = ((0.5, "standing"), (5.0, "below 5 m/s"), (10.0, "5 to 10 m/s"), (20.0, "10 to 20 m/s"))
FASTEST, UNKNOWN = "20 m/s and more", "unknown"
QUARTERS = ("north", "east", "south", "west")
# Series of the style sheet; the grey one is what is unknown.
COLOURS, GREY = (0, 1, 4, 3, 5), 2


@dataclass(frozen=True, eq=False)
class Colouring:
    """A way to colour frames: its title, the label of each frame (n,), and all labels in the order of drawing."""

    title: str
    labels: Labels
    names: tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """Marks of one colour: name, frames, series of the style sheet, stroke width, and path data."""

    name: str
    frames: int
    series: int
    size: float
    path: str


@dataclass(frozen=True)
class View:
    """One way to colour a map: a key for the style sheet, a title, and its layers, drawn in their order."""

    key: str
    title: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class CityMap:
    """The map of one city, in all views: box in SVG units, scale bar."""

    city: str
    width: float
    height: float
    bar: float
    bar_label: str
    views: tuple[View, ...]


def speed_classes(speed: Float64Array) -> Labels:
    """Name the class of each speed (n,) in metres a second; not finite is unknown."""
    edges = np.array([edge for edge, _ in SPEEDS])
    names = np.array([*(name for _, name in SPEEDS), FASTEST])
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(speed), names[np.searchsorted(edges, speed, side="right")], UNKNOWN)


def heading_quarters(heading: Float64Array) -> Labels:
    """Name the quarter that each heading (n,) faces.

    Convention: degrees clockwise from north; north is 315 to 45; not finite is unknown.
    """
    quarter = np.nan_to_num((heading + 45.0) % 360.0 // 90.0).astype(int)
    return np.where(np.isfinite(heading), np.array(QUARTERS)[quarter], UNKNOWN)


def light(night: pl.Series) -> Labels:
    """Name day or night of each frame; a dump that does not say is unknown."""
    return (
        night.replace_strict({True: "night", False: "day"}, default=UNKNOWN, return_dtype=pl.String)
        .to_numpy()
        .astype(np.str_)
    )


def make_city_maps(city: Labels, xy: Float64Array, colourings: dict[str, Colouring]) -> tuple[CityMap, ...]:
    """Draw the cities with the most frames, at most six.

    Args:
        city: City of each frame, (n,).
        xy: Easting and northing in metres, (n, 2).
        colourings: Views by their key in the style sheet.
    """
    names, counts = np.unique(city, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_CITIES]
    return tuple(_city_map(str(names[row]), city == names[row], xy, colourings) for row in order)


def _city_map(city: str, mask: BoolArray, xy: Float64Array, colourings: dict[str, Colouring]) -> CityMap:
    """Draw one city."""
    corner, scale, width, height = fit_box(xy[mask])
    points = place_points(xy[mask], corner, scale, height)
    bar = round_length(0.3 * (width - 36) / scale)
    views = tuple(
        View(key, colouring.title, _layers(points, colouring.labels[mask], colouring.names))
        for key, colouring in colourings.items()
    )
    label = f"{bar / 1000:g} km" if bar >= 1000 else f"{bar:g} m"
    return CityMap(city, round(width, 1), round(height, 1), round(bar * scale, 1), label, views)


def _layers(points: Float64Array, values: Labels, names: tuple[str, ...]) -> tuple[Layer, ...]:
    """Draw each label's frames; later layers are thinner, so that a route driven twice shows both."""
    present = [name for name in names if (values == name).any()]
    colours = {name: number for number, name in enumerate(name for name in names if name != UNKNOWN)}
    layers = []
    for number, name in enumerate(present):
        series = COLOURS[colours[name] % len(COLOURS)] if name in colours else GREY
        size = max(7.0 - 2.0 * number, 2.0)
        layers.append(Layer(name, int((values == name).sum()), series, size, dots(points[values == name])))
    return tuple(layers)
