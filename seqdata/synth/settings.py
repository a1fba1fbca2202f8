"""Settings of a synthetic city (sizes, cities, visits), and the summary of a finished one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from seqdata.synth.visits import VISITS

if TYPE_CHECKING:
    from seqdata.synth.tracks import Track


@dataclass(frozen=True)
class CityPlan:
    """One city of the dump: its name, its split, where on Earth it lies and who drove through it when.

    `latitude` and `longitude` (degrees) anchor the local metres; a negative latitude makes a southern
    city, whose northings MSLS writes without the false northing. Visits are names of `visits.VISITS`. With a `track`
    the streets follow it (`along.city_along` makes such a plan), and `streets` counts nothing.
    """

    name: str
    split: str
    streets: int
    latitude: float
    longitude: float
    database: tuple[str, ...] = ("summer",)
    query: tuple[str, ...] = ("winter", "night")
    track: Track | None = None


DEMO_CITIES = (
    CityPlan("northfield", "train", 6, 52.0914, 5.1214, database=("summer", "autumn")),
    CityPlan("eastbridge", "val", 2, 55.6761, 12.5683),
    CityPlan("southport", "test", 4, -37.8136, 144.9631),
)


@dataclass(frozen=True)
class CitySettings:
    """Sizes of the synthetic dump; the defaults are those of the demo.

    Lengths are metres: `street_length` is the driven part of each street, `spacing` scales every visit's own
    distance between frames (1.0 = 2.4 to 3.4 m), `gnss_noise` is the standard deviation of a position,
    `lateral_spread` that of a contributor's offset in the lane. `width` and `height` are pixels, rendered
    `supersample` times finer. Each drive of a street is cut into `sequences` contributor trajectories;
    `occluded` is the share of frames with a vehicle close by. `corrupt` and `panorama` place one each.
    """

    width: int = 160
    height: int = 120
    supersample: int = 1
    quality: int = 90
    cities: tuple[CityPlan, ...] = DEMO_CITIES
    street_length: float = 170.0
    spacing: float = 1.0
    sequences: int = 2
    gnss_noise: float = 1.2
    lateral_spread: float = 0.6
    occluded: float = 0.15
    corrupt: bool = True
    panorama: bool = True

    def __post_init__(self) -> None:
        """Reject sizes nothing can be drawn at. Raises: ValueError with the field and its value."""
        least = {"width": 16, "height": 16, "supersample": 1, "sequences": 1, "street_length": 20.0, "spacing": 0.1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} is {getattr(self, name)}; the least is {low}")
        if not self.cities:
            raise ValueError("cities is empty; name at least one CityPlan")
        for plan in self.cities:
            unknown = sorted({*plan.database, *plan.query} - set(VISITS))
            if unknown or not plan.database or not plan.query or plan.streets < 1:
                raise ValueError(f"{plan}: needs a street and known visits of both roles ({', '.join(VISITS)})")


@dataclass(frozen=True)
class CitySummary:
    """What `write_msls` wrote: counts, the two odd files and where the protocol lies."""

    root: Path
    protocol: Path
    frames: int
    trajectories: int
    metres: float
    images: dict[str, dict[str, int]] = field(default_factory=dict)
    panoramas: tuple[Path, ...] = ()
    corrupt: tuple[Path, ...] = ()
    dropped: int = 0


def check_bounds(settings: object, bounds: Mapping[str, tuple[float, float]]) -> None:
    """Check that fields of settings lie within their bounds (least, greatest).

    Raises:
        ValueError: With the field, its value and the bounds.
    """
    for name, (low, high) in bounds.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}; it lies in {low} to {high}")


def generator(*parts: int | str) -> np.random.Generator:
    """Make a random generator that depends on `parts` alone (seed, city, street, purpose, ...)."""
    # CRC-32 and not hash(): Python salts the hash of a text anew in every process.
    return np.random.default_rng([crc32(p.encode()) if isinstance(p, str) else p for p in parts])
