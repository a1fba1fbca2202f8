"""The generated frames have the shape that is promised at every size, and figures are compared as said."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seqdata import protocols
from seqdata.contracts.tables import table_contract
from seqdata.sequences.positives import positives
from seqdata.sequences.tiles import WindowSet
from seqdata.sequences.windows import windows
from tests.scale.run import growth, table
from tests.scale.shape import City, cities, frames_of, protocol_text


@pytest.mark.parametrize("frames", [3_000, 150_000, 1_460_000, 5_000_000])
def test_cities_hold_all_frames_in_every_split(frames: int) -> None:
    city_list = cities(frames)
    assert sum(city.frames for city in city_list) == frames
    assert {city.split for city in city_list} == {"train", "val", "test"}
    assert len({city.name for city in city_list}) == len(city_list)


def test_frames_are_as_sealed_shards_hold_them() -> None:
    table_ = pl.concat(list(frames_of(City("city0003", 4_000, "train"), 3, 100)))
    assert table_.height == 4_000
    assert table_["key"].n_unique() == 4_000
    expected = table_contract("frames").polars_schema()
    assert all(table_.schema[name] == kind for name, kind in expected.items() if name in table_.columns)
    assert set(expected) - set(table_.columns) == {"track_m", "resampled"}
    roles = table_["role"].to_list()
    assert roles == sorted(roles), "database before query"
    assert table_["trajectory"].rle().len() == table_["trajectory"].n_unique()
    assert set(table_["hash"].bin.size().to_list()) == {16}


def test_a_window_has_as_many_positives_in_a_large_city_as_in_a_small_one() -> None:
    counts = []
    for size in (4_000, 16_000):
        frames = pl.concat(list(frames_of(City("city0003", size, "train"), 3, 0)))
        cut = windows(pl.DataFrame({"run": frames["trajectory"].rle_id()}), length=5)["first"].to_numpy()
        is_query = frames["role"].to_numpy()[cut] == "query"
        xy = frames.select("easting", "northing").to_numpy()
        sides = [WindowSet.from_coordinates(xy, cut[mask], 5) for mask in (is_query, ~is_query)]
        counts.append(positives(*sides, radius=25.0).height / len(sides[0]))
    assert 10 < counts[0] < 90
    assert 0.5 < counts[1] / counts[0] < 2


def test_cities_lie_apart() -> None:
    centres = []
    for number in range(20):
        frames = pl.concat(list(frames_of(City(f"city{number:04d}", 500, "train"), number, 0)))
        centres.append(frames.select(pl.col("easting", "northing").median()).row(0))
    apart = np.linalg.norm(np.array(centres)[:, None] - np.array(centres)[None], axis=2)
    assert apart[~np.eye(20, dtype=bool)].min() > 40_000


def test_the_protocol_names_every_city_once(tmp_path: Path) -> None:
    (tmp_path / "scale.toml").write_text(protocol_text(cities(30_000)))
    protocol = protocols.load(tmp_path / "scale.toml")
    named = [name for split in protocol.splits.values() for name in split.cities or ()]
    assert sorted(named) == sorted(city.name for city in cities(30_000))


def test_growth_is_the_exponent_and_worse_figures_are_told() -> None:
    now = {"100": {"open": {"CPU s": 1.0, "MB": 50.0}}, "1000": {"open": {"CPU s": 10.0, "MB": 50.0}}}
    assert growth(now, "open", "CPU s") == pytest.approx(1)
    assert growth(now, "open", "MB") == pytest.approx(0)
    assert math.isnan(growth({"100": now["100"]}, "open", "MB"))
    assert table(now, {})[1]
    text, is_good = table(now, {"1000": {"open": {"CPU s": 2.0, "MB": 50.0}}})
    assert not is_good and "worse: CPU s" in text
    assert table(now, {"1000": {"open": {"CPU s": 8.0, "MB": 40.0}}})[1]
