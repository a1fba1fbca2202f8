"""gc of datasets: what no version that stays names goes, and nothing else; killed in the middle it goes on."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

import seqdata
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings
from seqdata.dataset.collect import collect
from seqdata.dataset.compact import compact
from seqdata.dataset.repair import repair
from seqdata.dataset.verify import verify
from seqdata.dataset.versions import append, withdraw
from seqdata.errors import InputError
from tests.conftest import write_drives
from tests.support.killing import killed_at

Files = Callable[[Path], dict[str, bytes]]


def request(raw: Path, out: str | Path) -> BuildRequest:
    settings = BuildSettings(shard_bytes=1 << 16)
    return BuildRequest("folder", raw, out, settings=settings, protocol=protocols.load("own"))


def change(raw: Path, out: str | Path) -> None:
    """Build, append, withdraw, compact: four versions."""
    build(request(write_drives(raw / "first", {"map": 20, "query": 20}), out))
    append(request(write_drives(raw / "second", {"lap": 12}), out))
    withdraw(out, ["map-003"], "x")
    compact(out)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    change(tmp_path, tmp_path / "out")
    return tmp_path / "out"


def test_only_the_latest_version_stays(out: Path, files_of: Files) -> None:
    before, dataset = files_of(out), seqdata.open(out)
    frames, pairs = dataset.frames.collect(), dataset.protocol_pairs(protocols.load("own"), "test")
    planned = collect(out, dry_run=True)
    assert files_of(out) == before
    removal = collect(out)
    assert removal == planned
    assert removal.versions == (1, 2, 3)
    after = files_of(out)
    assert set(before) - set(after) == set(removal.files)
    assert sum(len(before[name]) for name in removal.files) == removal.bytes
    assert all(name.startswith(("shards/", "versions/000004/", "manifest.")) for name in after)
    assert {name: before[name] for name in after} == after
    again = seqdata.open(out)
    assert again.id == dataset.id
    assert again.frames.collect().equals(frames)
    assert again.protocol_pairs(protocols.load("own"), "test").equals(pairs)
    assert list(verify(out)) == []
    with pytest.raises(InputError, match=r"no version 2; there are 4$"):
        seqdata.open(out, version=2)
    assert collect(out).files == ()


def test_versions_that_are_named_stay_with_all_their_files(out: Path) -> None:
    old = seqdata.open(out, version=3)
    frames = old.frames.collect()
    old.add_tables(protocols.load("own").model_copy(update={"length": 3}))
    removal = collect(out, keep=[3])
    assert removal.versions == (1, 2)
    assert removal.files == ("versions/000001.json", "versions/000002.json", *removal.files[2:])
    assert seqdata.open(out, version=3).frames.collect().equals(frames)
    assert list(verify(out)) == []
    with pytest.raises(InputError, match="no version 2; there are 3, 4"):
        collect(out, keep=[2])
    withdraw(out, ["map-004"], "x")
    assert [seqdata.open(out, version=number).manifest.counts.frames for number in (3, 4, 5)] == [51, 51, 50]


def test_what_killed_commands_left_goes_and_what_is_not_ours_stays(out: Path, files_of: Files, tmp_path: Path) -> None:
    (out / "notes.txt").write_text("mine")
    (out / "versions" / "000004" / ".frames.parquet.abcd1234.tmp").write_bytes(b"half")
    whole = files_of(out)
    program = """
from seqdata.build.builder import BuildRequest
from seqdata.dataset.versions import append

append(BuildRequest("folder", Path(sys.argv[1]), sys.argv[2]))
"""
    raw = write_drives(tmp_path / "third", {"side": 9})
    command = [sys.executable, "-c", killed_at("build.segments", "to_table", 1, program), str(raw), str(out)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -9
    left = set(files_of(out)) - set(whole)
    assert {".plan.json", "shards/part-000002.tar", "versions/000005/frames.parquet"} <= left
    collect(out, keep=[1, 2, 3])
    assert files_of(out) == {name: data for name, data in whole.items() if not name.endswith(".tmp")}


KILLED = """
import os, signal, sys
from seqdata.dataset.collect import collect
from seqdata.storage.store import Store

whole, calls = Store.remove, 0

def remove(store, name):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    whole(store, name)

Store.remove = remove
collect(sys.argv[1])
"""


def test_a_killed_collection_goes_on(out: Path, files_of: Files) -> None:
    for call in ("2", "9"):
        command = [sys.executable, "-c", KILLED, str(out), call]
        assert subprocess.run(command, capture_output=True, check=False).returncode == -9
        assert seqdata.open(out).manifest.version == 4
        assert list(verify(out)) == []
    collect(out)
    assert all(name.startswith(("shards/", "versions/000004/", "manifest.")) for name in files_of(out))


def test_an_object_store_is_collected_too(out: Path, files_of: Files, tmp_path: Path) -> None:
    url = "memory://collected/out"
    (tmp_path / "again").mkdir()
    change(tmp_path / "again", url)
    assert collect(url) == collect(out)
    filesystem, base = fsspec.core.url_to_fs(url)
    there = {name.removeprefix(f"{base}/"): filesystem.cat_file(name) for name in filesystem.find(base)}
    assert there == files_of(out)
    assert seqdata.open(url).frames.collect().equals(seqdata.open(out).frames.collect())


def test_the_first_dump_repairs_its_shards_after_a_collection(
    out: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, files_of: Files
) -> None:
    collect(out)
    whole = files_of(out)
    (out / "shards" / "part-000000.tar").write_bytes(b"")
    assert repair(out, tmp_path / "first") == ["shards/part-000000.tar"]
    assert files_of(out) == whole
    (out / "shards" / "part-000001.tar").write_bytes(b"")
    assert repair(out, tmp_path / "second") == []
    assert "part-000001.tar cannot be made again: seqdata gc removed" in caplog.text


def test_tables_of_a_first_version_that_was_removed_are_repaired(tmp_path: Path, files_of: Files) -> None:
    raw, out = write_drives(tmp_path / "raw", {"map": 20, "query": 20}), tmp_path / "out"
    build(request(raw, out))
    withdraw(out, ["map-003"], "x")
    assert collect(out).versions == (1,)
    whole = files_of(out)
    names = ["frames.parquet", "shards/part-000000.parquet", "trajectories.parquet"]
    for name in names:
        (out / name).write_bytes(b"")
    assert repair(out, raw) == names
    assert files_of(out) == whole
