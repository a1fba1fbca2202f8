"""Leakage against brute force; one route is called out, ground of its own is not, and the real laps are named."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.report.html import environment
from indexer.report.leakage import leakage_block
from seqdata import protocols
from seqdata.contracts.protocol import Protocol
from seqdata.contracts.tables import table_contract
from seqdata.dataset.leakage import leakage, sentences
from seqdata.errors import ContractError
from seqdata.sequences.sequencer import GEOMETRY_COLUMNS, Sequencer

LAPS = {
    "train": {"database": ["map"], "query": ["drive"]},
    "val": {"query": ["val"]},
    "test": {"database": ["test-map"], "query": ["test-drive"]},
}


def made(**fields: Any) -> Protocol:
    return Protocol.model_validate({"name": "made", "source": "folder", "splits": LAPS, **fields})


def sequencer(drives: dict[str, np.ndarray], zones: dict[str, str] | None = None) -> Sequencer:
    """Drives by name: (n, 2) metres each."""
    parts = [
        pl.DataFrame(
            {
                "trajectory": [name] * len(xy),
                "position": range(len(xy)),
                "clean_position": [None] * len(xy),
                "city": ["here"] * len(xy),
                "role": [None] * len(xy),
                "zone": [(zones or {}).get(name, "30N")] * len(xy),
                "easting": 500_000.0 + xy[:, 0],
                "northing": 5_700_000.0 + xy[:, 1],
                "heading": [None] * len(xy),
                "panorama": [False] * len(xy),
                "resampled": [True] * len(xy),
                "subtasks": [""] * len(xy),
            },
            schema_overrides={"clean_position": pl.Int32, "role": pl.String, "heading": pl.Float32},
        ).select(GEOMETRY_COLUMNS)
        for name, xy in drives.items()
    ]
    return Sequencer(pl.concat(parts))


def street(start: float, stop: float, north: float = 0.0) -> np.ndarray:
    east = np.arange(start, stop, 2.0)
    return np.column_stack([east, np.full(len(east), north)])


def literal(ours: Sequencer, protocol: Protocol, split: str, role: str, radius: float) -> Any:
    """Frame by frame: frames, near ones, metres, near metres, least distance."""
    rows = ours.frames.to_dicts()
    splits = protocol.splits
    training = [r for r in rows if r["trajectory"] in (splits["train"].database + splits["train"].query)]
    names = splits[split].database if role == "database" else splits[split].query
    mine = [r for r in rows if r["trajectory"] in names]

    def apart(a: Any, b: Any) -> Any:
        return float(np.sqrt((a["easting"] - b["easting"]) ** 2 + (a["northing"] - b["northing"]) ** 2))

    least = [min([apart(r, t) for t in training if t["zone"] == r["zone"]], default=np.inf) for r in mine]
    metres = [0.0] * len(mine)
    for i in range(1, len(mine)):
        step = apart(mine[i - 1], mine[i])
        if mine[i]["trajectory"] == mine[i - 1]["trajectory"] and step <= 100.0:
            metres[i - 1] += step / 2
            metres[i] += step / 2
    near = [d < radius for d in least]
    return len(mine), sum(near), sum(metres), sum(m for m, n in zip(metres, near, strict=True) if n), min(least)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([5.0, 25.0, 100.0]))
def test_leakage_equals_a_literal_count(seed: int, radius: Any) -> None:
    rng = np.random.default_rng(seed)
    names = ["map", "drive", "val", "test-map", "test-drive"]
    drives = {name: rng.integers(-8, 9, (int(rng.integers(1, 25)), 2)).cumsum(0) * 5.0 for name in names}
    drives["test-map"][len(drives["test-map"]) // 2 :] += 400.0
    ours = sequencer(drives, {"test-drive": "31N"} if rng.random() < 0.3 else None)
    table = leakage(ours, made(), (radius,))
    assert table.select("split", "role").rows() == [("val", "query"), ("test", "database"), ("test", "query")]
    for row in table.to_dicts():
        frames, near, metres, close, least = literal(ours, made(), row["split"], row["role"], radius)
        assert (row["frames"], row["near_frames"]) == (frames, near)
        assert row["frame_share"] == pytest.approx(near / frames)
        assert (row["route_m"], row["near_m"]) == pytest.approx((metres, close))
        assert row["least_distance"] == (None if np.isinf(least) else pytest.approx(least))
        assert (row["route_share"] is None) == (metres == 0)


def test_one_route_is_called_out_and_ground_of_its_own_is_not() -> None:
    same = {"map": street(0, 400), "drive": street(0, 400, 3), "val": street(0, 400, 6)}
    same |= {"test-map": street(0, 400, 9), "test-drive": street(0, 400, 12)}
    table = leakage(sequencer(same), made())
    table_contract("leakage").validate(table, "leakage")
    val, test = sentences(table)
    assert test.startswith("test shares its route with train: 100.0% of its database frames and 100.0% of its query")
    assert val.startswith("val shares its route with train")
    apart = {**same, "val": street(390, 500), "test-map": street(600, 900), "test-drive": street(600, 900, 3)}
    table = leakage(sequencer(apart), made())
    val, test = sentences(table)
    assert test == "test is held out: no frame lies within 25 m of train, the nearest is 202.0 m away"
    assert val.startswith("val touches train: ")
    assert table.filter(pl.col("split") == "test")["near_frames"].sum() == 0
    elsewhere = leakage(sequencer(same, {"test-map": "31N", "test-drive": "31N"}), made())
    assert sentences(elsewhere)[1] == "test is held out: it shares no zone with train"


def test_shares_grow_with_the_radius_and_the_limit_is_strict() -> None:
    drives = {"map": street(0, 2), "drive": street(0, 2), "val": np.array([[25.0, 0.0], [24.0, 0.0]])}
    drives |= {"test-map": street(0, 2), "test-drive": street(0, 2)}
    table = leakage(sequencer(drives), made(), (100.0, 25.0)).filter(pl.col("split") == "val")
    assert table["radius"].to_list() == [25.0, 100.0]
    assert table["near_frames"].to_list() == [1, 2]
    assert table["route_share"].to_list() == [0.5, 1.0]


def test_what_cannot_be_compared_is_refused() -> None:
    ours = sequencer({"map": street(0, 40)})
    with pytest.raises(ContractError, match="no split 'train'"):
        leakage(ours, protocols.load("own"))
    with pytest.raises(ContractError, match="no frame of this dataset belongs to its split 'train'"):
        leakage(sequencer({"other": street(0, 9)}), made())
    for radii in ((), (0.0,), (float("nan"),)):
        with pytest.raises(ContractError, match="positive numbers of metres"):
            leakage(ours, made(), radii)
    with pytest.raises(ContractError, match="radius 7"):
        sentences(leakage(sequencer({"map": street(0, 9), "val": street(0, 9)}), made()), 7.0)


def test_the_block_of_a_page_says_it() -> None:
    drives = {"map": street(0, 400), "val": street(0, 400, 6), "test-map": street(600, 900)}
    block = leakage_block(leakage(sequencer(drives), made(), (10.0, 25.0)))
    page = environment().get_template("leakage.html.j2").render(leakage=block)
    assert "val shares its route with train" in page
    assert "test is held out" in page
    assert page.count("<tr>") == 3
    assert block.radii == [10.0, 25.0]
    assert [line["shares"] for line in block.lines] == [[1.0, 1.0], [0.0, 0.0]]


@pytest.mark.real
def test_the_real_laps_share_one_route_but_not_under_oxford1(real: Path) -> None:
    drives = {}
    for lap, role in (("2015-03-17-11-08-44", "database"), ("2014-12-16-18-44-24", "query")):
        parts = [pl.read_csv(real / "robotcar-positions" / f"{lap}-{role}-{part}.csv") for part in ("train", "test")]
        whole = pl.concat(parts).sort("timestamp_us").select("easting", "northing").to_numpy()
        drives[lap] = whole - [500_000.0, 5_700_000.0]
    ours = sequencer(drives)
    one, other = drives
    lapwise = made(splits={"train": {"database": [one]}, "test": {"query": [other]}})
    row = leakage(ours, lapwise, (25.0,)).to_dicts()[0]
    assert row["frame_share"] > 0.99
    assert row["route_share"] > 0.99
    assert sentences(leakage(ours, lapwise))[0].startswith("test shares its route with train")
    cut = protocols.load("oxford1-sta").model_copy(update={"spacing": None})
    table = leakage(ours, cut)
    assert table.filter(pl.col("radius") <= 25.0)["near_frames"].sum() == 0
    assert table["least_distance"].min() >= 25.0
    assert sentences(table)[0].startswith("test is held out")
