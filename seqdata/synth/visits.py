"""Visits: date, light, season and camera of each drive through the synthetic streets."""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Visit:
    """The appearance of one visit. Colours are RGB in 0..1; lengths metres; angles degrees.

    `light` multiplies every surface, `ambient` is the share of light that has no direction, `sun` its bearing.
    `saturation`, `gamma` and `gain` are the camera's; `noise` and `blur` (0..1) too. `snow`, `leaves` and `wet`
    (0..1) dress roofs, trees and road; `lit` and `closed` are shares of windows. `spacing` is the distance
    between frames, `lane` the usual lateral offset and `parked` the share of kerb places taken.
    """

    name: str
    date: str
    night: bool
    light: Colour
    sky: tuple[Colour, Colour]
    ambient: float = 0.7
    sun: float = 180.0
    haze: float = 250.0
    saturation: float = 1.0
    gamma: float = 1.0
    gain: float = 1.0
    noise: float = 0.012
    blur: float = 0.15
    snow: float = 0.0
    leaves: float = 1.0
    leaf: Colour = (0.22, 0.38, 0.14)
    wet: float = 0.0
    lit: float = 0.0
    closed: float = 0.1
    spacing: float = 2.8
    lane: float = 2.0
    parked: float = 0.3
    bonnet: bool = False

    @property
    def winter(self) -> bool:
        """Whether the visit belongs to the cold half of the year (subtasks s2w and w2s)."""
        return self.snow > 0 or self.leaves < 0.5

    @property
    def year(self) -> int:
        """The year of `date` (subtasks o2n and n2o compare years)."""
        return int(self.date[:4])


VISITS: dict[str, Visit] = {
    visit.name: visit
    for visit in (
        Visit("summer", "2016-07-14", False, (1.0, 0.98, 0.92), ((0.30, 0.50, 0.85), (0.72, 0.82, 0.93)),
              ambient=0.55, sun=150.0, spacing=2.6, lane=1.8),
        Visit("winter", "2019-01-22", False, (0.78, 0.84, 0.95), ((0.70, 0.73, 0.78), (0.86, 0.87, 0.89)),
              ambient=0.95, haze=110.0, saturation=0.55, gamma=0.9, noise=0.02, blur=0.35, snow=0.85, leaves=0.1,
              lit=0.15, closed=0.3, spacing=3.3, lane=2.9, parked=0.4),
        Visit("night", "2018-11-03", True, (0.45, 0.40, 0.31), ((0.03, 0.03, 0.07), (0.13, 0.11, 0.12)),
              ambient=0.9, haze=160.0, saturation=0.8, gain=1.35, noise=0.03, blur=0.4, leaves=0.5,
              leaf=(0.30, 0.24, 0.10), lit=0.3, closed=0.45, spacing=2.9, lane=1.1, parked=0.5, bonnet=True),
        Visit("autumn", "2017-10-19", False, (1.0, 0.80, 0.58), ((0.48, 0.52, 0.66), (0.95, 0.76, 0.55)),
              ambient=0.45, sun=255.0, haze=180.0, gamma=1.15, noise=0.018, blur=0.25, leaves=0.7,
              leaf=(0.55, 0.32, 0.08), wet=0.6, lit=0.2, closed=0.2, spacing=3.0, lane=2.4, parked=0.25),
        Visit("spring", "2017-04-08", False, (0.90, 0.95, 1.0), ((0.45, 0.58, 0.75), (0.80, 0.85, 0.90)),
              ambient=0.7, sun=100.0, saturation=0.85, leaves=0.6, leaf=(0.40, 0.50, 0.20), wet=0.9, spacing=2.8),
    )
}  # fmt: skip
"""Every visit by name; the first of a city's database visits is the map's own appearance."""
