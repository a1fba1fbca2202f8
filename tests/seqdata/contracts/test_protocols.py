"""Protocols keep their hashes, say what they refuse, and choose the frames that a literal reading chooses."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import ValidationError

import seqdata
from seqdata import protocols
from seqdata.contracts.protocol import Cut, Protocol
from seqdata.errors import ContractError
from seqdata.protocols import agrees
from seqdata.sequences.resampling import greedy_mask, keep_mask
from seqdata.sequences.sequencer import GEOMETRY_COLUMNS, Sequencer, TrackPolicy, on_side

FIRST_RELEASE = {
    "msls-seqvlad": "278498bb7dcc",
    "msls-seqvlad-melbourne": "3eb42a927f81",
    "msls-sta": "bd6fe22509f9",
    "nordland-sta": "20b2d154eac2",
    "nordland-tenth": "71a42cfe32a3",
    "own": "31b630943bcb",
}
FIXTURE = Path(__file__).parents[2] / "fixtures" / "dataset-v1"


def made(**fields: Any) -> Protocol:
    return Protocol.model_validate({"name": "made", "source": "folder", "splits": {"test": {}}, **fields})


def frames(count: Any = 30, **columns: Any) -> pl.DataFrame:
    """`count` frames of one drive due east, a metre apart, unless columns say otherwise."""
    base = {
        "trajectory": ["a"] * count,
        "position": range(count),
        "clean_position": [None] * count,
        "city": ["here"] * count,
        "role": ["database"] * count,
        "zone": ["30N"] * count,
        "easting": [500_000.0 + i for i in range(count)],
        "northing": [5_700_000.0] * count,
        "heading": [90.0] * count,
        "panorama": [False] * count,
        "resampled": [True] * count,
        "subtasks": [""] * count,
    }
    return pl.DataFrame({**base, **columns}, schema_overrides={"clean_position": pl.Int32}).select(GEOMETRY_COLUMNS)


@pytest.mark.parametrize(("name", "digest"), FIRST_RELEASE.items())
def test_protocols_of_the_first_release_keep_their_hashes(name: str, digest: Any) -> None:
    assert protocols.load(f"{name}@{digest}").hash == digest


VERSIONS = [name for name in protocols.names() if len(protocols.shipped_versions(name)) > 1]


def test_each_paper_s_protocols_have_an_earlier_version() -> None:
    papers = {"msls-seqvlad", "msls-seqvlad-melbourne", "robotcar-seqvlad", "msls-sta", "nordland-sta"}
    assert set(VERSIONS) == papers | {"oxford1-sta", "oxford2-sta"}
    assert not any("v1" in name for name in protocols.names())


@pytest.mark.parametrize("name", VERSIONS)
def test_earlier_versions_load_by_the_form_beside_numbers(name: str) -> None:
    present, earlier = protocols.shipped_versions(name)
    assert (present.version, earlier.version) == (2, 1) and present.name == earlier.name == name
    assert (present.first_even, earlier.first_even) == ("skip", None)
    for protocol in (present, earlier, present.variant(length=10), earlier.variant(length=10, stride=2)):
        assert protocols.load(protocol.label) == protocol
    assert protocols.load(name) == present and protocols.load(f"{name}-L10") == present.variant(length=10)
    with pytest.raises(ContractError, match=f"no protocol '{name}@0123'; shipped are {present.label}, {earlier.label}"):
        protocols.load(f"{name}@0123")


def test_a_dataset_gives_its_own_version_by_name_and_each_by_its_hash() -> None:
    old = seqdata.open(FIXTURE)
    assert old.load_protocol("own") == old.load_protocol("own@31b630943bcb") == old.manifest.protocol
    assert old.load_protocol("msls-sta@bd6fe22509f9").panoramas == "keep"
    assert old.load_protocol("msls-sta").panoramas == "drop"


# Mereu et al. 2022, Table I, and Zhang et al., Table I, as printed: database and queries by split.
TABLES = {
    "msls-seqvlad": {"train": ("733k", "393k"), "val": ("8.1k", "5.8k"), "test": ("13.6k", "8k")},
    "msls-seqvlad-L10": {"train": ("555k", "303k"), "val": ("5.2k", "4.1k"), "test": ("8.2k", "4.5k")},
    "msls-seqvlad-L15": {"train": ("478k", "259k"), "val": ("4k", "3.3k"), "test": ("6.1k", "3.3k")},
    "msls-seqvlad-melbourne": {"train": ("95k", "76k"), "val": ("8.1k", "5.8k"), "test": ("13.6k", "8k")},
    "robotcar-seqvlad": {"train": ("3.6k", "3.3k"), "val": ("4k", "3.7k"), "test": ("3.6k", "3.9k")},
    "msls-sta": {"train": (101827, 88118)},
    "nordland-sta": {"train": (15000, 15000), "test": (3000, 3000)},
    "oxford1-sta": {"train": (2401, 2448), "test": (1460, 1474)},
    "oxford2-sta": {"train": (3619, 3926), "test": (3632, 3921)},
}


@pytest.mark.parametrize("name", TABLES)
def test_protocols_hold_the_counts_of_both_papers(name: str) -> None:
    expected = protocols.load(name).expected_counts
    for split, counts in TABLES[name].items():
        for role, printed in zip(("database", "query"), counts, strict=True):
            keys = [key for key in (role, f"{role}_frames", f"{role}_images") if key in expected[split]]
            assert len(keys) == 1
            stored = expected[split][keys[0]]
            # An exact count stands for a rounded one that it agrees with.
            assert stored == printed or agrees(stored if isinstance(stored, int) else None, printed)


def test_the_sta_paper_s_cities_have_their_counts() -> None:
    test = protocols.load("msls-sta").expected_counts["test"]
    cities = {"amman": (953, 835), "boston": (14024, 6724), "sf": (6315, 4525), "cph": (12601, 6595)}
    for city, counts in cities.items():
        assert (test[f"database_images_{city}"], test[f"query_images_{city}"]) == counts
    assert (test["database_images"], test["query_images"]) == tuple(map(sum, zip(*cities.values(), strict=True)))


def test_titles_count_their_cities() -> None:
    protocol = protocols.load("msls-seqvlad")
    assert f"train on {len(protocol.splits['train'].cities or ())} cities" in protocol.title


def test_the_sta_paper_s_training_rule_is_the_centre_for_positives_alone() -> None:
    for name in ("msls-sta", "oxford1-sta", "oxford2-sta", "nordland-sta"):
        rule = protocols.load(name).train
        assert (rule.rule, rule.negative_rule) == ("centre", "any")
    assert protocols.load("msls-seqvlad").train.negative_rule is None


def test_the_official_sequences_of_msls_are_judged_at_the_centre() -> None:
    protocol = protocols.load("msls-val-seq2seq")
    assert (protocol.length, protocol.rule, protocol.radius, protocol.pool) == (3, "any", 25.0, "together")
    rows = frames(
        6, panorama=[False, True, False, False, False, False], subtasks=["all"] * 4 + [""] * 2, city=["sf"] * 6
    )
    table = Sequencer(rows).protocol_windows(protocol, "test", "database")
    # Window 0 has the panorama at its centre; windows 2 and 3 have centres 3 and 4, of which 4 is not listed.
    assert table["first"].to_list() == [1, 2]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.booleans(), min_size=0, max_size=12), min_size=1, max_size=4),
    st.integers(1, 6),
    st.sampled_from(["keep", "skip"]),
)
def test_the_first_window_of_a_folder_is_left_out_at_even_lengths(drives: Any, length: int, choice: Any) -> None:
    """A literal reading of the papers' programs: the centres that have L/2 frames of their folder on both sides."""
    expected, rows, track_row = [], [], 0
    for number, gaps in enumerate(drives):
        positions = np.cumsum([0, *(2 if gap else 1 for gap in gaps)]).tolist()
        rows += [(f"d{number}", position) for position in positions]
        half = length // 2
        for centre in range(half, len(positions) - half):
            window = [centre + offset + 1 for offset in range(math.floor(-length / 2), math.floor(length / 2))]
            window = window if length > 1 else [centre]
            if all(positions[b] - positions[a] == 1 for a, b in pairwise(window)):
                expected.append(track_row + window[0])
        track_row += len(positions)
    names, positions = zip(*rows, strict=True)
    count = len(rows)
    sequencer = Sequencer(frames(count, trajectory=list(names), position=list(positions)))
    protocol = made(length=length, first_even=choice, splits={"test": {}})
    got = sequencer.protocol_windows(protocol, "test", "database")["first"].to_list()
    if choice == "skip":
        assert got == expected
    else:
        assert set(expected) <= set(got) and (length % 2 == 0 or got == expected)


def test_a_part_of_a_trajectory_is_a_folder_of_its_own() -> None:
    """The papers' programs keep the frames of a split in a folder: there the first window is the split's first."""
    protocol = made(length=4, first_even="skip", splits={"test": {"positions": [10, 20]}})
    table = Sequencer(frames(30)).protocol_windows(protocol, "test", "database")
    assert table["first"].to_list() == [11, 12, 13, 14, 15, 16]


def test_a_stored_manifest_of_the_first_release_keeps_its_id_and_its_protocol() -> None:
    old = seqdata.open(FIXTURE)
    assert old.id == "23e361cc1f1c518081a3268455f1607f686279c6eb62f1bf3fe0889bf97516ec"
    assert old.manifest.protocol.label == "own@31b630943bcb"
    assert old.protocol_positives("own", "test").height > 0


def test_new_fields_at_their_defaults_are_not_stored_and_set_ones_change_the_hash() -> None:
    plain = protocols.load("own")
    stored = plain.model_dump(mode="json")
    assert not {*Protocol.later, "side", "subtask"} & (stored.keys() | stored["splits"]["test"].keys())
    for field, value in {
        "spacing_rule": "greedy",
        "pose_source": "rtk",
        "pose_mode": "nearest",
        "pose_gap": 0.5,
        "crop": "top1280x800",
    }.items():
        changed = plain.model_copy(update={field: value})
        assert changed.hash != plain.hash
        assert changed.model_dump(mode="json")[field] == value
        assert protocols.parse(changed.model_dump(mode="json"), "x") == changed
    assert plain.model_copy(update={"expected_at": {"10": {"test": {"query": "5k"}}}}).hash == plain.hash


def test_the_papers_protocols_are_there_and_pin_their_practice() -> None:
    for name in ("robotcar-seqvlad", "robotcar-2m", "oxford1-sta", "oxford2-sta"):
        loaded = protocols.load(name)
        assert (loaded.spacing, loaded.spacing_rule) == (2.0, "greedy")
        assert (loaded.pose_source, loaded.pose_mode, loaded.source) == ("rtk", "nearest", "robotcar")
    assert protocols.load("oxford1-sta").crop == protocols.load("oxford2-sta").crop == "top1280x800"
    seqvlad, second = protocols.load("robotcar-seqvlad"), protocols.load("oxford2-sta")
    assert seqvlad.splits["train"] == second.splits["train"]
    assert seqvlad.splits["test"] == second.splits["test"]
    assert (protocols.load("nordland-10f").radius, protocols.load("nordland-10f").unit) == (10.0, "frames")
    assert protocols.load("msls-val").length == 1


def test_variants_are_named_hashed_and_loaded_by_name() -> None:
    base = protocols.load("msls-seqvlad")
    ten = base.variant(length=10)
    assert (ten.name, ten.length, ten.expected_counts["test"]["query"]) == ("msls-seqvlad-L10", 10, "4.5k")
    assert ten == protocols.load("msls-seqvlad-L10")
    assert base.variant(length=5) == base.variant() == base
    assert base.variant(7, 3, 2.5).name == "msls-seqvlad-L7-s3-2.5m"
    assert protocols.load("msls-seqvlad-L7-s3-2.5m") == base.variant(7, 3, 2.5)
    assert protocols.load("robotcar-2m-L10").length == 10
    assert protocols.load("robotcar-2m-L10").spacing == 2.0
    assert len({base.hash, ten.hash, base.variant(length=15).hash, base.variant(stride=2).hash}) == 4
    assert base.variant(10, 2).expected_counts == {}
    for wrong in ("msls-L10", "msls-seqvlad-L0", "msls-seqvlad-X10"):
        with pytest.raises(ContractError):
            protocols.load(wrong)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 20_000), st.integers(0, 999), st.integers(0, 1))
def test_a_rounded_count_holds_for_what_rounds_to_it(count: int, thousands: Any, decimals: Any) -> None:
    expected = f"{thousands / 10**decimals:.{decimals}f}k"
    literal = abs(count / 1000 - float(expected[:-1])) <= 0.5 / 10**decimals + 1e-12
    assert agrees(count, expected) == literal
    assert agrees(count, count)
    assert not agrees(count, count + 1)
    assert not agrees(None, expected)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["drop", "keep", "centre"]),
    st.booleans(),
    st.none() | st.floats(1e-9, 1e9),
    st.none() | st.floats(1e-9, 1e9),
)
def test_a_track_key_names_its_policy_exactly(panoramas: Any, clean: Any, spacing: Any, max_step: Any) -> None:
    policy = TrackPolicy(panoramas, clean, spacing, max_step)
    assert TrackPolicy.from_key(policy.key) == policy
    assert "/" not in policy.key


@pytest.mark.parametrize(
    "key", ["", "some", "nopano-", "nopano-2", "nopano-clean-clean", "all-2m-3m", "nopano-step1m-2m"]
)
def test_other_texts_are_no_track_keys(key: Any) -> None:
    with pytest.raises(ContractError, match="names no track table"):
        TrackPolicy.from_key(key)


def test_wrong_policies_are_refused() -> None:
    for options in ({"panoramas": "some"}, {"spacing": 0.0}, {"spacing": math.inf}, {"max_step": -1.0}):
        with pytest.raises(ContractError):
            TrackPolicy(**options)


def test_a_cut_and_its_sides_need_each_other() -> None:
    cut = {"zone": "30N", "corners": [[0, 0], [1, 0], [0, 1]], "buffer": 1}
    with pytest.raises(ContractError, match="need each other"):
        protocols.parse({"name": "x", "source": "folder", "splits": {"test": {}}, "cut": cut}, "x.toml")
    with pytest.raises(ContractError, match="need each other"):
        protocols.parse({"name": "x", "source": "folder", "splits": {"test": {"side": "inside"}}}, "x.toml")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 3.0, 10.0]), st.sampled_from(["inside", "outside"]))
def test_sides_of_a_box_equal_a_literal_reading(seed: int, buffer: Any, side: Any) -> None:
    points = np.random.default_rng(seed).integers(-20, 40, (50, 2)).astype(float)
    cut = Cut(zone="30N", corners=((0, 0), (20, 0), (20, 10), (0, 10)), buffer=buffer)
    table = pl.DataFrame({"zone": ["30N"] * 50, "easting": points[:, 0], "northing": points[:, 1]})
    expected = []
    for x, y in points:
        away = math.hypot(max(0 - x, x - 20, 0), max(0 - y, y - 10, 0))
        expected.append(away == 0 if side == "inside" else away > 0 and away >= buffer)
    assert on_side(table, cut, side).tolist() == expected


def test_a_cut_in_another_zone_is_refused() -> None:
    cut = Cut(zone="30N", corners=((0, 0), (20, 0), (20, 10)), buffer=5)
    with pytest.raises(ContractError, match=r"zone 30N.*zone 31N"):
        on_side(pl.DataFrame({"zone": ["31N"], "easting": [0.0], "northing": [0.0]}), cut, "inside")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 3))
def test_a_window_belongs_to_a_split_with_every_frame(seed: int, length: int, stride: Any) -> None:
    rng = np.random.default_rng(seed)
    table = frames(
        40,
        trajectory=["a"] * 15 + ["b"] * 25,
        position=[*range(15), *range(25)],
        role=["query"] * 15 + ["database"] * 25,
        city=["x"] * 15 + ["y"] * 25,
        easting=(500_000 + rng.integers(0, 60, 40)).astype(float),
        panorama=rng.random(40) < 0.1,
    )
    start, stop = sorted(rng.choice(26, 2, replace=False).tolist())
    cut = {"zone": "30N", "corners": [[5e5, 0], [5e5 + 40, 0], [5e5 + 40, 1e7], [5e5, 1e7]], "buffer": 8}
    protocol = made(
        length=length,
        stride=stride,
        cut=cut,
        splits={
            "train": {"side": "outside"},
            "test": {"side": "inside", "positions": [start, stop], "cities": ["y"], "query": ["b"]},
        },
    )
    sequencer = Sequencer(table)
    every = sequencer.protocol_windows(protocol)
    rows = sequencer.frame_rows(every) if every.height else np.zeros((0, length), int)
    east, position = table["easting"].to_numpy() - 5e5, table["position"].to_numpy()
    for split, role, admits in (
        ("train", "query", lambda i: i < 15 and east[i] >= 48),
        ("train", "database", lambda i: i >= 15 and east[i] >= 48),
        ("test", "query", lambda i: i >= 15 and east[i] <= 40 and start <= position[i] < stop),
        ("test", "database", lambda i: i >= 15 and east[i] <= 40 and start <= position[i] < stop),
    ):
        wanted = [window for window in rows.tolist() if all(admits(i) for i in window)]
        chosen = sequencer.protocol_windows(protocol, split, role)
        assert (sequencer.frame_rows(chosen).tolist() if chosen.height else []) == wanted
        assert set(chosen["role"]) <= {role}


def test_panoramas_are_dropped_kept_or_judged_at_the_centre() -> None:
    table = frames(9, panorama=[False] * 4 + [True] + [False] * 4)
    cut = {
        policy: Sequencer(table).protocol_windows(made(length=3, panoramas=policy))["centre"].to_list()
        for policy in ("drop", "keep", "centre")
    }
    assert cut == {"drop": [1, 2, 6, 7], "keep": [1, 2, 3, 4, 5, 6, 7], "centre": [1, 2, 3, 5, 6, 7]}


def test_a_subtask_is_that_of_the_centre_frame() -> None:
    table = frames(6, subtasks=["", "all", "all s2w", "s2w", "small", ""])
    chosen = Sequencer(table).protocol_windows(made(length=3, splits={"test": {"subtask": "all"}}), "test", "database")
    assert chosen["centre"].to_list() == [1, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1.0, 2.0, 5.0]), st.sampled_from(["greedy", "arc"]))
def test_any_spacing_comes_from_one_set_of_frames(seed: int, spacing: Any, rule: Any) -> None:
    rng = np.random.default_rng(seed)
    east, north = rng.normal(0.7, 1, 60).cumsum(), rng.normal(0, 0.3, 60).cumsum()
    flags = rng.random(60) < 0.5
    table = frames(60, easting=east, northing=north, resampled=flags)
    kept = Sequencer(table, rule, 2.0).track(TrackPolicy(spacing=spacing).key)["frame"].to_numpy()
    # At the dataset's own spacing the flag is read, whatever it says; at another the rule is computed.
    literal = flags if spacing == 2.0 else keep_mask(east, north, spacing, rule)
    assert kept.tolist() == np.flatnonzero(literal).tolist()
    unflagged = Sequencer(table, rule).track(TrackPolicy(spacing=spacing).key)["frame"].to_numpy()
    assert unflagged.tolist() == np.flatnonzero(keep_mask(east, north, spacing, rule)).tolist()


def test_another_spacing_rule_is_refused_with_both_named() -> None:
    protocol = made(spacing=2.0, spacing_rule="arc")
    with pytest.raises(ContractError, match=r"spacing_rule is 'arc', the dataset's is 'greedy'"):
        Sequencer(frames()).protocol_windows(protocol)
    assert Sequencer(frames(), "arc").protocol_windows(protocol).height == 11
    assert Sequencer(frames()).protocol_windows(made(spacing=None, spacing_rule="arc")).height == 26


def replayed(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A real lap as the papers see it: 16 Hz frames at the nearest pose of a 10 Hz log, greedy 2 m."""
    parts = [pl.read_csv(folder / f"{name}-{part}.csv") for part in ("train", "test")]
    lap = pl.concat(parts).sort("timestamp_us")
    seconds = lap["timestamp_us"].to_numpy() / 1e6
    seconds = seconds - seconds[0]
    pose = np.round(np.arange(0, seconds[-1], 1 / 16) * 10) / 10
    east, north = (np.interp(pose, seconds, lap[axis].to_numpy()) for axis in ("easting", "northing"))
    kept = greedy_mask(east, north, 2.0)
    return east[kept], north[kept]


@pytest.mark.real
def test_the_cut_of_oxford1_on_the_real_laps(real: Path) -> None:
    protocol = protocols.load("oxford1-sta")
    laps = {"2015-03-17-11-08-44": "database", "2014-12-16-18-44-24": "query"}
    tables = []
    for lap, role in laps.items():
        east, north = replayed(real / "robotcar-positions", f"{lap}-{role}")
        count = len(east)
        tables.append(frames(count, trajectory=[lap] * count, easting=east, northing=north, role=[None] * count))
    sequencer = Sequencer(pl.concat(tables), "greedy", 2.0)
    ground = {
        (split, role): sequencer.frames_of(protocol, split, role)
        for split in ("train", "test")
        for role in ("database", "query")
    }
    counts = {key: int(mask.sum()) for key, mask in ground.items()}
    published = {
        ("train", "database"): 2401,
        ("train", "query"): 2448,
        ("test", "database"): 1460,
        ("test", "query"): 1474,
    }
    for key, count in published.items():
        assert abs(counts[key] - count) <= 0.01 * count, (key, counts[key])
    xy = sequencer.frames.select("easting", "northing").to_numpy()
    for role in ("database", "query"):
        inside, outside = xy[ground["test", role]], xy[ground["train", "database"] | ground["train", "query"]]
        apart = min(np.sqrt(((outside - point) ** 2).sum(1)).min() for point in inside)
        assert apart >= 25.0
        # The test ground is one unbroken stretch of the lap.
        assert np.abs(np.diff(ground["test", role].astype(int))).sum() == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"length": 0}, {"stride": 0}, {"spacing": 0}, {"max_step": 0}, {"radius": 0}, {"heading_max": 0},
        {"heading_max": 180.5}, {"splits": {}}, {"train": {"positive_radius": 0}}, {"train": {"negative_radius": 0}},
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        made(**wrong)


def test_what_a_short_protocol_means() -> None:
    protocol = made()
    assert (protocol.version, protocol.length, protocol.stride, protocol.radius) == (1, 5, 1, 25.0)
    assert (protocol.train.positive_radius, protocol.train.negative_radius) == (10.0, 25.0)
    assert made(heading_max=180).heading_max == 180


@pytest.mark.parametrize(
    ("count", "expected", "agreed"),
    [
        (11_999, "12k", True), (11_499, "12k", False), (12_500, "12k", True), (12_501, "12k", False),
        (12_340, "12.34k", True), (12_346, "12.34k", False), (7, 7, True), (7, 8, False), (None, "12k", False),
    ],
)  # fmt: skip
def test_counts_that_were_published_rounded(count: int | None, expected: Any, agreed: bool) -> None:
    assert agrees(count, expected) is agreed


class Interleaved(Sequencer):
    """A sequencer of two threads: whatever one has cut is replaced at once by what the other has cut."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "_last_cut" and value is not None:
            super().__setattr__(name, (value[0], value[1].head(0)))


def test_windows_are_those_of_the_call_whatever_another_thread_cuts() -> None:
    policy = TrackPolicy()
    assert_frame_equal(Interleaved(frames(9)).windows(policy, 3), Sequencer(frames(9)).windows(policy, 3))
