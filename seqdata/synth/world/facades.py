"""Façades: a texture for every building, and its look in one visit.

A texture is `(V, U, 3)` float32 in 0..1, `PPM` texels a metre, row 0 at the ground. Beside it lies a label map
`(V, U)` int32: texels of one label are one changeable thing (a window, an awning, a poster, a snowable ledge).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from seqdata.geometry import FloatArray, Int32Array
from seqdata.synth.visits import Visit

PPM = 8
"""Texels a metre."""
TALLEST = 24.0
"""Height of a texture in metres; no building reaches above it."""
WINDOW, AWNING, POSTER, LEDGE = range(1, 5)
WALLS = np.array(
    [
        [0.62, 0.32, 0.24], [0.45, 0.24, 0.20], [0.80, 0.72, 0.55], [0.86, 0.83, 0.76], [0.55, 0.55, 0.56],
        [0.70, 0.58, 0.44], [0.42, 0.46, 0.52], [0.78, 0.60, 0.50], [0.36, 0.33, 0.31], [0.66, 0.70, 0.64],
    ],
    dtype=np.float32,
)  # fmt: skip


@dataclass
class Sheet:
    """A texture being painted: `albedo (V, U, 3)`, `labels (V, U)`, and each label's kind (label 0 is fixed)."""

    albedo: FloatArray
    labels: Int32Array
    kinds: list[int]
    roof: FloatArray

    def fill(self, v0: float, v1: float, u0: float, u1: float, colour: Any, kind: int = 0) -> None:
        """Paint the rectangle of metres `[v0, v1) x [u0, u1)`; a `kind` makes it one changeable thing."""
        box = tuple(slice(max(0, round(a * PPM)), max(0, round(b * PPM))) for a, b in ((v0, v1), (u0, u1)))
        self.albedo[box] = colour
        self.labels[box] = len(self.kinds) if kind else 0
        if kind:
            self.kinds.append(kind)


def paint(width: float, height: float, rng: np.random.Generator) -> Sheet:
    """Paint one building `width` metres wide with its eaves at `height` metres, unlike any other."""
    U, V = round(width * PPM), round(TALLEST * PPM)
    wall = np.clip(WALLS[rng.integers(len(WALLS))] + rng.normal(0, 0.06, 3), 0.08, 0.95)
    albedo = np.broadcast_to(wall, (V, U, 3)).astype(np.float32)
    sheet = Sheet(albedo, np.zeros((V, U), np.int32), [0], _roof_line(U, width, height, rng))
    _masonry(sheet, wall, rng)
    _windows(sheet, width, height, wall, rng)
    _ground_floor(sheet, width, wall, rng)
    _roof(sheet, height, rng)
    return sheet


def _roof_line(U: int, width: float, height: float, rng: np.random.Generator) -> FloatArray:
    """Height in metres of every texel column: flat, gabled, stepped or with a chimney."""
    x = (np.arange(U) + 0.5) / U
    roof = np.full(U, height, np.float32)
    kind = rng.integers(4)
    if kind == 1:
        roof += (1.0 - np.abs(2 * x - 1)) * min(4.0, width / 3)
    elif kind == 2:
        roof += np.floor((1.0 - np.abs(2 * x - 1)) * 4) * 0.8
    if rng.random() < 0.6:
        at = rng.uniform(0.1, 0.85)
        roof[(x > at) & (x < at + 0.8 / width)] += rng.uniform(0.8, 1.8)
    return np.minimum(roof, TALLEST - 0.2)


def _masonry(sheet: Sheet, wall: FloatArray, rng: np.random.Generator) -> None:
    """Stains, and courses or panels, so that blank walls differ too."""
    V, U = sheet.labels.shape
    # Coarse noise, each value repeated over 16 × 16 texels (np.kron): stains of 2 m.
    stain = rng.normal(0, 0.05, (V // 16 + 1, U // 16 + 1)).astype(np.float32)
    sheet.albedo += np.kron(stain, np.ones((16, 16), np.float32))[:V, :U, None]
    style, pitch = rng.integers(4), int(rng.integers(6, 28))
    if style == 1:
        sheet.albedo[::pitch] *= rng.uniform(0.6, 0.8)
    elif style == 2:
        sheet.albedo[:, ::pitch] *= rng.uniform(0.6, 0.8)
    elif style == 3:
        band = np.clip(wall * rng.uniform(0.6, 1.4), 0, 1)
        sheet.albedo[(np.arange(V) // (pitch * 2)) % 2 == 1] = band


def _windows(sheet: Sheet, width: float, height: float, wall: FloatArray, rng: np.random.Generator) -> None:
    """A grid of windows above the ground floor, each a thing that may be lit, dark or shuttered."""
    floor, bay = rng.uniform(2.7, 3.9), rng.uniform(1.7, 4.2)
    bays = max(1, int((width - 1.0) / bay))
    bay = (width - 1.0) / bays
    w, h, sill = bay * rng.uniform(0.35, 0.8), floor * rng.uniform(0.4, 0.72), floor * rng.uniform(0.15, 0.25)
    frame = np.clip(wall + rng.choice([-0.3, 0.3, 0.45]), 0.05, 1.0)
    mullion, balcony = rng.random() < 0.5, rng.random() < 0.3
    skip = rng.random((12, bays)) < rng.choice([0.0, 0.15])
    for row, v in enumerate(np.arange(rng.uniform(3.4, 4.6), height - h - sill - 0.2, floor)):
        for column in np.flatnonzero(~skip[min(row, 11)]):
            u = 0.5 + bay * (column + 0.5) - w / 2
            sheet.fill(v + sill - 0.15, v + sill + h + 0.15, u - 0.15, u + w + 0.15, frame)
            sheet.fill(v + sill, v + sill + h, u, u + w, 0.25, WINDOW)
            if mullion:
                sheet.fill(v + sill, v + sill + h, u + w / 2 - 0.06, u + w / 2 + 0.07, frame)
            sheet.fill(v + sill - 0.3, v + sill - 0.12, u - 0.2, u + w + 0.2, frame * 0.8, LEDGE)
        if balcony:
            sheet.fill(v, v + 0.7, 0.5, width - 0.5, frame * 0.6)


def _ground_floor(sheet: Sheet, width: float, wall: FloatArray, rng: np.random.Generator) -> None:
    """A shop with sign and awning, a garage, or a door between windows; sometimes a poster."""
    kind = rng.integers(3)
    dark = np.clip(wall * 0.5, 0, 1)
    sheet.fill(0.0, rng.uniform(0.3, 0.9), 0.0, width, dark)
    door = rng.uniform(0.1, 0.8) * (width - 1.4)
    if kind == 0:
        sheet.fill(0.5, 2.7, 0.4, width - 0.4, 0.3, WINDOW)
        sheet.fill(2.8, 3.5, 0.3, width - 0.3, rng.uniform(0.05, 0.95, 3))
        _lettering(sheet, width, rng)
        sheet.fill(2.2, 2.8, 0.3, width * rng.uniform(0.5, 0.95), rng.uniform(0.2, 0.9, 3), AWNING)
    elif kind == 1:
        for u in np.arange(0.6, width - 3.0, 3.6):
            sheet.fill(0.0, 2.5, u, u + 2.8, np.clip(wall * rng.uniform(0.5, 1.6), 0, 1))
    else:
        for u in np.arange(0.5, width - 1.4, rng.uniform(2.0, 3.0)):
            sheet.fill(1.0, 2.6, u, u + 1.2, 0.25, WINDOW)
    sheet.fill(0.0, 2.2, door, door + 1.1, rng.uniform(0.05, 0.7, 3))
    if rng.random() < 0.35:
        u = rng.uniform(0.2, max(0.3, width - 2.2))
        sheet.fill(0.8, 2.6, u, u + 1.8, 0.5, POSTER)


def _lettering(sheet: Sheet, width: float, rng: np.random.Generator) -> None:
    """Blocks of light or dark on the sign, in the place of words."""
    ink, u = rng.choice([0.05, 0.95]), rng.uniform(0.5, 1.5)
    while u < width - 1.0:
        step = rng.uniform(0.25, 0.8)
        sheet.fill(2.92, 3.38, u, u + step, ink)
        u += step + rng.choice([0.15, 0.6])


def _roof(sheet: Sheet, height: float, rng: np.random.Generator) -> None:
    """Everything above the eaves is roof, and may carry snow; a cornice marks the eaves."""
    sheet.fill(
        height,
        TALLEST,
        0.0,
        sheet.labels.shape[1] / PPM,
        rng.uniform(0.12, 0.5) * np.array([1, 0.85, 0.8]),
        LEDGE,
    )
    sheet.fill(height - 0.35, height, 0.0, sheet.labels.shape[1] / PPM, rng.uniform(0.3, 0.9))


def dress(
    albedo: FloatArray,
    labels: Int32Array,
    kinds: Int32Array,
    visit: Visit,
    rng: np.random.Generator,
) -> FloatArray:
    """Light a texture for one visit: windows, awnings, posters and snow drawn anew, then lit.

    Args:
        albedo: Colours, (V, U, 3).
        labels: Number of the changeable thing at each texel, (V, U); 0 is the wall itself.
        kinds: Kind of each changeable thing, (K,).
        visit: The visit.
        rng: Draws what changes.
    """
    colour, alpha, glow = _states(kinds, visit, rng)
    # One draw a label, spread over its texels by indexing: a whole window is lit or dark.
    cover = alpha[labels][..., None]
    out = albedo * (1 - cover) + colour[labels] * cover
    light = np.asarray(visit.light, np.float32)
    if visit.night:
        # Street lamps shine 3 m over the ground; light falls off above and below.
        fall = np.exp(-np.abs(np.arange(len(albedo)) / PPM - 3.0) / 6.0).astype(np.float32)
        light = light * (0.45 + 1.1 * fall)[:, None, None]
    return np.clip(out * light + glow[labels], 0, 1)


def _states(kinds: Int32Array, visit: Visit, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Colour `(K, 3)`, cover `(K,)` and light of its own `(K, 3)` of every changeable thing."""
    n = len(kinds)
    chance, shade = rng.random(n), rng.random((n, 3))
    window = kinds == WINDOW
    colour = np.where(window[:, None], 0.10 + 0.35 * shade[:, :1] * np.array([0.8, 0.9, 1.0]), shade)
    # The same draw decides lit (low values) and shuttered (high values), so no window is both.
    shut = window & (chance > 1 - visit.closed)
    colour[shut] = 0.35 + 0.4 * shade[shut]
    colour[kinds == LEDGE] = (0.93, 0.94, 0.97)
    alpha = np.select([window, kinds == AWNING, kinds == POSTER], [1.0, (chance < 0.5) * 1.0, 1.0], 0.0)
    alpha[kinds == LEDGE] = visit.snow
    lit = window & (chance < visit.lit)
    strength = (0.8 if visit.night else 0.25) * (0.6 + 0.4 * shade[:, :1])
    glow = lit[:, None] * strength * np.array([1.0, 0.85, 0.55])
    return colour.astype(np.float32), alpha.astype(np.float32), glow.astype(np.float32)
