"""Repair gives damaged files their bytes back, touches no other, and refuses a dump that is another."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import seqdata
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings
from seqdata.dataset import repair as module
from seqdata.dataset.repair import repair
from seqdata.dataset.verify import verify
from seqdata.errors import ContractError, InputError, OutputError
from seqdata.storage import parquet
from tests.conftest import jpeg, write_drives

FilesOf = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `raw` (a cut drive, a bad image, a positions file outside) and `dataset`."""
    folder = tmp_path_factory.mktemp("repair")
    raw = write_drives(folder / "raw", {"map-a": 100, "map-b": 10, "query": 30})
    (raw / "map-a-050.jpg").write_bytes(jpeg(50)[:-200])
    settings = BuildSettings(shard_bytes=1 << 16)
    build(BuildRequest("folder", raw, folder / "dataset", settings=settings, protocol=protocols.load("own")))
    return folder


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built / "dataset", tmp_path / "dataset")
    return tmp_path / "dataset"


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(bytes(data))


def test_only_the_damaged_shard_is_made_again(
    copy: Path, built: Path, files_of: FilesOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    tars = sorted((copy / "shards").glob("*.tar"))
    assert len(tars) > 2
    flip(tars[1])
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.*") if path != tars[1]}
    made: list[str] = []
    original = module.write_shard
    monkeypatch.setattr(
        module, "write_shard", lambda *given, **named: made.append(given[1].name) or original(*given, **named)
    )
    assert repair(copy, built / "raw") == [f"shards/{tars[1].name}"]
    assert made == [tars[1].name]
    assert files_of(copy) == files_of(built / "dataset")
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*.*") if path != tars[1]} == before
    assert repair(copy, built / "nowhere") == [], "a whole dataset needs no dump"


@pytest.mark.parametrize(
    "damage",
    [
        ["shards/part-000000.tar"],
        ["shards/part-000001.parquet"],
        ["shards/part-000001.tar", "shards/part-000001.parquet"],
        ["frames.parquet"],
        ["quarantine.parquet", "trajectories.parquet"],
        ["positives-*"],
        ["tracks-*", "sequences-*", "shards/part-000002.tar", "frames.parquet"],
        ["shards/*", "*.parquet"],
    ],
)
@pytest.mark.parametrize("how", ["flipped", "missing"])
def test_all_bytes_come_back(how: str, damage: list[str], copy: Path, built: Path, files_of: FilesOf) -> None:
    broken = sorted({path for pattern in damage for path in copy.glob(pattern)})
    for path in broken:
        flip(path) if how == "flipped" else path.unlink()
    assert repair(copy, built / "raw") == sorted(path.relative_to(copy).as_posix() for path in broken)
    assert files_of(copy) == files_of(built / "dataset")
    assert list(verify(copy)) == []


def test_any_flipped_bit_is_found_and_mended(copy: Path, built: Path, files_of: FilesOf) -> None:
    random = np.random.default_rng(7)
    whole = files_of(built / "dataset")
    paths = sorted(path for path in copy.rglob("*.*") if path.suffix in (".tar", ".parquet"))
    for path in random.choice(np.array(paths, dtype=object), 12):
        data = bytearray(path.read_bytes())
        data[random.integers(len(data))] ^= 1 << int(random.integers(8))
        path.write_bytes(bytes(data))
        (fault,) = verify(copy)
        assert fault.file == path.relative_to(copy).as_posix()
        repair(copy, built / "raw", faults=[fault])
        assert path.read_bytes() == whole[fault.file]


@pytest.mark.parametrize("change", ["pixels", "rows"])
def test_a_dump_that_has_changed_is_refused(
    change: str, copy: Path, built: Path, tmp_path: Path, files_of: FilesOf
) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(built / "raw", raw)
    tar = copy / "shards" / "part-000000.tar"
    if change == "pixels":
        flip(raw / "map-a-003.jpg", 0.6)
    else:
        lines = (raw / "positions.csv").read_text().splitlines()
        (raw / "positions.csv").write_text("\n".join(lines[:20] + lines[24:]))
    flip(tar)
    damaged = files_of(copy)
    with pytest.raises(ContractError, match="the dump has changed since the build"):
        repair(copy, raw)
    assert files_of(copy) == damaged
    assert not list(copy.glob("**/.*.tmp"))


def test_options_that_were_paths_are_given_again(built: Path, tmp_path: Path, files_of: FilesOf) -> None:
    raw, out = tmp_path / "raw", tmp_path / "dataset"
    shutil.copytree(built / "raw", raw)
    elsewhere = shutil.move(raw / "positions.csv", tmp_path / "where.csv")
    build(BuildRequest("folder", raw, out, options={"positions": str(elsewhere)}))
    whole = files_of(out)
    flip(out / "shards" / "part-000000.tar")
    with pytest.raises(InputError, match=r"where\.csv"):
        repair(out, raw)
    assert repair(out, raw, {"positions": str(elsewhere)}) == ["shards/part-000000.tar"]
    assert files_of(out) == whole
    shutil.move(elsewhere, raw / "where.csv")
    flip(out / "frames.parquet")
    assert repair(out, raw) == ["frames.parquet"], "found in the dump by its name"
    assert files_of(out) == whole


def test_killed_between_two_shards_it_goes_on(
    copy: Path, built: Path, files_of: FilesOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    tars = sorted((copy / "shards").glob("*.tar"))[:3]
    for tar in tars:
        flip(tar)
    original, calls = module.write_shard, 0

    def killed(*given: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return original(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            repair(copy, built / "raw")
    assert [fault.file for fault in verify(copy)] == [f"shards/{tars[2].name}"]
    assert seqdata.open(copy).sequences(length=5).height > 0
    (copy / ".repair.a1b2c3d4.tmp" / "left").mkdir(parents=True)
    assert repair(copy, built / "raw") == [f"shards/{tars[2].name}"]
    assert files_of(copy) == files_of(built / "dataset")


def test_what_the_manifest_does_not_list_is_left_alone(copy: Path, built: Path) -> None:
    (copy / "shards" / "part-000099.tar").write_bytes(b"left by somebody")
    assert repair(copy, built / "raw") == []
    assert (copy / "shards" / "part-000099.tar").is_file()


def test_a_dataset_of_schema_version_1_is_mended_too(tmp_path: Path, files_of: FilesOf) -> None:
    fixture = Path(__file__).parents[2] / "fixtures" / "dataset-v1"
    raw = write_drives(tmp_path / "raw", {"map": 12, "query": 9})
    shutil.copytree(fixture, tmp_path / "dataset")
    for name in ("shards/part-000000.tar", "shards/part-000000.parquet", "frames.parquet"):
        flip(tmp_path / "dataset" / name, 0.4)
    repaired = repair(tmp_path / "dataset", raw)
    assert repaired == ["frames.parquet", "shards/part-000000.parquet", "shards/part-000000.tar"]
    assert files_of(tmp_path / "dataset") == files_of(fixture)


def test_a_remote_dataset_is_refused(built: Path) -> None:
    from seqdata.storage.store import Store

    store = Store("memory://repair-remote")
    for path in (built / "dataset").rglob("*.*"):
        with store.writing(path.relative_to(built / "dataset").as_posix()) as temporary:
            shutil.copyfile(path, temporary)
    with pytest.raises((InputError, OutputError), match="local"):
        repair("memory://repair-remote", built / "raw")


def test_a_dataset_that_was_appended_to_is_mended_dump_by_dump(tmp_path: Path, files_of: FilesOf) -> None:
    from seqdata.dataset.versions import append

    first = write_drives(tmp_path / "first", {"map": 60, "query": 20})
    second = write_drives(tmp_path / "second", {"map2": 50, "query2": 12, "map": 60})
    out, settings = tmp_path / "dataset", BuildSettings(shard_bytes=1 << 16)
    build(BuildRequest("folder", first, out, settings=settings, protocol=protocols.load("own")))
    first_shards = sorted(path.name for path in (out / "shards").iterdir())
    append(BuildRequest("folder", second, out))
    whole = files_of(out)
    assert list(verify(out)) == []
    for path in (out / "shards").iterdir():
        flip(path)
    for path in out.rglob("*.parquet"):
        path.unlink()
    assert len(list(verify(out))) > 10
    mended = repair(out, first)
    tables = [name for name in whole if "/" not in name and name.endswith(".parquet")]
    assert mended == sorted([*(f"shards/{name}" for name in first_shards), *tables])
    left = {fault.file for fault in verify(out)}
    assert left
    assert not left & set(mended)
    assert set(repair(out, second)) == left
    assert files_of(out) == whole


def test_withdrawn_frames_stay_withdrawn(copy: Path, built: Path, files_of: FilesOf) -> None:
    from seqdata.dataset.versions import withdraw

    keys = seqdata.open(copy).frames.collect()["key"].to_list()
    withdraw(copy, keys[3:5], "a face")
    withdraw(copy, keys[70:71], "another face")
    whole = files_of(copy)
    spared = {"versions/000002/quarantine.parquet", "versions/000003/quarantine.parquet"}
    for name in whole:
        if name.endswith(".parquet") and name not in spared:
            flip(copy / name)
    flip(copy / "shards" / "part-000000.tar")
    repair(copy, built / "raw")
    assert files_of(copy) == whole
    (copy / "versions" / "000002" / "quarantine.parquet").unlink()
    assert repair(copy, built / "raw") == []
    assert [fault.file for fault in verify(copy)] == ["versions/000002/quarantine.parquet"]


def test_large_tables_of_the_first_releases_get_no_checksums_of_pages_again(
    tmp_path: Path, files_of: FilesOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "WHOLE_BYTES", 2000)
    raw = write_drives(tmp_path / "raw", {"map": 60, "query": 30})
    token = parquet.PAGE_CHECKSUMS.set(False)
    build(BuildRequest("folder", raw, tmp_path / "old"))
    parquet.PAGE_CHECKSUMS.reset(token)
    build(BuildRequest("folder", raw, tmp_path / "new"))
    assert files_of(tmp_path / "old") != files_of(tmp_path / "new")
    for name in ("old", "new"):
        whole = files_of(tmp_path / name)
        flip(tmp_path / name / "frames.parquet")
        assert repair(tmp_path / name, raw) == ["frames.parquet"]
        assert files_of(tmp_path / name) == whole
