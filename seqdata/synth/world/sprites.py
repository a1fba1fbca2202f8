"""Objects that stand or drive in the street, as flat pictures `(h, w, 4)` RGBA float32, row 0 at the top."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqdata.geometry import FloatArray
from seqdata.synth.visits import Visit

KINDS = ("tree", "lamp", "box", "car", "truck")
VARIANTS = 6
SIZE = 48


def sprite_set(visit: Visit, rng: np.random.Generator) -> dict[tuple[int, int], FloatArray]:
    """Draw all pictures of a visit by (kind, variant), already lit."""
    makers = (_tree, _lamp, _box, _car, _truck)
    return {
        (kind, variant): maker(visit, rng).astype(np.float32)
        for kind, maker in enumerate(makers)
        for variant in range(VARIANTS)
    }


def _blank(colour: Any, visit: Visit) -> FloatArray:
    """A transparent picture whose hidden colour is already lit."""
    picture = np.zeros((SIZE, SIZE, 4), np.float32)
    picture[..., :3] = np.clip(np.asarray(colour) * np.asarray(visit.light), 0, 1)
    return picture


def _grid() -> tuple[FloatArray, FloatArray]:
    """Picture coordinates: x in -1..1, y in 0..1 from the top, as `(SIZE, SIZE)` arrays."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / (SIZE - 1.0)
    return 2 * x - 1, y


def _tree(visit: Visit, rng: np.random.Generator) -> FloatArray:
    """A trunk with twigs, and as much crown as the season leaves."""
    x, y = _grid()
    picture = _blank((0.20, 0.15, 0.11), visit)
    trunk = (np.abs(x) < 0.09) & (y > 0.3)
    twigs = np.zeros_like(trunk)
    for lean in rng.uniform(-1.1, 1.1, 7):
        twigs |= (np.abs(x - lean * (0.62 - y)) < 0.05) & (y < 0.62) & (y > 0.06)
    crown = (x / 0.95) ** 2 + ((y - 0.36) / 0.36) ** 2 < 1 + rng.normal(0, 0.15, x.shape)
    leaves = crown & (rng.random(x.shape) < visit.leaves)
    # Leaves get a colour of their own over the lit picture, so that they are lit here.
    leaf = np.asarray(visit.leaf) * np.asarray(visit.light)
    picture[leaves, :3] = leaf * rng.uniform(0.6, 1.3, (int(leaves.sum()), 1))
    white = (trunk | twigs) & (rng.random(x.shape) < 0.5 * visit.snow)
    picture[white, :3] = 0.9
    picture[..., 3] = trunk | twigs | leaves
    return picture


def _lamp(visit: Visit, rng: np.random.Generator) -> FloatArray:
    """A pole with an arm; the lamp shines at night."""
    x, y = _grid()
    picture = _blank((0.25, 0.26, 0.27), visit)
    head = (y < 0.05) & (np.abs(x) < 0.6)
    if visit.night:
        picture[head, :3] = (1.0, 0.92, 0.7)
    picture[..., 3] = (np.abs(x) < 0.12) | head
    return picture


def _box(visit: Visit, rng: np.random.Generator) -> FloatArray:
    """A cabinet, bin or box on the pavement."""
    picture = _blank(rng.uniform(0.15, 0.7, 3), visit)
    picture[: SIZE // 6, :, :3] *= 0.6
    picture[..., 3] = 1.0
    return picture


def _car(visit: Visit, rng: np.random.Generator) -> FloatArray:
    """A car seen from behind: cabin, window, body, lights, wheels."""
    x, y = _grid()
    picture = _blank(rng.uniform(0.08, 0.85) + rng.uniform(-0.08, 0.08, 3), visit)
    cabin = (y < 0.45) & (np.abs(x) < 0.55 + 0.6 * y)
    body = (y >= 0.45) & (y < 0.9)
    wheels = (y >= 0.85) & (np.abs(np.abs(x) - 0.72) < 0.16)
    picture[(y > 0.1) & (y < 0.4) & (np.abs(x) < 0.5 + 0.5 * y), :3] = 0.08
    picture[wheels, :3] = 0.03
    picture[(np.abs(y - 0.58) < 0.06) & (np.abs(x) > 0.75), :3] = (0.9, 0.1, 0.08) if visit.night else (0.4, 0.08, 0.07)
    if visit.snow:
        picture[(y < 0.08) & cabin, :3] = 0.9
    picture[..., 3] = cabin | body | wheels
    return picture


def _truck(visit: Visit, rng: np.random.Generator) -> FloatArray:
    """A van or lorry: a tall dark box."""
    x, y = _grid()
    picture = _blank(rng.uniform(0.08, 0.4) + rng.uniform(-0.05, 0.05, 3), visit)
    picture[(y > 0.12) & (y < 0.35) & (np.abs(x) < 0.7), :3] *= 0.5
    picture[(np.abs(y - 0.8) < 0.03) & (np.abs(x) > 0.7), :3] = (0.8, 0.1, 0.08)
    picture[y > 0.93, :3] = 0.03
    picture[..., 3] = (y < 0.93) | (np.abs(np.abs(x) - 0.7) < 0.2)
    return picture
