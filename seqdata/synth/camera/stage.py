"""A street with the textures of one visit, and one view of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seqdata.geometry import FloatArray
from seqdata.synth.camera.camera import Camera
from seqdata.synth.settings import generator
from seqdata.synth.visits import Visit
from seqdata.synth.world.facades import dress
from seqdata.synth.world.ground import road_strip
from seqdata.synth.world.scene import Scene
from seqdata.synth.world.sprites import sprite_set
from seqdata.synth.world.texture import RipMap, ripmap

# Halvings of a texture down and along: façades are seen at a slant along the street, the road along the ray.
WALL_LEVELS = (4, 6)
ROAD_LEVELS = (5, 3)


@dataclass(frozen=True)
class Stage:
    """A street in one visit: lit textures, lit sprites, and `objects` `(N, 5)` of place and visit."""

    scene: Scene
    visit: Visit
    walls: RipMap
    road: RipMap
    sprites: dict[tuple[int, int], FloatArray]
    objects: FloatArray

    def fade(self, colour: FloatArray, distance: FloatArray) -> FloatArray:
        """Mix colours `(..., 3)` towards the horizon's with distance `(...)` in metres."""
        haze = np.asarray(1 - np.exp(-distance / self.visit.haze), np.float32)[..., None]
        return np.asarray(colour + (np.asarray(self.visit.sky[1], np.float32) - colour) * haze)


@dataclass(frozen=True)
class View:
    """One view: from `position` `(2,)` (metres) towards `heading` (degrees); `close` `(N, 5)` passes right now."""

    stage: Stage
    camera: Camera
    position: FloatArray
    heading: float
    close: FloatArray

    @property
    def rays(self) -> FloatArray:
        """Unit directions `(W, 2)` of the columns on the ground, float64."""
        aim = np.radians(self.heading) + self.camera.bearing
        return np.stack([np.sin(aim), np.cos(aim)], -1)


def set_stage(scene: Scene, visit: Visit, parked: FloatArray) -> Stage:
    """Make the textures of a street for a visit; `parked` `(N, 5)` are this visit's own objects."""
    rng = generator(scene.seed, scene.street.key, visit.name, "dress")
    lit = dress(scene.sheet.albedo, scene.sheet.labels, scene.kinds, visit, rng)
    return Stage(
        scene,
        visit,
        ripmap(lit, WALL_LEVELS),
        ripmap(road_strip(scene, visit), ROAD_LEVELS),
        sprite_set(visit, rng),
        np.concatenate([scene.objects, parked]),
    )
