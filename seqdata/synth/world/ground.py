"""Roads: one strip texture for each street, in (metres along, metres across), and its look in a visit."""

from __future__ import annotations

import numpy as np

from seqdata.geometry import FloatArray
from seqdata.synth.settings import generator
from seqdata.synth.visits import Visit
from seqdata.synth.world.layout import MARGIN
from seqdata.synth.world.scene import Scene

GPM = 5
"""Texels a metre of road."""
REACH = 14.0
"""Half width of the strip in metres; ground farther out looks like its edge."""


def road_strip(scene: Scene, visit: Visit) -> FloatArray:
    """Paint the lit ground `(S, T, 3)` float32: row s metres from `-MARGIN`, column lateral from `-REACH`."""
    street = scene.street
    rng = generator(scene.seed, street.key, "road")
    s = np.arange(round((street.length + 2 * MARGIN) * GPM)) / GPM - MARGIN
    t = (np.arange(round(2 * REACH * GPM)) + 0.5) / GPM - REACH
    strip = np.full((len(s), len(t), 3), rng.uniform(0.28, 0.40), np.float32)
    strip += rng.normal(0, 0.02, strip.shape[:2]).astype(np.float32)[..., None]
    _patches(strip, rng)
    _markings(strip, s, t, street.kerb, rng)
    pavement = np.abs(t) > street.kerb
    strip[:, pavement] = np.clip(rng.uniform(0.45, 0.62) + rng.normal(0, 0.03, 3), 0, 1)
    strip[:: int(rng.integers(3, 8)), pavement] *= 0.85
    strip[:, np.abs(np.abs(t) - street.kerb) < 0.25] = rng.uniform(0.6, 0.75)
    return _weather(strip, s, t, street.kerb, visit, generator(scene.seed, street.key, visit.name, "weather"))


def _patches(strip: FloatArray, rng: np.random.Generator) -> None:
    """Repairs and manholes: dark or pale rectangles on the carriageway."""
    rows, columns = strip.shape[:2]
    for _ in range(rows // (6 * GPM)):
        i, j = rng.integers(rows), rng.integers(columns)
        h, w = rng.integers(2, 6 * GPM), rng.integers(2, 2 * GPM)
        strip[i : i + h, j : j + w] *= rng.uniform(0.65, 1.3)


def _markings(strip: FloatArray, s: FloatArray, t: FloatArray, kerb: float, rng: np.random.Generator) -> None:
    """A dashed centre line, perhaps parking lines, and zebra crossings."""
    paint, dash = 0.85, rng.uniform(3.0, 9.0)
    strip[np.ix_((s % dash) < dash * rng.uniform(0.3, 0.9), np.abs(t) < 0.12)] = paint
    if rng.random() < 0.5:
        strip[:, np.abs(np.abs(t) - kerb + 2.0) < 0.1] = paint
    for at in np.cumsum(rng.uniform(25.0, 70.0, len(s) // (25 * GPM) + 1)) - MARGIN:
        strip[np.ix_((s > at) & (s < at + 3.0), (np.abs(t) < kerb) & (t % 1.0 < 0.5))] = paint


def _weather(
    strip: FloatArray, s: FloatArray, t: FloatArray, kerb: float, visit: Visit, rng: np.random.Generator
) -> FloatArray:
    """Snow off the wheel tracks, dark wet patches, lamp light at night."""
    if visit.wet:
        strip = strip * (1 - 0.35 * visit.wet * _blotches(strip.shape[:2], rng))
    if visit.snow:
        # Two wheel tracks 1.6 m apart in either lane, whose middle is 2.2 m from the centre line.
        tracks = 1.0 - 0.75 * (np.abs(np.abs(np.abs(t) - 2.2) - 0.8) < 0.45)
        cover = visit.snow * tracks * (0.45 + 0.55 * _blotches(strip.shape[:2], rng)[..., 0])
        cover = np.where(np.abs(t) > kerb, visit.snow, cover)[..., None]
        strip = strip * (1 - cover) + 0.92 * cover
    light = np.asarray(visit.light, np.float32)
    if visit.night:
        light = light * (0.6 + 0.7 * np.cos(s * 2 * np.pi / 25.0) ** 2)[:, None, None]
    return np.asarray(np.clip(strip * light, 0, 1), np.float32)


def _blotches(shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Random spots about three metres wide, `(S, T, 1)` in 0..1."""
    size = 3 * GPM
    # Coarse noise repeated over blocks (np.kron), as façade stains are.
    coarse = rng.random((shape[0] // size + 1, shape[1] // size + 1)).astype(np.float32)
    return np.kron(coarse, np.ones((size, size), np.float32))[: shape[0], : shape[1], None]
