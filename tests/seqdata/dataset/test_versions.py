"""Versions: appending and withdrawing share the shards, keep old versions readable, and survive a kill."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import polars as pl
import pytest

import seqdata
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings, read_manifest
from seqdata.dataset.verify import verify
from seqdata.dataset.versions import append, withdraw, withdrawn
from seqdata.errors import ContractError, InputError, OutputError
from tests.conftest import jpeg, write_drives
from tests.support.killing import killed_at

Files = Callable[[Path], dict[str, bytes]]
SMALL = BuildSettings(shard_bytes=1 << 16)
FIRST = {"map": 40, "query": 30}
MORE = {**FIRST, "lap": 25, "query-b": 20}


def request(raw: Path, out: str | Path, **changes: object) -> BuildRequest:
    values = {"settings": SMALL, "protocol": protocols.load("own"), **changes}
    return BuildRequest("folder", raw, out, **values)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A dump that grew: MORE drives; the first build saw FIRST."""
    return write_drives(tmp_path / "more", MORE)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A dataset of the dump as it was first."""
    build(request(write_drives(tmp_path / "first", FIRST), tmp_path / "out"))
    return tmp_path / "out"


def windows(opened: seqdata.Dataset) -> set[tuple[str, ...]]:
    """Keys of all windows of the protocol."""
    table = opened.sequences("own", "test")
    return {tuple(keys) for keys in opened.frame_columns("key")["key"].to_numpy()[opened.frame_rows(table)].tolist()}


def test_appending_makes_a_version_that_shares_the_shards(
    raw: Path, out: Path, tmp_path: Path, files_of: Files
) -> None:
    before, old = files_of(out), seqdata.open(out)
    old_frames, old_windows = old.frames.collect(), windows(old)
    appended = append(request(raw, out, workers=2))
    assert (appended.listed, appended.skipped) == (45, 70)
    after = files_of(out)
    changed = {name for name, data in before.items() if after[name] != data}
    assert changed == {"manifest.json", "manifest.sha256"}, "shards and tables of the old version stay what they were"
    assert after["versions/000001.json"] == before["manifest.json"]
    assert not [name for name in after if name.startswith(".") or name.endswith(".tmp")]
    opened = seqdata.open(out)
    assert (opened.manifest.version, opened.manifest.parent) == (2, old.id)
    assert opened.frames.collect()[:70].equals(old_frames), "old frame rows stay what they are"
    build(request(raw, tmp_path / "whole"))
    whole = seqdata.open(tmp_path / "whole")
    assert windows(opened) == windows(whole) > old_windows
    same = ["key", "trajectory", "position", "track_m", "resampled", "heading", "hash"]
    assert opened.frames.select(same).sort("key").collect().equals(whole.frames.select(same).sort("key").collect())
    drives = [each.trajectories.sort("trajectory").drop("first") for each in (opened, whole)]
    assert drives[0].equals(drives[1])
    assert opened.trajectories["first"].to_list() == [0, 40, 70, 95]
    rows = opened.sequences(length=3, role="query")
    assert opened.read(rows, [0, rows.height - 1]).shape[:3] == (2, 3, 3)
    assert not list(verify(out))


def test_an_older_version_opens(raw: Path, out: Path) -> None:
    first = seqdata.open(out)
    known = first.id, windows(first), first.trajectories
    append(request(raw, out))
    withdraw(out, ["lap-003"], "a face")
    again = seqdata.open(out, version=1)
    assert (again.id, windows(again)) == known[:2]
    assert again.trajectories.equals(known[2])
    assert [read_manifest(out, number).version for number in (1, 2, 3)] == [1, 2, 3]
    assert read_manifest(out, 3) == read_manifest(out)
    chain = [read_manifest(out, number) for number in (1, 2, 3)]
    assert [each.parent for each in chain] == [None, chain[0].id, chain[1].id]
    for absent in (0, 4, -1):
        with pytest.raises(InputError, match="there are 1 to 3"):
            seqdata.open(out, version=absent)


def test_nothing_new_makes_no_version(raw: Path, out: Path, files_of: Files) -> None:
    append(request(raw, out))
    before = files_of(out)
    again = append(request(raw, out))
    assert (again.listed, again.skipped, again.manifest.version) == (0, 115, 2)
    assert files_of(out) == before
    assert append(request(raw.parent / "first", out)).skipped == 70, "the older dump holds nothing new either"


def test_sources_credit_and_settings_travel(raw: Path, out: Path) -> None:
    manifest = append(request(raw, out, settings=BuildSettings(halo=3), protocol=None)).manifest
    assert manifest.settings == SMALL, "the dataset's own settings hold"
    assert manifest.protocol == protocols.load("own")
    assert [source.kind for source in manifest.sources] == ["folder", "folder"]
    assert all(source.attribution for source in manifest.sources)
    assert manifest.sources[0].fingerprint != manifest.sources[1].fingerprint
    assert {shard.source for shard in manifest.shards} == {0, 1}
    assert build(request(raw.parent / "first", out)) == manifest, "the first build's command finds its dataset"


@pytest.mark.parametrize("change", ["grown", "other frame", "other trajectory", "other kind", "other zone"])
def test_what_cannot_be_appended_is_named(change: str, out: Path, tmp_path: Path, files_of: Files) -> None:
    before = files_of(out)
    words = {
        "grown": "trajectory 'map', which the dataset has already",
        "other frame": "'map-003.jpg' has the key 'map-003', which names another frame",
        "other trajectory": "of trajectory 'map'",
        "other kind": "a nordland dump cannot be appended",
        "other zone": "in zone 33N, in the dataset it lies in 32N",
    }
    drives = {"map": 45} if change == "grown" else {"fresh": 9} if change == "other zone" else FIRST
    other = write_drives(tmp_path / "other", drives)
    table = other / "positions.csv"
    text = table.read_text()
    if change == "other frame":
        table.write_text(text.replace("map-003.jpg,500009.0", "map-003.jpg,500010.5"))
    elif change == "other trajectory":
        table.write_text(text.replace(",map,", ",mapped,"))
    elif change == "other zone":
        table.write_text(text.replace("32N", "33N"))
    kind = "nordland" if change == "other kind" else "folder"
    with pytest.raises(ContractError, match=words[change]):
        append(BuildRequest(kind, other, out))
    assert files_of(out) == before


def test_appending_needs_a_dataset(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dataset here"):
        append(request(raw, tmp_path / "none"))


def test_the_quarantine_of_an_append_is_added_once(raw: Path, tmp_path: Path) -> None:
    first = write_drives(tmp_path / "first", FIRST)
    for dump in (first, raw):
        (dump / "stray.jpg").write_bytes(b"no row")
        (dump / "map-004.jpg").write_bytes(b"")
    (raw / "lap-002.jpg").write_bytes(b"broken")
    build(request(first, tmp_path / "out"))
    manifest = append(request(raw, tmp_path / "out")).manifest
    assert manifest.counts.quarantined == {"no_row": 1, "empty_image": 1, "bad_image": 1}
    assert manifest.counts.frames == 113


def test_a_withdrawn_frame_is_in_no_window(out: Path, files_of: Files) -> None:
    before, whole = files_of(out), seqdata.open(out)
    every = windows(whole)
    withdraw(out, ["map-010", "query-000"], "asked by its owner")
    manifest = withdraw(out, ["map-010", "map-011"], "twice")
    assert manifest.version == 3
    opened = seqdata.open(out)
    gone = {"map-010", "map-011", "query-000"}
    assert windows(opened) == {keys for keys in every if not gone & set(keys)}
    assert withdrawn(opened) == sorted(gone)
    assert dict(opened.quarantine.select("key", "message").rows()) == {
        "map-010": "asked by its owner",
        "query-000": "asked by its owner",
        "map-011": "twice",
    }
    assert manifest.counts.quarantined == {"withdrawn": 3}
    assert manifest.counts.frames == opened.frames.collect().height == 67
    pairs = opened.protocol_pairs(protocols.load("own"), "test")
    query, database = (opened.sequences("own", "test", role) for role in ("query", "database"))
    fresh = opened.positives(query, database, 25.0)
    assert pairs.height > 100
    assert pairs.equals(fresh), "stored pairs are those of the windows that are left"
    tracks = opened.frames.filter(pl.col("trajectory") == "map").collect()
    assert tracks["position"].to_list() == [*range(10), *range(12, 40)]
    assert opened.trajectories["gaps"].to_list() == [1, 0]
    shards = {name: data for name, data in before.items() if name.startswith("shards/")}
    assert {name: files_of(out)[name] for name in shards} == shards
    assert not list(verify(out))


def test_flags_follow_from_the_frames_that_stay(tmp_path: Path) -> None:
    """Resampling never leaves a hole where another frame could stand: the flags are those of a build without it."""
    raw = write_drives(tmp_path / "raw", {"map": 30, "query": 20}, step=0.7)
    build(request(raw, tmp_path / "out"))
    withdraw(tmp_path / "out", ["map-006"], "x")
    (raw / "map-006.jpg").write_bytes(b"")
    build(request(raw, tmp_path / "bad"))
    found = [seqdata.open(tmp_path / name).frames.select("key", "resampled").collect() for name in ("out", "bad")]
    assert found[0].equals(found[1])
    assert found[0].filter(pl.col("key") == "map-007")["resampled"].item()


def test_withdrawing_what_is_not_there_is_named(out: Path, files_of: Files) -> None:
    before = files_of(out)
    with pytest.raises(ContractError, match=r"no frame has the key 'mop-1' \(and 1 more\)"):
        withdraw(out, ["map-001", "mop-1", "mop-2"], "x")
    keys = seqdata.open(out).frame_columns("key")["key"].to_list()
    with pytest.raises(InputError, match="all frames"):
        withdraw(out, keys, "x")
    assert withdraw(out, [], "x").version == 1
    assert files_of(out) == before


def test_a_withdrawn_frame_does_not_come_back(raw: Path, out: Path) -> None:
    withdraw(out, ["map-001"], "x")
    appended = append(request(raw, out))
    assert (appended.skipped, appended.manifest.counts.frames) == (70, 114)
    assert withdrawn(seqdata.open(out)) == ["map-001"]


def test_versions_on_an_object_store(raw: Path, out: Path, files_of: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(out.parent / "cache"))
    url = "memory://versions/out"
    build(request(raw.parent / "first", url))
    for place in (url, out):
        append(request(raw, place))
        withdraw(place, ["lap-001"], "x")
    filesystem, base = fsspec.core.url_to_fs(url)
    there = {name.removeprefix(f"{base}/"): filesystem.cat_file(name) for name in filesystem.find(base)}
    assert there == files_of(out)
    assert windows(seqdata.open(url)) == windows(seqdata.open(out))


PROGRAM = """
from seqdata.build.builder import BuildRequest
from seqdata.dataset.versions import append, withdraw

if sys.argv[1] == "append":
    append(BuildRequest("folder", Path(sys.argv[2]), sys.argv[3]))
else:
    withdraw(sys.argv[3], ["map-003"], "x")
"""


@pytest.mark.parametrize(
    ("verb", "module", "function", "call"),
    [
        ("append", "build.plan", "json_bytes", 1),
        ("append", "build.shards", "prepare", 20),
        ("append", "build.finish", "json_bytes", 1),
        ("append", "build.builder", "end", 1),
        ("withdraw", "build.finish", "json_bytes", 1),
    ],
)
def test_a_killed_change_goes_on_to_the_same_bytes(
    verb: str, module: str, function: str, call: int, raw: Path, out: Path, tmp_path: Path, files_of: Files
) -> None:
    shutil.copytree(out, tmp_path / "killed")
    script = killed_at(module, function, call, PROGRAM)
    command = [sys.executable, "-c", script, verb, str(raw), str(tmp_path / "killed")]
    ended = subprocess.run(command, capture_output=True, check=False)
    assert ended.returncode == -9, ended.stderr.decode()
    still = seqdata.open(tmp_path / "killed")
    assert still.manifest.version == (2 if function == "end" else 1)
    assert windows(still) >= windows(seqdata.open(out)), "the old version stays readable"
    for place in (tmp_path / "killed", out):
        if verb == "append":
            append(request(raw, place))
        else:
            withdraw(place, ["map-003"], "x")
    assert files_of(tmp_path / "killed") == files_of(out)


def test_another_append_takes_the_place_of_a_killed_one(raw: Path, out: Path, tmp_path: Path, files_of: Files) -> None:
    shutil.copytree(out, tmp_path / "killed")
    script = killed_at("build.segments", "to_table", 1, PROGRAM)
    command = [sys.executable, "-c", script, "append", str(raw), str(tmp_path / "killed")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -9
    other = write_drives(tmp_path / "other", {"side": 12})
    for place in (tmp_path / "killed", out):
        assert append(request(other, place)).listed == 12
    assert files_of(tmp_path / "killed") == files_of(out)


def test_a_full_disk_in_an_append_leaves_the_old_version(
    raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch, files_of: Files
) -> None:
    import errno

    import seqdata.build.tables as tables

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = windows(seqdata.open(out))
    with monkeypatch.context() as patched:
        patched.setattr(tables.Summary, "add", full)
        with pytest.raises(OutputError, match="no space left"):
            append(request(raw, out))
    assert windows(seqdata.open(out)) == before
    assert not [name for name in files_of(out) if name.endswith(".tmp")]
    append(request(raw, out))


def test_frames_of_one_name_in_two_dumps_are_not_mixed(out: Path, tmp_path: Path) -> None:
    """Cameras count from 1 on every drive: equal names in another dump are other frames."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "map-000.jpg").write_bytes(jpeg(7))
    (other / "positions.csv").write_text(
        "image,easting,northing,zone,drive,role\nmap-000.jpg,500900,5000000,32N,map,database\n"
    )
    with pytest.raises(ContractError, match="another frame"):
        append(request(other, out))
