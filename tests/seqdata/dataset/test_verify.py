"""Verify finds one flipped bit and names the frame; storage writes whole files or none."""

import errno
import hashlib
import os
import shutil
import stat
from pathlib import Path

import polars as pl
import pytest

import seqdata
from seqdata.build.builder import BuildRequest, build
from seqdata.dataset.verify import verify
from seqdata.dataset.versions import withdraw
from seqdata.errors import ContractError, OutputError
from seqdata.storage.files import atomic_path, json_bytes, write_bytes_atomic
from seqdata.storage.hashing import sha256_json
from seqdata.storage.parquet import read_metadata, write_parquet_atomic
from tests.conftest import write_drives


@pytest.fixture
def copy(cut_dataset: seqdata.Dataset, tmp_path: Path) -> Path:
    shutil.copytree(cut_dataset.path, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_whole_dataset_has_no_faults(copy: Path) -> None:
    hashed: list[int] = []
    assert list(verify(copy, hashed.append)) == []
    assert sum(hashed) > 100_000


def test_one_flipped_bit_is_found_down_to_the_frame(copy: Path) -> None:
    frame = seqdata.open(copy).frames.collect().row(77, named=True)
    path = copy / "shards" / f"part-{frame['shard']:06d}.tar"
    data = bytearray(path.read_bytes())
    data[frame["offset"] + frame["length"] // 2] ^= 1
    path.write_bytes(bytes(data))
    (fault,) = verify(copy)
    assert (fault.file, fault.key, fault.source) == (f"shards/{path.name}", frame["key"], frame["source"])


@pytest.mark.parametrize("damage", ["header", "cut", "missing", "table", "seal", "stranger"])
def test_other_damage_is_found_too(damage: str, copy: Path) -> None:
    places = {"table": "frames.parquet", "seal": "shards/part-000001.parquet", "stranger": "shards/part-000099.tar"}
    path = copy / places.get(damage, "shards/part-000000.tar")
    if damage == "stranger":
        path.write_bytes(b"left by somebody")
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(bytes(data[:-600]))
    else:
        data[3 if damage == "header" else len(data) // 2] ^= 4
        path.write_bytes(bytes(data))
    faults = list(verify(copy))
    assert len(faults) == 1
    assert faults[0].file == path.relative_to(copy).as_posix()


def test_what_is_named_when_the_seal_or_the_frames_table_is_gone_too(copy: Path) -> None:
    frame = seqdata.open(copy).frames.collect().row(5, named=True)
    tar = copy / "shards" / f"part-{frame['shard']:06d}.tar"
    data = bytearray(tar.read_bytes())
    data[frame["offset"] + 9] ^= 128
    tar.write_bytes(bytes(data))
    tar.with_suffix(".parquet").unlink()
    assert [(fault.file, fault.key) for fault in verify(copy)] == [
        (f"shards/{tar.name}", frame["key"]),
        (f"shards/{tar.stem}.parquet", ""),
    ]
    (copy / "frames.parquet").write_bytes(b"")
    assert {(fault.file, fault.key) for fault in verify(copy)} == {
        ("frames.parquet", ""),
        (f"shards/{tar.name}", ""),
        (f"shards/{tar.stem}.parquet", ""),
    }


def test_frames_that_are_cut_off_are_named(copy: Path) -> None:
    frames = seqdata.open(copy).frames.filter(pl.col("shard") == 1).collect()
    tar = copy / "shards" / "part-000001.tar"
    tar.write_bytes(tar.read_bytes()[: frames["offset"][-2]])
    faults = list(verify(copy))
    assert [fault.key for fault in faults] == frames["key"][-2:].to_list()
    assert {fault.fault for fault in faults} == {"the frame is cut off"}


def test_damage_beside_the_images_is_said_to_be_there(copy: Path) -> None:
    tar = copy / "shards" / "part-000000.tar"
    data = bytearray(tar.read_bytes())
    data[0] ^= 1
    tar.write_bytes(bytes(data))
    (fault,) = verify(copy)
    assert (fault.file, fault.key) == ("shards/part-000000.tar", "")
    assert "outside its frames' images" in fault.fault


def test_several_threads_find_the_same_in_the_same_order(copy: Path) -> None:
    for number in (0, 1, 2):
        path = copy / "shards" / f"part-{number:06d}.tar"
        data = bytearray(path.read_bytes())
        for at in range(3000, len(data), 9000):
            data[at] ^= 1
        path.write_bytes(bytes(data))
    alone, hashed = list(verify(copy)), []
    assert len(alone) > 6
    assert list(verify(copy, hashed.append, workers=4)) == alone
    assert sum(hashed) > 100_000


def test_a_remote_dataset_is_verified_by_ranges(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seqdata.dataset import verify as module
    from seqdata.storage.store import Store

    monkeypatch.setattr(module, "BLOCK", 10_000)
    store = Store("memory://verified")
    for path in copy.rglob("*.*"):
        with store.writing(path.relative_to(copy).as_posix()) as temporary:
            shutil.copyfile(path, temporary)
    assert list(verify("memory://verified")) == []
    frame = seqdata.open(copy).frames.collect().row(120, named=True)
    name = f"shards/part-{frame['shard']:06d}.tar"
    data = bytearray((copy / name).read_bytes())
    data[frame["offset"] + 100] ^= 2
    with store.writing(name) as temporary:
        temporary.write_bytes(bytes(data))
    assert [(fault.file, fault.key) for fault in verify("memory://verified")] == [(name, frame["key"])]


def test_an_error_leaves_neither_file_nor_leftover(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.bin"
    with pytest.raises(ValueError, match="half"), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise ValueError("half")
    assert list(path.parent.iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError), atomic_path(tmp_path / "file" / "x"):
        pass


def test_parquet_bytes_depend_on_content_alone(tmp_path: Path) -> None:
    table = pl.DataFrame({"a": [1, 2], "b": [0.5, None], "c": ["x", "y"]}).with_columns(pl.col("a").cast(pl.Int32))
    for name in ("one", "two"):
        write_parquet_atomic(table, tmp_path / name, {"k": "v"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert read_metadata(tmp_path / "one") == {"k": "v"}
    assert pl.read_parquet(tmp_path / "one").equals(table)


def test_json_and_its_hash_do_not_depend_on_order() -> None:
    assert json_bytes({"b": 1, "a": [2]}) == b'{\n  "a": [\n    2\n  ],\n  "b": 1\n}\n'
    assert sha256_json({"b": 1, "a": 2}) == sha256_json({"a": 2, "b": 1})


def test_a_manifest_that_has_changed_is_named_and_older_datasets_have_no_checksum(
    cut_dataset: seqdata.Dataset, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(cut_dataset.path, copy)
    whole = (copy / "manifest.json").read_bytes()
    assert (copy / "manifest.sha256").read_text() == f"{hashlib.sha256(whole).hexdigest()}  manifest.json\n"
    # JSON of the same meaning is another file: every byte counts.
    for damaged in (whole.replace(b'"quality": 95', b'"quality": 94'), whole + b"\n"):
        assert damaged != whole
        (copy / "manifest.json").write_bytes(damaged)
        with pytest.raises(ContractError, match=r"manifest\.json: its bytes have changed"):
            seqdata.open(copy)
    (copy / "manifest.json").write_bytes(whole)
    (copy / "manifest.sha256").unlink()
    assert seqdata.open(copy).id == cut_dataset.id


def test_a_new_version_s_checksum_is_there_before_its_manifest(tmp_path: Path) -> None:
    """A kill between the two files of an append leaves the version before, which opens as it did."""
    raw = write_drives(tmp_path / "raw", {"map": 12, "query": 8})
    build(BuildRequest("folder", raw, tmp_path / "dataset"))
    place = tmp_path / "dataset"
    before = (place / "manifest.json").read_bytes()
    withdraw(place, [seqdata.open(place).frame_key(3)], "a face")
    after = (place / "manifest.json").read_bytes()
    assert seqdata.open(place).manifest.version == 2
    (place / "manifest.json").write_bytes(before)
    assert seqdata.open(place).manifest.version == 1
    lines = (place / "manifest.sha256").read_text().splitlines()
    assert lines == [
        f"{hashlib.sha256(after).hexdigest()}  manifest.json",
        f"{hashlib.sha256(before).hexdigest()}  versions/000001.json",
    ]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_file_systems_that_flush_no_folders_are_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    original = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        original(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_bytes_atomic(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"

    def refuse(handle: int) -> None:
        raise OSError(errno.EINVAL if stat.S_ISREG(os.fstat(handle).st_mode) else errno.EIO, "no")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match="cannot be written"):
        write_bytes_atomic(tmp_path / "other", b"half")
    assert not (tmp_path / "other").exists()
