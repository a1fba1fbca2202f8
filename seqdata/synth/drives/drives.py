"""Contributor trajectories of a city: true poses, noisy positions and passing vehicles.

Convention: metres of layout.py; `compass` is degrees clockwise from north with a few degrees of error.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from seqdata.geometry import FloatArray, IntArray
from seqdata.synth.settings import CityPlan, CitySettings, generator
from seqdata.synth.visits import Visit
from seqdata.synth.world.layout import MARGIN, Street

ALPHABET = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
CAR, TRUCK = 3, 4


@dataclass(frozen=True)
class Trajectory:
    """One contributor sequence: `n` frames along a street in one visit.

    `position` `(n, 2)` is where the camera was, `measured` `(n, 2)` what the receiver said (local metres);
    `heading` and `compass` `(n,)` degrees; `number` `(n,)` the frame numbers; `close` n arrays `(k, 5)` of vehicles.
    """

    key: str
    keys: list[str]
    street: Street
    visit: Visit
    role: str
    number: IntArray
    position: FloatArray
    measured: FloatArray
    heading: FloatArray
    compass: FloatArray
    close: list[FloatArray]
    rig: tuple[float, float, float]
    dropped: int

    def __len__(self) -> int:
        return len(self.keys)


def random_keys(count: int, rng: np.random.Generator) -> list[str]:
    """Draw keys as MSLS has them: 22 characters of `[A-Za-z0-9_-]`."""
    return ["".join(row) for row in ALPHABET[rng.integers(64, size=(count, 22))]]


def image_keys(count: int, rng: np.random.Generator) -> list[str]:
    """Draw keys of which the first begins with '-', so that even the smallest dump tests names like an option."""
    keys = random_keys(count, rng)
    return ["-" + keys[0][1:], *keys[1:]]


def drive(street: Street, visit: Visit, role: str, settings: CitySettings, seed: int) -> list[Trajectory]:
    """Drive one street in one visit; a trajectory ends where the next contributor begins.

    Args:
        street: The street.
        visit: Light, season and camera.
        role: "database" or "query".
        settings: Spacing, noise and number of contributors.
        seed: The same seed gives the same drive.
    """
    cuts = np.linspace(0.0, street.length, settings.sequences + 1)
    return [
        _trajectory(
            street,
            visit,
            role,
            (float(a), float(b)),
            settings,
            generator(seed, street.key, visit.name, role, i),
        )
        for i, (a, b) in enumerate(pairwise(cuts))
    ]


def _trajectory(
    street: Street,
    visit: Visit,
    role: str,
    part: tuple[float, float],
    settings: CitySettings,
    rng: np.random.Generator,
) -> Trajectory:
    """One contributor's run over metres `part` of a street."""
    s = _marks(part, visit.spacing * settings.spacing, rng)
    number = rng.integers(0, 400) + np.arange(len(s))
    # A frame that the contributor deleted: real sequences have gaps in their numbers too.
    dropped = len(s) > 8 and rng.random() < 0.3
    if dropped:
        keep = np.arange(len(s)) != rng.integers(2, len(s) - 2)
        s, number = s[keep], number[keep]
    lateral = visit.lane + rng.normal(0, settings.lateral_spread) + _drift(len(s), 0.25, rng)
    position, heading = street.pose(s, lateral)
    return Trajectory(
        random_keys(1, rng)[0],
        image_keys(len(s), rng),
        street,
        visit,
        role,
        number,
        position,
        position + np.stack([_drift(len(s), settings.gnss_noise, rng) for _ in range(2)], -1),
        heading + _drift(len(s), 1.5, rng),
        (heading + rng.normal(0, 3.0) + rng.normal(0, 2.0, len(s))) % 360.0,
        _traffic(street, s, lateral, settings.occluded, rng),
        (float(rng.uniform(74, 82)), float(rng.uniform(-1.5, 1.5)), float(rng.uniform(1.5, 1.9))),
        int(dropped),
    )


def _marks(part: tuple[float, float], spacing: float, rng: np.random.Generator) -> FloatArray:
    """Metres `s` of the frames: a fixed rate at a speed that wanders by a quarter."""
    count = max(1, int((part[1] - part[0]) / spacing))
    steps = spacing * np.clip(1.0 + _drift(count, 0.2, rng), 0.5, 1.6)
    marks = part[0] + rng.uniform(0, spacing) + np.cumsum(steps) - steps[0]
    return np.asarray(marks[marks <= part[1] + spacing])


def _drift(count: int, size: float, rng: np.random.Generator) -> FloatArray:
    """Slowly changing error of standard deviation `size`, `(count,)` (first-order, correlation 0.9 a frame)."""
    # An AR(1) process: with 0.9 and √(1 − 0.81) its variance stays 1.
    out, last = np.empty(count), rng.normal()
    for i in range(count):
        out[i] = last = 0.9 * last + np.sqrt(1 - 0.81) * rng.normal()
    return out * size


def _traffic(
    street: Street, s: FloatArray, lateral: FloatArray, share: float, rng: np.random.Generator
) -> list[FloatArray]:
    """Vehicles in front of a run of one to four frames: in the own lane, or oncoming. Lists `(k, 5)`."""
    close: list[FloatArray] = []
    frames_left, ahead, side, size = 0, 0.0, 0.0, (1.5, 1.8, CAR)
    for metres, lane in zip(s, lateral, strict=True):
        # A vehicle stays 2.5 frames in the mean, so it appears at share / 2.5 of the free frames.
        if frames_left == 0 and rng.random() < share / 2.5:
            frames_left = int(rng.integers(1, 5))
            side = lane + rng.normal(0, 0.4) if rng.random() < 0.6 else -rng.uniform(1.8, 2.8)
            ahead = rng.uniform(5.0, 13.0)
            size = (3.2, 2.5, TRUCK) if rng.random() < 0.5 else (1.5, 1.8, CAR)
        place, _ = street.pose(np.array([metres + ahead]), np.array([side]))
        close.append(np.array([[*place[0], *size]]) if frames_left else np.zeros((0, 5)))
        frames_left = max(0, frames_left - 1)
    return close


def parked(street: Street, visit: Visit, seed: int) -> FloatArray:
    """Place cars and vans at the kerb in one visit: `(N, 5)` x, y, height, width (metres), kind."""
    rng = generator(seed, street.key, visit.name, "parked")
    marks = np.arange(-MARGIN, street.length + MARGIN - 4.0, 6.5)
    rows = []
    for side in (-1.0, 1.0):
        places = marks[rng.random(len(marks)) < visit.parked] + rng.uniform(0, 2.0)
        spots, _ = street.pose(places, np.full(len(places), side * (street.kerb - 0.9)))
        van = rng.random(len(places)) < 0.2
        rows += [
            (x, y, *((2.3, 2.0, TRUCK) if is_van else (1.5, 1.8, CAR)))
            for (x, y), is_van in zip(spots, van, strict=True)
        ]
    return np.array(rows).reshape(-1, 5)


def city_drives(
    plan: CityPlan, streets: list[Street], visits: dict[str, Visit], settings: CitySettings, seed: int
) -> list[Trajectory]:
    """Drive every street of a city, street by street and visit by visit (the order in which they are rendered).

    Args:
        plan: The city.
        streets: Its streets.
        visits: Visits by name.
        settings: Sizes.
        seed: The same seed gives the same drives.
    """
    roles = [("database", name) for name in plan.database] + [("query", name) for name in plan.query]
    return [
        one for street in streets for role, name in roles for one in drive(street, visits[name], role, settings, seed)
    ]
