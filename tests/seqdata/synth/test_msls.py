"""The synthetic city: a raw MSLS dump to the letter, the same bytes for one seed, real parallax."""

import csv
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import utm
from PIL import Image

from seqdata import protocols
from seqdata.errors import OutputError
from seqdata.synth import CityPlan, CitySettings, CitySummary, write_msls
from seqdata.synth.camera.camera import pinhole
from seqdata.synth.camera.render import cast_rays, render
from seqdata.synth.camera.stage import View, set_stage
from seqdata.synth.visits import VISITS
from seqdata.synth.world.layout import city_streets
from seqdata.synth.world.scene import Walls, build_scene

TINY = CitySettings(
    width=48,
    height=36,
    street_length=40.0,
    cities=(
        CityPlan("northfield", "train", 1, 52.0914, 5.1214, query=("winter", "night")),
        CityPlan("southport", "test", 1, -37.8136, 144.9631),
    ),
)
COLUMNS = {
    "seq_info": ["key", "sequence_key", "frame_number"],
    "postprocessed": ["key", "easting", "northing", "unique_cluster", "control_panel", "night", "view_direction"],
    "raw": ["key", "lon", "lat", "ca", "captured_at", "pano"],
    "subtask_index": ["all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d"],
}


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> CitySummary:
    return write_msls(tmp_path_factory.mktemp("synth") / "raw", settings=TINY, seed=3)


def folders(summary: CitySummary) -> list[Path]:
    return [summary.root / "train_val" / name / role for name in summary.images for role in ("database", "query")]


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def table(folder: Path, stem: str) -> pl.DataFrame:
    return pl.read_csv(folder / f"{stem}.csv", infer_schema_length=None)


def test_layout_is_that_of_msls(city: CitySummary) -> None:
    for folder in folders(city):
        keys = [row[1] for row in rows(folder / "seq_info.csv")[1:]]
        assert sorted(p.name for p in (folder / "images").iterdir()) == sorted(f"{k}.jpg" for k in keys)
        assert len(keys) == city.images[folder.parent.name][folder.name]
        for stem, columns in COLUMNS.items():
            header, *body = rows(folder / f"{stem}.csv")
            assert header == ["", *columns]
            assert [row[0] for row in body] == [str(i) for i in range(len(keys))]
            if "key" in columns:
                assert [row[1] for row in body] == keys


def test_values_are_written_as_msls_writes_them(city: CitySummary) -> None:
    for folder in folders(city):
        post, raw, sub = (rows(folder / f"{stem}.csv")[1:] for stem in ("postprocessed", "raw", "subtask_index"))
        assert {v for row in post for v in row[5:7]} | {row[6] for row in raw} <= {"True", "False"}
        assert {v for row in sub for v in row[1:]} <= {"True", "False"} and all(row[1] == "True" for row in sub)
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", row[5]) for row in raw)
        assert all(row[7] in ("Forward", "Backward", "Sideways") for row in post)
        assert any(row[6] == "True" for row in post) == (folder.name == "query")  # the night visit


def test_keys_are_valid_unique_and_some_begin_with_a_dash(city: CitySummary) -> None:
    tables = [rows(f / "seq_info.csv")[1:] for f in folders(city)]
    keys = [row[1] for body in tables for row in body]
    assert len(set(keys)) == len(keys) == city.frames
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", key) for key in keys + [row[2] for body in tables for row in body])
    assert any(key.startswith("-") for key in keys)


def test_frame_numbers_start_anywhere_and_step_by_one_but_for_gaps(city: CitySummary) -> None:
    starts, gaps, sequences = [], 0, 0
    for folder in folders(city):
        for group in table(folder, "seq_info").partition_by("sequence_key", maintain_order=True):
            steps = np.diff(group["frame_number"].to_numpy())
            assert set(steps) <= {1, 2}
            starts.append(group["frame_number"][0])
            gaps, sequences = gaps + int((steps == 2).sum()), sequences + 1
    assert gaps == city.dropped and sequences == city.trajectories and len(set(starts)) > 3


def test_positions_agree_and_southern_northings_lack_the_false_northing(city: CitySummary) -> None:
    for folder in folders(city):
        post, raw = table(folder, "postprocessed"), table(folder, "raw")
        lat, lon, south = raw["lat"].to_numpy(), raw["lon"].to_numpy(), folder.parent.name == "southport"
        easting, northing, _, _ = utm.from_latlon(lat, lon)
        assert (lat < 0).all() == south and ((post["northing"].to_numpy() < 0).all()) == south
        assert np.abs(post["easting"].to_numpy() - easting).max() < 0.01
        assert np.abs(post["northing"].to_numpy() - (northing - 1e7 * south)).max() < 0.01


def test_panorama_and_corrupt_file_are_there_and_counted(city: CitySummary) -> None:
    (panorama,), (corrupt,) = city.panoramas, city.corrupt
    with Image.open(panorama) as image:
        assert image.size[0] == 2 * image.size[1]
    marked = table(panorama.parents[1], "raw").with_columns(pl.col("pano").cast(pl.String).str.to_lowercase())
    assert marked.filter(pano="true")["key"].to_list() == [panorama.stem]
    data = corrupt.read_bytes()
    assert data.startswith(b"\xff\xd8\xff") and b"\xff\xd9" not in data[-2:]
    with Image.open(corrupt) as image, pytest.raises(OSError, match="truncated"):
        image.load()


def test_every_other_image_decodes_at_its_size(city: CitySummary) -> None:
    odd = {*city.panoramas, *city.corrupt}
    for path in city.root.rglob("*.jpg"):
        if path not in odd:
            with Image.open(path) as image:
                image.load()
                assert image.size == (48, 36) and image.mode == "RGB"


def test_the_protocol_is_valid_and_names_the_cities(city: CitySummary) -> None:
    protocol = protocols.load(city.protocol)
    assert (protocol.name, protocol.length, protocol.rule, protocol.panoramas) == ("demo-city", 5, "any", "drop")
    assert {name: split.cities for name, split in protocol.splits.items()} == {
        "train": ("northfield",),
        "test": ("southport",),
    }


def test_same_seed_same_bytes_other_seed_others(city: CitySummary, tmp_path: Path) -> None:
    def contents(root: Path) -> dict[str, bytes]:
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    done: list[tuple[int, int]] = []
    again = write_msls(tmp_path / "a", settings=TINY, seed=3, progress=lambda *at: done.append(at))
    other = write_msls(tmp_path / "b", settings=TINY, seed=4)
    assert contents(again.root) == contents(city.root)
    assert set(contents(other.root)) != set(contents(city.root))
    assert done == [(i + 1, city.frames) for i in range(city.frames)]


def test_a_used_folder_is_refused_and_a_failure_leaves_nothing(city: CitySummary, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not empty"):
        write_msls(city.root, settings=TINY)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_msls(tmp_path / "raw", settings=TINY, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"width": 4}, {"spacing": 0.0}, {"cities": ()}])
def test_settings_that_cannot_be_drawn_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CitySettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="visits"):
        CitySettings(cities=(CityPlan("x", "test", 1, 0.0, 0.0, query=("dusk",)),))


def test_a_ray_meets_the_nearest_wall() -> None:
    walls = Walls(
        np.array([[-5.0, 10.0], [-5.0, 4.0]]),
        np.array([[5.0, 10.0], [0.5, 4.0]]),
        np.array([[0.0, 10.0], [10.0, 15.5]]),
    )
    hits = cast_rays(walls, np.zeros(2), np.array([[0.0, 1.0], [0.2, 1.0], [0.0, -1.0]]))
    assert hits.reach[:2] == pytest.approx([4.0, 10.0]) and hits.wall[:2].tolist() == [1, 0]
    assert hits.share[1] == pytest.approx(0.7) and hits.facing[0] == pytest.approx(1.0)
    assert hits.reach[2] > 100


def test_a_step_aside_moves_near_walls_and_leaves_the_sky() -> None:
    street = city_streets(TINY.cities[0], TINY, 3)[0]
    stage = set_stage(build_scene(street, 3), VISITS["summer"], np.zeros((0, 5)))
    (here, there), (heading, _) = street.pose(np.array([15.0, 15.0]), np.array([0.0, 1.5]))
    camera, nothing = pinhole(64, 48, 78.0, 0.0, 1.7), np.zeros((0, 5))
    a, b = (render(View(stage, camera, p, float(heading), nothing)) for p in (here, there))
    assert a.shape == (48, 64, 3) and a.min() >= 0 and a.max() <= 1.0 + 1e-6
    assert np.array_equal(a, render(View(stage, camera, here, float(heading), nothing)))
    assert np.abs(a - b).mean() > 0.02


def test_streets_turn_and_keep_apart() -> None:
    settings = CitySettings()
    streets = city_streets(settings.cities[0], settings, 0)
    marks = np.arange(0.0, settings.street_length, 3.0)
    tracks = [street.pose(marks, np.zeros(len(marks))) for street in streets]
    for i, (track, heading) in enumerate(tracks):
        assert np.ptp(heading) > 80
        for other, _ in tracks[:i]:
            assert np.hypot(*(track[:, None] - other[None]).transpose(2, 0, 1)).min() > 40
