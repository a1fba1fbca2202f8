"""Versions of an index: the fixture of each schema version, list, diff, verify, tags, rollback, gc, readers beside."""

import json
import resource
import shutil
import subprocess
import sys
import textwrap
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import indexer
from indexer.localizer.localizer import Localizer
from indexer.localizer.pack import read_pack, read_pack_manifest
from indexer.versions.checks import check_version
from indexer.versions.folders import BUILDING, REMOVED, list_versions, read_latest, read_tags
from indexer.versions.listing import differences, entries, flatten
from indexer.versions.locks import hold
from indexer.versions.manifest import RSS_UNIT, measure, read_manifest, read_measured
from indexer.versions.tags import collect, remove_tag, rollback, set_tag
from seqdata.errors import ContractError, InputError, SeqdataError
from tests.support.indexes import make_places

FIXTURE = Path(__file__).parents[2] / "fixtures" / "index-v1" / "town"
ROOT = Path(__file__).parents[3]


def build(out: Path, name: str = "a", rows: int = 30, **options: object) -> Path:
    x = np.random.default_rng(len(name) + rows).normal(size=(rows, 8)).astype(np.float32)
    return indexer.build(
        out, blocks=iter([x]), places=make_places(rows), transform=None, inputs={"dataset": name}, **options
    )


KNOWN = {
    "a77ac70792b1da11": ([[0.0, 1.0647175, 1.196609], [0.0, 0.9382990, 1.0969517]], [[5, 25, 32], [21, 18, 13]], 24),
    "421c4319df99e547": ([[0.0, 2.7399297, 2.7399337], [0.0, 2.9000816, 3.0686944]], [[5, 17, 25], [21, 34, 13]], 8),
}


@pytest.mark.parametrize("identifier", KNOWN)
def test_schema_version_1_opens_for_ever(identifier: str) -> None:
    distances, rows, size = KNOWN[identifier]
    index = indexer.open(FIXTURE, version=identifier)
    found, nearest = index.search(np.load(FIXTURE.parent / "queries.npy"), 3)
    np.testing.assert_array_equal(nearest, rows)
    np.testing.assert_allclose(found, distances, atol=1e-5)
    assert (index.id, len(index), index.size, index.manifest.size) == (identifier, 40, 24, size)
    assert index.sequences["trajectory"].unique().sort().to_list() == ["drive-000", "drive-001"]
    assert check_version(index.path).schema_version == 1
    assert read_measured(index.path).created == index.manifest.created
    assert indexer.version_id(index.manifest.inputs, normalise=size == 24) == identifier


SECOND = Path(__file__).parents[2] / "fixtures" / "index-v2" / "town"
KNOWN_SECOND = {
    "ff51d21e4453c310": (
        [[0.0198836, 1.0532118, 1.2327340], [0.0193836, 0.8527801, 0.8955197]],
        [3, 141, 95, 140, 81, 31],
    ),
    "047bc9fab80b395c": (
        [[0.0106326, 0.6680005, 0.9838127], [0.0083298, 0.4372954, 0.4740290]],
        [3, 95, 149, 140, 153, 148],
    ),
}


@pytest.mark.parametrize("identifier", KNOWN_SECOND)
def test_schema_version_2_opens_for_ever(identifier: str) -> None:
    """Float32 vectors behind a PCA, and inverted lists with their measured curve; the run's name is in the id."""
    distances, rows = KNOWN_SECOND[identifier]
    index = indexer.open(SECOND, version=identifier)
    found, nearest = index.search(np.load(SECOND.parent / "queries.npy"), 3)
    np.testing.assert_array_equal(nearest.ravel(), rows)
    np.testing.assert_allclose(found, distances, atol=1e-5)
    manifest, measured = check_version(index.path), read_measured(index.path)
    assert (manifest.schema_version, manifest.inputs["run"], manifest.origin) == (2, "first", {})
    assert indexer.version_id(manifest.inputs, normalise=manifest.normalised, settings=manifest.settings) == identifier
    lists = manifest.storage == "ivf"
    assert (manifest.factory, manifest.search) == (("IVF4,Flat", {"nprobe": 4}) if lists else ("Flat", {}))
    assert (measured.queries, measured.recall) == ((160, {10: 1.0}) if lists else (0, None))
    assert [point["search"] for point in measured.curve or []] == [{"nprobe": n} for n in (1, 2, 4) if lists]
    assert measured.queries_of is None, "was not recorded then"


def test_the_second_fixtures_tag_and_latest() -> None:
    assert read_tags(SECOND) == {"lists": "047bc9fab80b395c"}
    assert read_latest(SECOND) == indexer.open(SECOND).id == "ff51d21e4453c310"
    assert [entry.fault for entry in entries(SECOND)] == [None, None]


def test_a_pack_of_schema_version_1_is_refused_with_what_to_do() -> None:
    """Its PyTorch programs can run code of their maker: the one stored format that is no longer opened."""
    for read in (read_pack_manifest, read_pack, Localizer):
        with pytest.raises(ContractError, match=r"schema 1.*pack again with seqdata pack"):
            read(Path(__file__).parents[2] / "fixtures" / "pack-v1")


def test_memory_of_ended_workers_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The describing processes of a pool are where most of it is used."""
    used = {resource.RUSAGE_SELF: 3, resource.RUSAGE_CHILDREN: 7}
    monkeypatch.setattr(resource, "getrusage", lambda who: type("Usage", (), {"ru_maxrss": used[who]}))
    assert measure({}).peak_memory == 7 * RSS_UNIT
    used[resource.RUSAGE_SELF] = 9
    assert measure({}).peak_memory == 9 * RSS_UNIT


def test_where_a_version_came_from_is_no_part_of_it(tmp_path: Path) -> None:
    one = build(tmp_path / "a" / "town", origin={"run": "one"})
    other = build(tmp_path / "b" / "town", origin={"run": "other"})
    assert one.name == other.name
    assert (read_manifest(one).origin, read_manifest(other).origin) == ({"run": "one"}, {"run": "other"})
    assert check_version(other).id == one.name
    assert differences(read_manifest(one), read_manifest(other)) == {
        "inputs": {}, "recorded": {"origin.run": ("one", "other")},
    }  # fmt: skip


def test_the_fixtures_latest_and_no_op(tmp_path: Path) -> None:
    """Building the fixture's inputs again finds it: ids did not change."""
    shutil.copytree(FIXTURE, tmp_path / "town")
    again = indexer.find_version(tmp_path / "town", {"dataset": "fixture", "pca": {"dimensions": 8}})
    assert again is not None
    assert again.name == indexer.open(tmp_path / "town").id == "421c4319df99e547"


def test_list_tells_what_is_there(tmp_path: Path) -> None:
    out = tmp_path / "town"
    first, second = build(out), build(out, "b", 20)
    set_tag(out, "paper", first.name[:8])
    listed = entries(out)
    assert [entry.id for entry in listed] == [first.name, second.name], "oldest first"
    assert [(entry.latest, entry.tags, entry.rows, entry.size, entry.storage) for entry in listed] == [
        (False, ("paper",), 30, 8, "flat"),
        (True, (), 20, 8, "flat"),
    ]
    assert not any(entry.in_use for entry in listed)
    held = indexer.open(out)
    assert [entry.in_use for entry in entries(out)] == [False, True]
    del held
    assert not any(entry.in_use for entry in entries(out))
    (first / "manifest.json").write_text("{}")
    damaged = next(entry for entry in entries(out) if entry.id == first.name)
    assert damaged.fault is not None
    assert "manifest.json" in damaged.fault


def test_differences_name_the_inputs(tmp_path: Path) -> None:
    first, second = build(tmp_path / "town"), build(tmp_path / "town", "b", 20, normalise=True)
    found = differences(read_manifest(first), read_manifest(second))
    assert found["inputs"] == {"inputs.dataset": ("a", "b"), "normalised": (False, True)}
    assert found["recorded"] == {"rows": (30, 20)}
    assert differences(read_manifest(first), read_manifest(first)) == {"inputs": {}, "recorded": {}}
    assert flatten({"a": {"b": [1, 2], "c": [{"d": None}]}, "e": {}}) == {"a.b": [1, 2], "a.c.0.d": None, "e": {}}


def test_the_same_build_has_the_same_bytes(tmp_path: Path) -> None:
    """Everything but the measured facts is a function of the inputs."""
    one, other = build(tmp_path / "a" / "town"), build(tmp_path / "b" / "town")
    assert one.name == other.name
    for name in ("manifest.json", "index.faiss", "ids.parquet"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    measured = read_measured(one)
    assert measured.peak_memory is not None
    assert measured.peak_memory > 10_000_000
    assert set(measured.seconds) == {"describe", "write", "build"}


def test_a_damaged_version_is_built_again(tmp_path: Path) -> None:
    folder = build(tmp_path / "town")
    whole = (folder / "index.faiss").read_bytes()
    (folder / "index.faiss").write_bytes(whole[:-4] + b"abcd")
    assert indexer.find_version(tmp_path / "town", {"dataset": "a"}) is None
    assert build(tmp_path / "town") == folder
    assert (folder / "index.faiss").read_bytes() == whole
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]
    (folder / "manifest.json").unlink()
    assert build(tmp_path / "town") == folder
    check_version(folder)


def test_verify_sees_inputs_that_are_not_those_of_the_id(tmp_path: Path) -> None:
    folder = build(tmp_path / "town")
    record = json.loads((folder / "manifest.json").read_text())
    record["inputs"]["dataset"] = "b"
    (folder / "manifest.json").write_text(json.dumps(record))
    (folder / "manifest.sha256").unlink(missing_ok=True)
    with pytest.raises(ContractError, match=r"manifest\.json: says it is version"):
        check_version(folder)


def test_tags(tmp_path: Path) -> None:
    out = tmp_path / "town"
    first, second = build(out), build(out, "b")
    assert set_tag(out, "paper-1.0") == second.name
    assert indexer.open(out, version="paper-1.0").id == second.name
    assert set_tag(out, "paper-1.0", first.name) == first.name
    assert read_tags(out) == {"paper-1.0": first.name}
    assert build(out) == first, "an index with tags is still an index's folder"
    for name in ("latest", "cafe", "a/b", "../up", ".hidden", "", "x" * 65):
        with pytest.raises(InputError, match="tag"):
            set_tag(out, name)
    with pytest.raises(InputError, match="no version 'nothing'"):
        set_tag(out, "good", "nothing")
    with pytest.raises(InputError, match=r"no tag 'other'; it has paper-1\.0"):
        remove_tag(out, "other")
    assert remove_tag(out, "paper-1.0") == first.name
    assert read_tags(out) == {}


def test_rollback(tmp_path: Path) -> None:
    out = tmp_path / "town"
    made = []
    for name in ("a", "bb", "ccc"):
        made.append(build(out, name).name)
        time.sleep(0.002)
    assert rollback(out) == (made[2], made[1])
    assert rollback(out) == (made[1], made[0])
    with pytest.raises(InputError, match="no version is older"):
        rollback(out)
    assert rollback(out, made[2][:6]) == (made[0], made[2])
    assert indexer.open(out).id == made[2]
    with pytest.raises(InputError, match="no version 'zz'"):
        rollback(out, "zz")


def test_gc_keeps_latest_tagged_and_open(tmp_path: Path) -> None:
    out = tmp_path / "town"
    names = [build(out, name).name for name in ("a", "bb", "ccc", "dddd")]
    set_tag(out, "keep", names[0])
    reader = indexer.open(out, version=names[1])
    (out / "versions" / f"{REMOVED}-left").mkdir()
    told = collect(out, dry_run=True)
    assert (told.removed, told.in_use) == ((names[2],), (names[1],))
    assert told.bytes > 0
    assert list_versions(out) == sorted(names)
    assert collect(out) == told
    assert sorted(path.name for path in (out / "versions").iterdir()) == sorted([names[0], names[1], names[3]])
    assert len(reader.sequences) == 30, "what is read late is there still"
    del reader
    assert collect(out).removed == (names[1],)
    (out / "latest").unlink()
    with pytest.raises(InputError, match="names no version"):
        collect(out)


def test_a_version_that_vanished_is_no_lease(tmp_path: Path) -> None:
    assert hold(tmp_path) is None
    lease = hold(build(tmp_path / "town"))
    assert lease is not None
    lease.close()


READER = """
    import sys, time, numpy, indexer
    index = indexer.open(sys.argv[1], version=sys.argv[2])
    print("open", flush=True)
    sys.stdin.readline()
    print(len(index.search(numpy.zeros(8, "f4"), 3)[1][0]), index.sequences.height, flush=True)
"""


def test_a_reader_in_another_process_is_not_disturbed(tmp_path: Path) -> None:
    out = tmp_path / "town"
    first, _ = build(out), build(out, "b")
    command = [sys.executable, "-c", textwrap.dedent(READER), str(out), first.name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        assert collect(out).in_use == (first.name,)
        assert first.is_dir()
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "3 30\n"
    assert collect(out).removed == (first.name,)


def _publish(arguments: tuple[str, str]) -> str:
    return build(Path(arguments[0]), arguments[1]).name


def test_publish_read_and_collect_at_once(tmp_path: Path) -> None:
    """Two processes publish different versions while this one reads the latest and collects: every read is whole."""
    out = tmp_path / "town"
    build(out)
    names = ["bb", "ccc", "dddd", "eeeee"]
    reads = 0
    with get_context("spawn").Pool(2) as pool:
        waiting = pool.map_async(_publish, [(str(out), name) for name in names])
        while not waiting.ready():
            index = indexer.open(out)
            assert index.search(np.zeros(8, np.float32), 1)[1].shape == (1, 1)
            assert len(index.sequences) == 30
            collect(out)
            reads += 1
        published = waiting.get()
    assert reads > 3
    assert read_latest(out) in published
    assert check_version(out / "versions" / str(read_latest(out)))
    assert not [path for path in (out / "versions").iterdir() if path.name.startswith((BUILDING, REMOVED))]


TEXT = (FIXTURE / "versions" / "421c4319df99e547" / "manifest.json").read_bytes()
EDITS = st.lists(st.tuples(st.integers(0, len(TEXT) - 1), st.binary(max_size=4)), min_size=1, max_size=3)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS, keep=st.integers(0, len(TEXT)))
def test_any_manifest_is_read_or_named(tmp_path: Path, edits: list[tuple[int, bytes]], keep: int) -> None:
    data = bytearray(TEXT)
    for place, new in edits:
        data[place : place + len(new)] = new
    folder = tmp_path / "421c4319df99e547"
    if not folder.exists():
        shutil.copytree(FIXTURE / "versions" / folder.name, folder)
    for each in (bytes(data), TEXT[:keep], b"", b"[]", b'{"kind": "dataset"}'):
        (folder / "manifest.json").write_bytes(each)
        try:
            check_version(folder)
        except SeqdataError as error:
            assert str(folder) in str(error)
        else:
            assert json.loads(each)["inputs"] == json.loads(TEXT)["inputs"]


FACTS = st.dictionaries(st.sampled_from(["created", "recall", "seconds"]), st.integers())
FOREIGN = st.one_of(st.binary(max_size=40), FACTS.map(lambda facts: json.dumps(facts).encode()))


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=FOREIGN)
def test_foreign_measured_facts_are_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "measured.json").write_bytes(data)
    with pytest.raises(ContractError, match=r"measured\.json"):
        read_measured(tmp_path)


def _read_latest(out: str) -> int:
    """Open and read whatever is latest, again and again, while others publish and collect."""
    for _ in range(60):
        index = indexer.open(out)
        assert len(index.sequences) == len(index.search(np.zeros(8, np.float32), 99)[1][0]) == 30
    return 60


def test_readers_never_meet_a_half_removed_version(tmp_path: Path) -> None:
    out = tmp_path / "town"
    build(out)
    with get_context("spawn").Pool(2) as pool:
        waiting = pool.map_async(_read_latest, [str(out)] * 2, chunksize=1)
        for number in range(1000):
            if waiting.ready():
                break
            build(out, "x" * (1 + number % 5))
            collect(out)
        assert waiting.get(60) == [60, 60]
