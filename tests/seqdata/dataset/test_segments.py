"""Segments: what appends and withdrawals add is read as one table, and is what writing all tables anew would give."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import seqdata
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.build.request import follow_protocol
from seqdata.contracts.manifest import BuildSettings, DatasetManifest, read_manifest
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.compact import compact
from seqdata.dataset.export.export import export
from seqdata.dataset.info import describe
from seqdata.dataset.leakage import leakage
from seqdata.dataset.repair import repair
from seqdata.dataset.verify import verify
from seqdata.dataset.versions import append, withdraw, withdrawn
from seqdata.errors import ContractError
from seqdata.storage.hashing import sha256_json, xxh3_file
from tests.conftest import jpeg
from tests.support.killing import killed_at

Files = Callable[[Path], dict[str, bytes]]
FIXTURES = Path(__file__).parents[2] / "fixtures"
FIRST = {"a-map": 31, "b-query": 26}
SECOND = {"c-map": 17, "d-query": 9}
THIRD = {"e-map": 8}
OWN = protocols.load("own")
VARIANTS: dict[str, Mapping[str, object]] = {
    "stride 1": {},
    "stride 3": {"stride": 3},
    "shifted edges": {"edges": "shift", "length": 4},
    "spacing": {"spacing": 5.0, "length": 3},
    "ranks": {"unit": "frames", "rule": "centre", "radius": 2.0, "max_step": None},
    "ranks of a spacing": {"unit": "frames", "rule": "all", "radius": 3.0, "spacing": 4.0, "max_step": None},
    "first of even length": {"length": 6, "first_even": "skip", "heading_max": 40.0},
}


def variant(name: str) -> Protocol:
    return Protocol.model_validate({**OWN.model_dump(), **VARIANTS[name]})


def write_street(raw: Path, *parts: Mapping[str, int], image: bytes = jpeg(1)) -> Path:
    """Drives that wind along one street, one JPEG for all frames; a drive with "query" in its name is a query."""
    raw.mkdir()
    rows = ["image,easting,northing,zone,drive,role,city"]
    for drive, count in {name: count for part in parts for name, count in part.items()}.items():
        number = ord(drive[0]) - ord("a")
        # Two drives a city: frames are listed by city, then by role.
        start, city = 7.0 * number, f"town-{number // 2}"
        for position in range(count):
            (raw / f"{drive}-{position:03d}.jpg").write_bytes(image)
            x, y = start + 3.1 * position, 9.0 * np.sin(start + position / 3)
            role = "query" if "query" in drive else "database"
            rows.append(f"{drive}-{position:03d}.jpg,{500_000 + x},{5_000_000 + y},32N,{drive},{role},{city}")
    (raw / "positions.csv").write_text("\n".join(rows) + "\n")
    return raw


def request(raw: Path, out: Path, protocol: Protocol = OWN) -> BuildRequest:
    settings = BuildSettings(shard_bytes=1 << 16)
    return follow_protocol(BuildRequest("folder", raw, out, settings=settings, protocol=protocol))[0]


GONE = (["a-map-010", "b-query-000", "c-map-016"], ["a-map-011", *(f"d-query-{n:03d}" for n in range(9))])


def changed(folder: Path, protocol: Protocol = OWN) -> Path:
    """A dataset that was built, appended to, withdrawn from twice (of one drive all frames), and appended to."""
    build(request(write_street(folder / "first", FIRST), folder / "out", protocol))
    append(request(write_street(folder / "second", FIRST, SECOND), folder / "out"))
    for keys in GONE:
        withdraw(folder / "out", keys, "asked to")
    append(request(write_street(folder / "third", SECOND, THIRD), folder / "out"))
    return folder / "out"


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return changed(tmp_path_factory.mktemp("segments"))


@pytest.fixture
def out(segmented: Path, tmp_path: Path) -> Path:
    shutil.copytree(segmented, tmp_path / "out")
    return tmp_path / "out"


def assert_same_reading(dataset: seqdata.Dataset, whole: seqdata.Dataset, protocol: Protocol = OWN) -> None:
    """Every reader of tables sees the same in both."""
    for name in ("frames", "trajectories", "quarantine"):
        assert_frame_equal(getattr(dataset, name).lazy().collect(), getattr(whole, name).lazy().collect())
    for name in protocol.splits:
        for role in ("database", "query"):
            assert_frame_equal(*(opened.sequences(protocol, name, role) for opened in (dataset, whole)))
        assert_frame_equal(*(opened.protocol_pairs(protocol, name) for opened in (dataset, whole)))
        assert_frame_equal(*(opened.protocol_positives(protocol, name) for opened in (dataset, whole)))
        assert_frame_equal(*(opened.nearest(protocol, name) for opened in (dataset, whole)))
        assert dataset.answerable(protocol, name) == whole.answerable(protocol, name)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_window_and_pair_is_that_of_whole_tables(name: str, tmp_path: Path) -> None:
    protocol = variant(name)
    out = changed(tmp_path, protocol)
    dataset = seqdata.open(out)
    assert dataset.manifest.segments
    query, database = (dataset.sequences(protocol, "test", role) for role in ("query", "database"))
    pairs = dataset.protocol_pairs(protocol, "test")
    assert pairs.height > 20
    assert_frame_equal(pairs, dataset.positives(query, database, protocol.radius, unit=protocol.unit))
    compact(out)
    whole = seqdata.open(out)
    assert not whole.manifest.segments
    assert whole.manifest.version == dataset.manifest.version + 1
    assert_same_reading(dataset, whole, protocol)
    assert whole.manifest.counts == dataset.manifest.counts
    assert list(verify(out)) == []


@pytest.mark.parametrize("name", ["stride 1", "spacing"])
def test_compacted_tables_are_those_of_one_build(name: str, tmp_path: Path) -> None:
    # So large that each drive fills a shard: a build of all drives then has the shards of one that was appended to.
    protocol, large = variant(name), jpeg(1, 96, 128)
    build(request(write_street(tmp_path / "first", FIRST, image=large), tmp_path / "out", protocol))
    append(request(write_street(tmp_path / "second", SECOND, image=large), tmp_path / "out"))
    append(request(write_street(tmp_path / "third", THIRD, image=large), tmp_path / "out"))
    manifest = compact(tmp_path / "out")
    every = write_street(tmp_path / "all", FIRST, SECOND, THIRD, image=large)
    whole = build(request(every, tmp_path / "whole", protocol))
    tables = [{name: (info.hash, info.rows) for name, info in version.tables.items()} for version in (manifest, whole)]
    assert tables[0] == tables[1]
    assert {name for name in tables[0] if name[0] in "pn"}, "pairs and nearest distances are stored again"
    assert [shard.hash for shard in manifest.shards] == [shard.hash for shard in whole.shards]
    assert manifest.counts == whole.counts


def test_other_readers_see_one_dataset(out: Path, tmp_path: Path) -> None:
    dataset = seqdata.open(out)
    described = describe(dataset)
    assert described["faults"] == []
    figures = leakage_of(dataset)
    dumps = exported(dataset, tmp_path / "before")
    with dataset.stream(dataset.sequences(OWN, "test"), seed=3).batches(4) as batches:
        rows = [row for batch in batches for row in batch["row"].tolist()]
    compact(out)
    whole = seqdata.open(out)
    again = describe(whole)
    same = ("frames", "trajectories", "quarantined", "image_bytes", "shard_bytes", "groups", "protocol", "resampling")
    assert {name: described[name] for name in same} == {name: again[name] for name in same}
    assert_frame_equal(figures, leakage_of(whole))
    assert dumps == exported(whole, tmp_path / "after")
    windows = whole.sequences(length=3)
    np.testing.assert_array_equal(dataset.read(windows, [0, 40]), whole.read(windows, [0, 40]))
    assert [dataset.frame_key(row) for row in (0, 10, 50)] == [whole.frame_key(row) for row in (0, 10, 50)]
    assert sorted(rows) == list(range(whole.sequences(OWN, "test").height))
    assert withdrawn(dataset) == withdrawn(whole) == sorted([*GONE[0], *GONE[1]])
    assert seqdata.open(out, version=5).frames.collect().equals(whole.frames.collect())


def leakage_of(dataset: seqdata.Dataset) -> pl.DataFrame:
    splits = {"train": {"database": ["a-map"], "query": ["b-query"]}, "test": {"database": ["c-map"], "query": []}}
    protocol = Protocol.model_validate({**OWN.model_dump(), "splits": splits})
    return leakage(dataset.sequencer, protocol)


def exported(dataset: seqdata.Dataset, place: Path) -> dict[str, bytes]:
    export(dataset, dataset.sequences(OWN, "test", "query"), place)
    return {path.name: path.read_bytes() for path in place.rglob("*.tar")}


def test_a_change_writes_what_it_adds(out: Path, files_of: Files) -> None:
    before = files_of(out)
    withdraw(out, ["a-map-020"], "asked to")
    after = files_of(out)
    new = {name: len(data) for name, data in after.items() if name not in before}
    tables = {"changes.parquet", "numbering.parquet", "quarantine.parquet", "trajectories.parquet"}
    assert set(new) == {"versions/000005.json", *(f"versions/000006/{name}" for name in tables)}
    assert sum(new[name] for name in new if name.endswith(".parquet")) < 8_000
    assert [name for name in before if after[name] != before[name]] == ["manifest.json", "manifest.sha256"]


def test_a_number_is_given_to_one_window_only(tmp_path: Path) -> None:
    """Windows that go at the end leave numbers that no later window gets: their pairs would come back with it."""
    build(request(write_street(tmp_path / "first", FIRST), tmp_path / "out"))
    withdraw(tmp_path / "out", [f"b-query-{number:03d}" for number in range(20, 26)], "the last windows")
    append(request(write_street(tmp_path / "second", SECOND), tmp_path / "out"))
    dataset = seqdata.open(tmp_path / "out")
    compact(tmp_path / "out")
    assert_same_reading(dataset, seqdata.open(tmp_path / "out"))


def test_a_drive_that_was_withdrawn_whole_may_come_again_with_other_frames(tmp_path: Path) -> None:
    build(request(write_street(tmp_path / "first", {"a-map": 9, "b-query": 12, "c-query": 6}), tmp_path / "out"))
    withdraw(tmp_path / "out", [f"b-query-{number:03d}" for number in range(12)], "all of it")
    raw = write_street(tmp_path / "again", {"b-query": 20})
    append(request(raw, tmp_path / "out"))
    dataset = seqdata.open(tmp_path / "out")
    assert dataset.trajectories["trajectory"].to_list() == ["a-map", "c-query", "b-query"]
    assert dataset.trajectories.select("first", "frames").rows() == [(0, 9), (9, 6), (15, 8)]
    compact(tmp_path / "out")
    assert_same_reading(dataset, seqdata.open(tmp_path / "out"))


def test_roles_that_one_side_lacked_are_paired_once_it_is_there(tmp_path: Path) -> None:
    build(request(write_street(tmp_path / "first", {"a-map": 20}), tmp_path / "out"))
    append(request(write_street(tmp_path / "second", {"b-query": 12}), tmp_path / "out"))
    dataset = seqdata.open(tmp_path / "out")
    assert dataset.protocol_pairs(OWN, "test").height > 20
    assert dataset.manifest.parts(f"positives-{OWN.hash}-test.parquet")
    compact(tmp_path / "out")
    assert_same_reading(dataset, seqdata.open(tmp_path / "out"))


@pytest.mark.parametrize("name", ["dataset-v1", "dataset-v2"])
def test_datasets_of_older_schemas_grow_by_segments(name: str, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / name, tmp_path / "out")
    before = seqdata.open(tmp_path / "out")
    key = before.frame_key(3)
    rows = before.frames.collect().filter(pl.col("key") != key)
    manifest = withdraw(tmp_path / "out", [key], "asked to")
    assert (manifest.schema_version, bool(manifest.segments)) == (3, True)
    dataset = seqdata.open(tmp_path / "out")
    assert_frame_equal(dataset.frames.collect(), rows)
    assert seqdata.open(tmp_path / "out", version=manifest.version - 1).id == before.id
    compact(tmp_path / "out")
    assert_same_reading(dataset, seqdata.open(tmp_path / "out"))


def test_plain_readers_can_put_the_segments_together(out: Path) -> None:
    """As docs/datasets.md says."""
    manifest = json.loads((out / "manifest.json").read_text())

    def parts(name: str) -> list[str]:
        first = [manifest["tables"][name]] if name in manifest["tables"] else []
        return [str(out / part["path"]) for part in [*first, *manifest["segments"].get(name, [])]]

    frames = pl.concat(pl.read_parquet(path) for path in parts("frames.parquet")).with_row_index("frame")
    changes = pl.concat(pl.read_parquet(path) for path in parts("changes.parquet")).unique("frame", keep="last")
    joined = frames.join(changes, on="frame", how="left", maintain_order="left", suffix="_new")
    left = joined.filter(~pl.col("withdrawn").fill_null(value=False))
    plain = left.with_columns(pl.coalesce("resampled_new", "resampled").alias("resampled"))
    dataset = seqdata.open(out)
    assert_frame_equal(plain.select(dataset.frames.collect_schema().names()), dataset.frames.collect())


LIES: dict[str, tuple[str, Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "a frame beyond": ("changes", lambda t: t.with_columns(pl.lit(10**6, pl.Int64).alias("frame")), "beyond the 91"),
    "a frame twice": ("changes", lambda t: t.with_columns(pl.lit(3, pl.Int64).alias("frame")), "manifest counts 78"),
    "a window beyond": ("numbering", lambda t: t.with_columns(pl.col("stop") + 10**9), "windows"),
    "a window twice": ("numbering", lambda t: t.with_columns(pl.lit(0, pl.Int64).alias("start")), "numbering"),
    "windows left out": ("numbering", lambda t: t.filter(pl.col("start") != 0), "numbering lists"),
    "a huge number": ("numbering", lambda t: t.with_columns(pl.lit(1 << 60).alias("stop")), "numbering"),
    "a pair beyond": ("positives", lambda t: t.with_columns(pl.lit(9999, pl.Int32).alias("query")), "beyond"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_segment_is_named(lie: str, out: Path) -> None:
    table, change, words = LIES[lie]
    text = json.loads((out / "manifest.json").read_text())
    name = next(name for name in text["segments"] if name.startswith(table))
    entry = text["segments"][name][-1]
    made = change(pl.read_parquet(out / entry["path"]))
    made.write_parquet(out / entry["path"])
    entry.update(measured(out / entry["path"], made.height))
    (out / "manifest.json").write_text(json.dumps(text))
    (out / "manifest.sha256").unlink()
    dataset = seqdata.open(out)
    with pytest.raises(ContractError, match=words):
        dataset.frames.collect()
        dataset.protocol_pairs(OWN, "test")


def measured(path: Path, rows: int) -> dict[str, object]:
    return {"bytes": path.stat().st_size, "hash": xxh3_file(path), "rows": rows}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("version", [2, 3, 5, 6])
def test_the_files_of_each_change_are_repaired(version: int, out: Path, tmp_path: Path, files_of: Files) -> None:
    """Version 2 and 5 were appended, 3 withdrawn, 6 compacts."""
    compact(out)
    whole = files_of(out)
    raw = {2: "second", 5: "third"}.get(version, "none")
    dump = write_street(tmp_path / raw, *((FIRST, SECOND) if version == 2 else (SECOND, THIRD)))
    names = [name for name in whole if name.startswith(f"versions/{version:06d}/")]
    # Which frames were withdrawn stands in the quarantine of the withdrawal alone.
    damaged = [name for name in names if version != 3 or "quarantine" not in name]
    assert len(damaged) > 2
    for name in damaged:
        flip(out / name)
    assert {fault.file for fault in verify(out)} == set(damaged)
    assert repair(out, dump) == sorted(damaged)
    assert files_of(out) == whole


PROGRAM = """
from seqdata.dataset.compact import compact
from seqdata.dataset.versions import withdraw

if sys.argv[1] == "withdraw":
    withdraw(sys.argv[2], ["a-map-020", "a-map-021"], "x")
else:
    compact(sys.argv[2])
"""


@pytest.mark.parametrize(
    ("verb", "module", "function", "call"),
    [
        ("withdraw", "dataset.versions", "_write_changes", 1),
        ("withdraw", "build.segments", "to_table", 1),
        ("withdraw", "build.finish", "checksums", 1),
        ("compact", "build.tables", "parquet_writer", 2),
        ("compact", "build.tables", "planned_tables", 1),
        ("compact", "build.finish", "checksums", 1),
    ],
)
def test_a_killed_change_goes_on_to_the_same_bytes(
    verb: str, module: str, function: str, call: int, out: Path, tmp_path: Path, files_of: Files
) -> None:
    shutil.copytree(out, tmp_path / "killed")
    command = [sys.executable, "-c", killed_at(module, function, call, PROGRAM), verb, str(tmp_path / "killed")]
    ended = subprocess.run(command, capture_output=True, check=False)
    assert ended.returncode == -9, ended.stderr.decode()
    still = seqdata.open(tmp_path / "killed")
    assert still.manifest.version == 5
    assert_same_reading(still, seqdata.open(out))
    for place in (tmp_path / "killed", out):
        if verb == "withdraw":
            withdraw(place, ["a-map-020", "a-map-021"], "x")
        else:
            compact(place)
    assert files_of(tmp_path / "killed") == files_of(out)
    assert compact(out).version == compact(out).version, "whole tables are left as they are"


def test_a_first_build_writes_whole_tables(dataset: seqdata.Dataset) -> None:
    manifest: DatasetManifest = read_manifest(dataset.path)
    assert (manifest.schema_version, manifest.segments) == (3, {})
    content = json.loads((dataset.path / "manifest.json").read_text())
    assert manifest.id == sha256_json(content)
    assert pl.read_parquet(dataset.path / "frames.parquet").height == manifest.counts.frames
