"""Cuts along the route: against a literal version, on loops and laps, and on two real laps."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdata.errors import ContractError
from seqdata.sources.folder.roles import Cut, cut_along_route, parse_roles


def slow_cut(
    frames: list[tuple[float, float, str]], start: float, stop: float | None, metres: bool, buffer: float
) -> list[str]:
    """The rule word by word, one frame and one pair at a time."""
    along: list[float] = []
    for number, (east, north, drive) in enumerate(frames):
        if number == 0 or frames[number - 1][2] != drive:
            along.append(0.0)
        else:
            along.append(along[-1] + math.dist((east, north), frames[number - 1][:2]))
    length = {drive: along[number] for number, (_, _, drive) in enumerate(frames)}
    parts = []
    for (_, _, drive), driven in zip(frames, along, strict=True):
        unit = 1.0 if metres else length[drive]
        parts.append("test" if driven >= start * unit and (stop is None or driven < stop * unit) else "train")
    tests = [frame for frame, part in zip(frames, parts, strict=True) if part == "test"]
    return [
        "buffer" if part == "train" and any(math.dist(frame[:2], test[:2]) <= buffer for test in tests) else part
        for frame, part in zip(frames, parts, strict=True)
    ]


grid = st.integers(-30, 30).map(float)
walks = st.lists(st.lists(st.tuples(grid, grid), min_size=1, max_size=12), min_size=1, max_size=4)


@given(walks, st.sampled_from([0.25, 0.5, 0.75, 10.0, 40.0]), st.integers(0, 40))
@settings(deadline=None, max_examples=150)
def test_a_cut_is_what_the_rule_says(drives: list[list[tuple[float, float]]], start: float, buffer: int) -> None:
    frames = [(*place, f"d{number}") for number, drive in enumerate(drives) for place in drive]
    easting, northing, names = (list(column) for column in zip(*frames, strict=True))
    metres = start > 1
    for stop in (None, start * 1.25):
        cut = Cut(start, stop, metres)
        parts = cut_along_route(easting, northing, names, cut=cut, buffer=buffer)
        assert parts.tolist() == slow_cut(frames, start, stop, metres, buffer)


@given(walks, st.floats(0.05, 0.95), st.floats(0, 50))
@settings(deadline=None, max_examples=100)
def test_no_train_frame_is_within_the_buffer_of_any_test_frame(
    drives: list[list[tuple[float, float]]], share: float, buffer: float
) -> None:
    xy = np.array([place for drive in drives for place in drive])
    names = [f"d{number}" for number, drive in enumerate(drives) for _ in drive]
    parts = cut_along_route(xy[:, 0], xy[:, 1], names, cut=Cut(share), buffer=buffer)
    train, test = xy[parts == "train"], xy[parts == "test"]
    assert len(test) >= len(drives), "each drive's last frame is tested"
    if len(train):
        assert np.linalg.norm(train[:, None] - test[None], axis=2).min() > buffer
    wider = cut_along_route(xy[:, 0], xy[:, 1], names, cut=Cut(share), buffer=buffer + 5)
    assert set(np.flatnonzero(wider == "train")) <= set(np.flatnonzero(parts == "train"))
    assert (wider == "test").tolist() == (parts == "test").tolist(), "test ground never shrinks"


def test_a_loop_that_comes_back_to_the_cut_is_cleared_there_too() -> None:
    angle = np.linspace(0, 2 * np.pi, 401)  # one lap of a circle of 1 km, its end at its start
    radius = 1000 / (2 * np.pi)
    parts = cut_along_route(radius * np.cos(angle), radius * np.sin(angle), ["lap"] * 401, cut=Cut(0.6), buffer=50)
    assert (parts[:20] == "buffer").all(), "the start lies where the test stretch ends"
    assert (parts[22:218] == "train").all()
    assert (parts[221:240] == "buffer").all()
    assert (parts[240:] == "test").all()


def test_a_drive_there_and_back_trains_only_where_it_does_not_return() -> None:
    out = np.arange(0.0, 1001.0, 10.0)
    east = np.concatenate([out, out[::-1][1:]])
    parts = cut_along_route(east, np.zeros(len(east)), ["d"] * len(east), cut=Cut(1700.0, metres=True), buffer=50)
    assert set(east[parts == "test"]) == set(np.arange(0.0, 301.0, 10.0))
    assert east[parts == "train"].min() == 360, "350 m is 50 m from 300 m, and that is inclusive"
    assert (east[parts == "buffer"] <= 350).all()


def test_two_laps_are_cleared_of_each_other() -> None:
    east = np.arange(0.0, 1000.0, 5.0)
    longer = np.arange(0.0, 1200.0, 5.0)  # its cut at 0.5 falls 100 m later
    names = ["a"] * len(east) + ["b"] * len(longer)
    both = np.concatenate([east, longer])
    parts = cut_along_route(both, np.zeros(len(both)), names, cut=Cut(0.5), buffer=25)
    second = np.array(names) == "b"
    assert both[(parts == "test") & ~second].min() == 500
    assert both[(parts == "test") & second].min() == 600
    assert both[(parts == "train") & second].max() == 470


def test_nothing_and_one_frame_can_be_cut() -> None:
    assert cut_along_route([], [], [], cut=Cut(0.5), buffer=1).tolist() == []
    assert cut_along_route([1.0], [2.0], ["d"], cut=Cut(0.5), buffer=1).tolist() == ["test"]
    assert cut_along_route([1.0], [2.0], ["d"], cut=Cut(5.0, metres=True), buffer=1).tolist() == ["train"]


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("0.6", Cut(0.6)),
        (" .5 ", Cut(0.5)),
        ("1200m", Cut(1200.0, None, metres=True)),
        ("1200 M", Cut(1200.0, None, metres=True)),
        ("0.5-0.8", Cut(0.5, 0.8)),
        ("0-1", Cut(0.0, 1.0)),
        ("0m - 90.5m", Cut(0.0, 90.5, metres=True)),
    ],
)
def test_cuts_are_read(text: str, cut: Cut) -> None:
    assert Cut.parse(text) == cut


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.5", "60%", "-0.5", "0.8-0.5", "0.5-0.5", "0.5-1.1", "0.5-900m", "500m-0.9", "half", "1e-1", "nan"],
)
def test_a_cut_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ContractError, match="option cut has"):
        Cut.parse(text)


@given(st.text(max_size=12))
@settings(deadline=None, max_examples=200)
def test_any_other_text_is_one_clear_error(text: str) -> None:
    for read in (Cut.parse, parse_roles):
        try:
            read(text)
        except ContractError as error:
            assert "\n" not in str(error).replace(text, "")


def test_a_buffer_that_is_none_is_named() -> None:
    for buffer in (-1.0, math.nan, math.inf):
        with pytest.raises(ContractError, match="option buffer"):
            cut_along_route([0.0], [0.0], ["d"], cut=Cut(0.5), buffer=buffer)


def test_roles_by_drive() -> None:
    assert parse_roles("database:a, query:b/c:d,database:e") == {"a": "database", "b/c:d": "query", "e": "database"}
    assert parse_roles("") == {}
    for text in ("map:a", "database", "database:", "a:database"):
        with pytest.raises(ContractError, match="option roles has"):
            parse_roles(text)
    with pytest.raises(ContractError, match="'a' twice"):
        parse_roles("database:a,query:a")


@pytest.mark.real
def test_the_published_split_of_two_real_laps_is_one_cut_with_a_buffer(real: Path) -> None:
    """Oxford1: both laps, put together again in order of time, fall into the very frames of the published lists."""
    tables = []
    for lap in ("2014-12-16-18-44-24-query", "2015-03-17-11-08-44-database"):
        sides = [
            pl.read_csv(real / "robotcar-positions" / f"{lap}-{side}.csv").with_columns(
                pl.lit(side).alias("side"), pl.lit(lap).alias("lap")
            )
            for side in ("train", "test")
        ]
        tables.append(pl.concat(sides).sort("timestamp_us"))
    laps = pl.concat(tables)
    for buffer in (0.0, 40.0):
        parts = cut_along_route(
            laps["easting"], laps["northing"], laps["lap"], cut=Cut.parse("0.518-0.868"), buffer=buffer
        )
        assert parts.tolist() == laps["side"].to_list(), "46 m apart at both cuts: a buffer of 40 m takes nothing more"
    wider = cut_along_route(laps["easting"], laps["northing"], laps["lap"], cut=Cut.parse("0.518-0.868"), buffer=60.0)
    counts = laps.group_by("lap", pl.Series("part", wider)).len().sort("lap", "part")["len"].to_list()
    assert [counts[1], counts[4]] == [1576, 1574]
    assert 0 < counts[0] < 40
    assert 0 < counts[3] < 40
