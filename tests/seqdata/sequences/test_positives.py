"""Ground truth against brute force over every frame pair, in every shape that windows come in."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from seqdata.errors import ContractError
from seqdata.geometry import driving_headings
from seqdata.sequences import positives as truth
from seqdata.sequences import tiles as truth_tiles
from seqdata.sequences.positives import accepts, pair_blocks, positives, write_positives
from seqdata.sequences.tiles import WindowSet
from seqdata.sequences.windows import track, windows

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "msls-positions"
real = pytest.mark.skipif(not REAL.is_dir(), reason="real MSLS positions are not at ../shared/data")
ORIGIN = np.array([4e5, 6e6])


def frames_of(windows_: Any, i: Any) -> Any:
    rows = windows_.first[i] + np.arange(windows_.length[i]) * windows_.step[i]
    return windows_.xy[rows], windows_.heading[rows]


def brute(query: Any, database: Any, radius: Any, inclusive: Any = False, queries: Any = None) -> Any:
    """Every pair by its definition: window by window, all frame pairs, a row per pair whose least distance
    fits.
    """
    rows = []
    for i in range(len(query)) if queries is None else queries:
        a, a_heading = frames_of(query, i)
        for j in np.flatnonzero(database.group == query.group[i]):
            b, b_heading = frames_of(database, j)
            d = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
            if d.min() < radius or (inclusive and d.min() == radius):
                centres = (len(a) - 1) // 2, (len(b) - 1) // 2
                turn = abs(a_heading[centres[0]] - b_heading[centres[1]]) % 360
                turn = None if np.isnan(turn) else np.float32(min(turn, 360 - turn))
                rows.append((i, j, d.min(), d[centres], d[-1, -1], d.min(axis=1).max(), turn))
    return pl.DataFrame(rows, schema=truth.POSITIVES_SCHEMA, orient="row")


def literal_rule(query: Any, database: Any, rule: Any, radius: Any, inclusive: Any = False) -> Any:
    """The rule in the protocol's own words, without the pair table: set of (query, database)."""
    near = (lambda d: d <= radius) if inclusive else (lambda d: d < radius)
    hits = set()
    for i in range(len(query)):
        for j in range(len(database)):
            a, b = frames_of(query, i)[0], frames_of(database, j)[0]
            d = [[float(np.sqrt(((p - q) ** 2).sum())) for q in b] for p in a]
            found = {
                "any": any(near(x) for row in d for x in row),
                "centre": near(d[(len(a) - 1) // 2][(len(b) - 1) // 2]),
                "last": near(d[-1][-1]),
                "all": all(any(near(x) for x in row) for row in d),
            }
            if found[rule] and query.group[i] == database.group[j]:
                hits.add((i, j))
    return hits


@st.composite
def window_sets(draw: Any) -> Any:
    """A track on a coarse grid of metres (exact distances, co-located frames), with jumps, gaps and any
    window form.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    length, step, stride = draw(st.integers(1, 7)), draw(st.integers(1, 2)), draw(st.integers(1, 6))
    count = draw(st.integers(1, 60)) + (length - 1) * step
    xy = rng.integers(-5, 6, (count, 2)).cumsum(0) * draw(st.sampled_from([1.0, 5.0])) + ORIGIN
    if draw(st.booleans()):
        xy[rng.integers(0, count) :] += 20_000.0 * rng.integers(-1, 2, 2)
    first = np.arange(0, count - (length - 1) * step, stride)
    form = draw(st.sampled_from(["whole", "whole", "shift", "sample", "shuffled"]))
    if form == "shift":
        first = np.clip(first - 3, 0, first[-1] - first[-1] % stride)
    elif form == "sample":
        first = rng.choice(first, len(first))
    elif form == "shuffled":
        first = rng.permutation(first)
    group = rng.integers(0, 2, len(first)) if draw(st.booleans()) else 0
    heading = np.where(rng.random(count) < 0.2, np.nan, rng.integers(0, 360, count))
    return WindowSet.from_coordinates(xy, first, length, step=step, group=group, heading=heading)


@settings(max_examples=120, deadline=None)
@given(window_sets(), window_sets(), st.sampled_from([5.0, 13.0, 25.0]), st.sampled_from(["metres", "frames"]))
def test_pairs_and_distances_equal_brute_force(query: Any, database: Any, radius: Any, unit: Any) -> None:
    expected = brute(query, database, radius, unit == "frames")
    assert positives(query, database, radius=radius, unit=unit).equals(expected, null_equal=True)


@settings(max_examples=40, deadline=None)
@given(
    window_sets(),
    window_sets(),
    st.sampled_from(list(truth.RULE_COLUMNS)),
    st.sampled_from([5.0, 10.0, 25.0]),
    st.booleans(),
)
def test_rules_are_filters(query: Any, database: Any, rule: Any, radius: Any, inclusive: Any) -> None:
    query = WindowSet.from_coordinates(
        query.xy, query.first[:12], query.length[:12], step=query.step[:12], group=query.group[:12]
    )
    unit = "frames" if inclusive else "metres"
    pairs = positives(query, database, radius=25.0, unit=unit)
    kept = pairs.filter(accepts(rule=rule, radius=radius, unit=unit))
    assert set(kept.select("query", "database").rows()) == literal_rule(query, database, rule, radius, inclusive)


def street(seed: Any, count: Any = 4000, spacing: Any = 4.0) -> Any:
    """Several passes of a few crossing streets with noise, one jump: (n, 2) metres."""
    rng = np.random.default_rng(seed)
    turns = rng.integers(0, 4, count // 40 + 1).repeat(40)[:count] * (np.pi / 2)
    xy = np.stack([np.cos(turns), np.sin(turns)], 1).cumsum(0) * spacing % 700.0
    xy += rng.normal(0, 2, (count, 2)) + ORIGIN
    xy[count // 2 :] += [0.0, 300.0]
    return xy


def street_set(seed: Any, length: Any = 5, stride: Any = 1, **options: Any) -> Any:
    xy = street(seed, **options)
    first = np.arange(0, len(xy) - length + 1, stride)
    return WindowSet.from_coordinates(xy, first, length, heading=driving_headings(xy[:, 0], xy[:, 1]))


@pytest.mark.parametrize(("lengths", "stride"), [((5, 5), 1), ((10, 5), 1), ((1, 15), 1), ((4, 6), 3)])
def test_many_tiles_equal_brute_force_on_a_sample(lengths: Any, stride: Any) -> None:
    query, database = street_set(1, lengths[0], stride), street_set(2, lengths[1], stride, count=1500)
    sample = np.random.default_rng(0).choice(len(query), 40, replace=False)
    pairs = positives(query, database, radius=25.0)
    expected = brute(query, database, 25.0, queries=np.sort(sample))
    assert len(expected) > 100
    assert pairs.filter(pl.col("query").is_in(sample)).equals(expected)
    assert pairs.select("query", "database").rows() == sorted(pairs.select("query", "database").rows())


@pytest.mark.parametrize(("window_pairs", "query_rows", "slots"), [(1, 2048, 16), (999, 100, 4), (10**6, 7, 32)])
def test_result_does_not_depend_on_how_work_is_cut(
    monkeypatch: pytest.MonkeyPatch, window_pairs: Any, query_rows: Any, slots: Any
) -> None:
    query, database = street_set(3, count=600), street_set(4, count=600)
    expected = positives(query, database, radius=25.0)
    monkeypatch.setattr(truth, "WINDOW_PAIRS", window_pairs)
    monkeypatch.setattr(truth, "QUERY_ROWS", query_rows)
    monkeypatch.setattr(truth_tiles, "SLOTS", slots)
    blocks = list(pair_blocks(query, database, radius=25.0, threads=3))
    assert len(blocks) > 3
    assert pl.concat(blocks).equals(expected)


def test_exactly_on_the_radius() -> None:
    query = WindowSet.from_coordinates([[0.0, 0.0]], [0], 1)
    database = WindowSet.from_coordinates([[15.0, 20.0], [0.0, 25.0], [0.0, np.nextafter(25.0, 0)]], [0, 1, 2], 1)
    assert positives(query, database, radius=25.0)["database"].to_list() == [2]
    assert positives(query, database, radius=25.0, unit="frames")["database"].to_list() == [0, 1, 2]
    pairs = positives(query, database, radius=30.0)
    assert pairs.filter(accepts(rule="any", radius=25.0))["database"].to_list() == [2]
    assert pairs.filter(accepts(rule="any", radius=25.0, unit="frames"))["database"].to_list() == [0, 1, 2]


def test_radius_zero_and_ranks() -> None:
    ranks = np.stack([np.arange(20.0), np.zeros(20)], 1)
    query = WindowSet.from_coordinates(ranks, range(16), 5)
    same = positives(query, query, radius=0, unit="frames")
    assert same.filter(accepts(rule="centre", radius=0, unit="frames")).select("query", "database").rows() == [
        (i, i) for i in range(16)
    ]
    near = positives(query, query, radius=1, unit="frames").filter(accepts(rule="centre", radius=1, unit="frames"))
    assert len(near) == 16 + 2 * 15


def test_groups_are_never_compared() -> None:
    xy = np.zeros((10, 2))
    query = WindowSet.from_coordinates(xy, [0, 1, 2], 3, group=[7, 3, 9])
    database = WindowSet.from_coordinates(xy, [0, 1, 2, 3], 3, group=[3, 7, 3, -1])
    pairs = positives(query, database, radius=1.0)
    assert pairs.select("query", "database").rows() == [(0, 1), (1, 0), (1, 2)]


def test_heading_limit_leaves_unknown_directions_out() -> None:
    query = WindowSet.from_coordinates(np.zeros((3, 2)), [0], 3, heading=[0.0, 350.0, 0.0])
    database = WindowSet.from_coordinates(np.zeros((4, 2)), [0, 1, 2, 3], 1, heading=[10.0, 170.0, np.nan, 20.0])
    pairs = positives(query, database, radius=1.0)
    assert pairs["heading_difference"].to_list() == [20.0, 180.0, None, 30.0]
    assert pairs["heading_difference"].dtype == pl.Float32
    assert pairs.filter(accepts(rule="any", radius=1.0, heading_max=20.0))["database"].to_list() == [0]
    assert len(pairs.filter(accepts(rule="any", radius=1.0))) == 4


def test_bytes_are_equal_between_runs_and_thread_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "ROW_GROUP", 10_000)
    monkeypatch.setattr(truth, "QUERY_ROWS", 300)
    query, database = street_set(5), street_set(6)
    done = []
    for name, threads in (("one", 1), ("two", 2), ("again", 2), ("five", 5)):
        count = write_positives(
            tmp_path / name, query, database, radius=25.0, threads=threads, metadata={"k": "v"}, progress=done.append
        )
    files = [(tmp_path / name).read_bytes() for name in ("one", "two", "again", "five")]
    assert files.count(files[0]) == 4
    stored = pq.ParquetFile(tmp_path / "one")
    assert stored.metadata.num_row_groups > 3
    assert stored.schema_arrow.metadata[b"k"] == b"v"
    assert pl.read_parquet(tmp_path / "one").equals(positives(query, database, radius=25.0))
    assert stored.metadata.num_rows == count
    assert done[-1] == len(query)


def test_nothing_half_written_when_the_work_fails(tmp_path: Path) -> None:
    def stop(done: Any) -> None:
        raise RuntimeError(f"stopped after {done}")

    with pytest.raises(RuntimeError, match="stopped"):
        write_positives(tmp_path / "p.parquet", street_set(1), street_set(2), radius=25.0, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_empty_sets_give_an_empty_table(tmp_path: Path) -> None:
    none, some = (
        WindowSet.from_coordinates(np.zeros((0, 2)), [], 5),
        WindowSet.from_coordinates(np.zeros((5, 2)), [0], 5),
    )
    for query, database in ((none, some), (some, none), (none, none)):
        assert positives(query, database, radius=25.0).equals(pl.DataFrame(schema=truth.POSITIVES_SCHEMA))
        assert write_positives(tmp_path / "e.parquet", query, database, radius=25.0) == 0
        assert pl.read_parquet(tmp_path / "e.parquet").schema == truth.POSITIVES_SCHEMA


def test_bad_window_sets_are_refused() -> None:
    for xy, first, length, message in (
        ([[0.0, np.nan]], [0], 1, "not finite"),
        (np.zeros((4, 2)), [0, 2], 3, "beyond the 4 frames"),
        (np.zeros((4, 2)), [-1], 3, "at least"),
        (np.zeros((4, 2)), [0], 0, "at least"),
    ):
        with pytest.raises(ContractError, match=message):
            WindowSet.from_coordinates(xy, first, length)


def test_bad_rules_units_and_radii_are_refused() -> None:
    one = WindowSet.from_coordinates(np.zeros((1, 2)), [0], 1)
    for options in ({"radius": -1.0}, {"radius": float("nan")}, {"radius": 1.0, "unit": "miles"}):
        with pytest.raises(ContractError):
            positives(one, one, **options)
    with pytest.raises(ContractError, match="any, centre, last, all"):
        positives(one, one, radius=1.0).filter(accepts(rule="nearest", radius=1.0))


def msls_set(name: Any, length: Any, max_step: Any = None) -> Any:
    raw = pl.read_csv(REAL / f"{name}.csv").with_row_index("frame")
    frames = raw.with_columns(
        pl.col("sequence_start").cast(pl.String).alias("trajectory"),
        pl.int_range(pl.len()).over("sequence_start").alias("position"),
        panorama=pl.lit(False),
    )
    cut = windows(track(frames, max_step=max_step), length=length)
    drives = raw.partition_by("sequence_start", maintain_order=True)
    heading = np.concatenate([driving_headings(drive["easting"], drive["northing"]) for drive in drives])
    xy = raw.select("easting", "northing").to_numpy()
    return WindowSet.from_coordinates(xy, cut["first"].to_numpy(), length, heading=heading)


@real
@pytest.mark.real
@pytest.mark.parametrize("city", ["amman", "austin"])
@pytest.mark.parametrize(("length", "max_step"), [(5, None), (5, 100.0), (10, None)])
def test_real_cities_equal_brute_force_on_a_sample(city: Any, length: int, max_step: Any) -> None:
    query, database = (msls_set(f"{city}-{role}", length, max_step) for role in ("query", "database"))
    sample = np.sort(np.random.default_rng(1).choice(len(query), 20, replace=False))
    pairs = positives(query, database, radius=25.0)
    assert pairs.filter(pl.col("query").is_in(sample)).equals(brute(query, database, 25.0, queries=sample))
    assert len(pairs) > 1000


@real
@pytest.mark.real
@pytest.mark.parametrize(
    ("city", "length", "near", "facing"),
    [
        ("amman", 5, (8179, 727), (7540, 725)),
        ("amman", 10, (9779, 567), (8791, 564)),
        ("amman", 15, (10501, 470), (9242, 469)),
        ("austin", 5, (136535, 1623), (95178, 1613)),
        ("austin", 10, (177706, 1490), (122340, 1486)),
        ("austin", 15, (205286, 1272), (139732, 1271)),
    ],
)
def test_real_pairs_and_answerable_queries_with_and_without_a_heading_limit(
    city: Any, length: int, near: Any, facing: Any
) -> None:
    query, database = (msls_set(f"{city}-{role}", length) for role in ("query", "database"))
    pairs = positives(query, database, radius=25.0)
    limited = pairs.filter(accepts(rule="any", radius=25.0, heading_max=45.0))
    assert [(len(each), each["query"].n_unique()) for each in (pairs, limited)] == [near, facing]
    # Frame by frame: the windows that hold a near frame pair, counted from frames alone.
    tree = cKDTree(database.xy)
    found = tree.query_ball_point(query.xy, 25.0)
    holds = np.zeros((len(query), len(database)), dtype=bool)
    for frame, others in enumerate(found):
        mine = np.flatnonzero((query.first <= frame) & (frame < query.first + length))
        theirs = np.unique(np.concatenate([np.arange(other - length + 1, other + 1) for other in others] or [[]]))
        rows = np.flatnonzero(np.isin(database.first, theirs))
        holds[np.ix_(mine, rows)] = True
    assert np.argwhere(holds).tolist() == pairs.select("query", "database").to_numpy().tolist()


def test_a_finder_gives_the_pairs_of_any_few_queries() -> None:
    """What is made once for a database serves every later set of queries, in any order."""
    rng = np.random.default_rng(5)
    xy = ORIGIN + np.cumsum(rng.normal(0, 4, (120, 2)), axis=0)
    database = WindowSet.from_coordinates(xy, np.arange(0, 110, 2), 4, group=np.arange(55) % 2)
    query = WindowSet.from_coordinates(xy, np.arange(1, 111, 3), 3, group=np.arange(37) % 2)
    finder = truth.PairFinder(database, radius=9.0)
    for rows in (rng.permutation(37), np.array([5]), np.array([30, 2, 11]), np.zeros(0, np.int64)):
        expected = positives(query.subset(rows), database, radius=9.0)
        assert finder.pairs(query.subset(rows)).equals(expected)
    with pytest.raises(ContractError, match="radius"):
        truth.PairFinder(database, radius=-1.0)
