"""Write the synthetic city as a raw MSLS dump, images and CSVs, with its protocol file beside it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from seqdata.parallel import Progress
from seqdata.synth.camera.camera import panorama, pinhole
from seqdata.synth.camera.lens import develop, encode, shrink
from seqdata.synth.camera.render import render
from seqdata.synth.camera.stage import Stage, View, set_stage
from seqdata.synth.drives.along import course_of
from seqdata.synth.drives.drives import Trajectory, city_drives, parked
from seqdata.synth.dumps.msls_protocol import protocol_text
from seqdata.synth.dumps.msls_tables import city_tables
from seqdata.synth.dumps.new_folder import new_folder
from seqdata.synth.settings import CityPlan, CitySettings, CitySummary, generator
from seqdata.synth.visits import VISITS
from seqdata.synth.world.layout import Street, city_streets
from seqdata.synth.world.scene import build_scene

Cities = dict[CityPlan, list[Trajectory]]
OddFrames = dict[str, frozenset[str]]
ROLES = ("database", "query")


def write_msls(
    out: Path, *, settings: CitySettings | None = None, seed: int = 0, progress: Progress | None = None
) -> CitySummary:
    """Write a raw MSLS dump and its protocol; the same bytes for one seed.

    Files are `out/train_val/<city>/{database,query}/...` and `out/protocol.toml`. The panorama lies in the first city's
    database, the cut-off JPEG in the first city's query; both have their rows in the CSVs like every other image.

    Args:
        out: The new folder; all is written beside it and renamed at the end.
        settings: Sizes and cities; None for the demo's.
        seed: Seed of everything that is drawn.
        progress: Called with frames written and frames in all.

    Returns:
        Counts of what was written.

    Raises:
        OutputError: If `out` exists and is not empty, or cannot be written.
    """
    settings, out = settings or CitySettings(), Path(out)
    with new_folder(out) as partial:
        cities = {p: city_drives(p, _streets(p, settings, seed), VISITS, settings, seed) for p in settings.cities}
        odd = _odd_frames(next(iter(cities.values())), settings)
        _write_cities(partial, cities, odd, settings, seed, progress)
        (partial / "protocol.toml").write_text(protocol_text(settings), encoding="utf-8")
    return _summary(out, cities, odd)


def _streets(plan: CityPlan, settings: CitySettings, seed: int) -> list[Street]:
    """The streets of a city: along its track where it has one, else made up."""
    return list(course_of(plan.track, plan.name, seed).streets) if plan.track else city_streets(plan, settings, seed)


def _write_cities(
    out: Path, cities: Cities, odd: OddFrames, settings: CitySettings, seed: int, progress: Progress | None
) -> None:
    """Write every city's CSVs and images."""
    total, written = sum(len(trajectory) for drives in cities.values() for trajectory in drives), 0
    for plan, drives in cities.items():
        folder = out / "train_val" / plan.name
        _write_tables(folder, plan, drives, odd["panorama"])
        for role, key, data in _images(drives, settings, seed, odd):
            (folder / role / "images" / f"{key}.jpg").write_bytes(data)
            written += 1
            if progress:
                progress(written, total)


def _write_tables(folder: Path, plan: CityPlan, drives: list[Trajectory], panoramas: frozenset[str]) -> None:
    """Make a city's folders and write its CSVs."""
    for role in ROLES:
        (folder / role / "images").mkdir(parents=True)
        mine = [trajectory for trajectory in drives if trajectory.role == role]
        for stem, data in city_tables(plan, mine, panoramas).items():
            (folder / role / f"{stem}.csv").write_bytes(data)


def _odd_frames(drives: list[Trajectory], settings: CitySettings) -> OddFrames:
    """Keys of the panorama (first database drive) and of the corrupt JPEG (first query drive)."""
    keys = {role: next(trajectory.keys for trajectory in drives if trajectory.role == role) for role in ROLES}
    return {
        "panorama": frozenset({keys["database"][len(keys["database"]) // 2]} if settings.panorama else ()),
        "corrupt": frozenset({keys["query"][len(keys["query"]) // 2]} if settings.corrupt else ()),
    }


def _images(
    drives: list[Trajectory], settings: CitySettings, seed: int, odd: OddFrames
) -> Iterator[tuple[str, str, bytes]]:
    """(role, key, JPEG bytes) of every frame of a city; a street is built once and dressed once a visit."""
    # Building a street's geometry and dressing its textures cost more than rendering a frame, so frames come street by
    # street and visit by visit, not drive by drive.
    for _, street_group in groupby(drives, key=lambda trajectory: trajectory.street.key):
        trajectories = list(street_group)
        scene = build_scene(trajectories[0].street, seed)
        for _, visit_group in groupby(trajectories, key=lambda trajectory: trajectory.visit.name):
            group = list(visit_group)
            stage = set_stage(scene, group[0].visit, parked(scene.street, group[0].visit, seed))
            for trajectory in group:
                for i, key in enumerate(trajectory.keys):
                    data = photograph(stage, trajectory, i, settings, wide=key in odd["panorama"])
                    # Cut inside the scan: its header is still whole, as in a download that broke off.
                    yield trajectory.role, key, data[: len(data) * 3 // 5] if key in odd["corrupt"] else data


def photograph(stage: Stage, trajectory: Trajectory, i: int, settings: CitySettings, *, wide: bool = False) -> bytes:
    """Photograph one frame of a trajectory.

    Args:
        stage: The dressed street.
        trajectory: The drive.
        i: Number of the frame in it.
        settings: Sizes and quality.
        wide: Whether it is a 2:1 panorama.

    Returns:
        Bytes of a JPEG.
    """
    field, pitch, above = trajectory.rig
    rng = generator(stage.scene.seed, trajectory.keys[i], "lens")
    size = settings.supersample
    pitch += float(rng.normal(0, 0.5))
    camera = (
        panorama(settings.height * size, above)
        if wide
        else pinhole(settings.width * size, settings.height * size, field, pitch, above)
    )
    picture = render(View(stage, camera, trajectory.position[i], float(trajectory.heading[i]), trajectory.close[i]))
    exposure = float(np.exp(rng.normal(0, 0.08)))
    return encode(develop(shrink(picture, size), trajectory.visit, exposure, rng), settings.quality)


def _summary(out: Path, cities: Cities, odd: OddFrames) -> CitySummary:
    """Counts of what was written."""
    images = {
        plan.name: {role: sum(len(trajectory) for trajectory in drives if trajectory.role == role) for role in ROLES}
        for plan, drives in cities.items()
    }
    first, every = next(iter(cities)).name, [trajectory for drives in cities.values() for trajectory in drives]
    metres = sum(float(np.hypot(*np.diff(trajectory.position, axis=0).T).sum()) for trajectory in every)
    city = out / "train_val" / first
    return CitySummary(
        root=out,
        protocol=out / "protocol.toml",
        frames=sum(len(trajectory) for trajectory in every),
        trajectories=len(every),
        metres=metres,
        images=images,
        panoramas=tuple(city / "database" / "images" / f"{key}.jpg" for key in sorted(odd["panorama"])),
        corrupt=tuple(city / "query" / "images" / f"{key}.jpg" for key in sorted(odd["corrupt"])),
        dropped=sum(trajectory.dropped for trajectory in every),
    )
