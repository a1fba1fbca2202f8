"""Verify finds one flipped bit and names the frame; storage writes whole files or none."""

import shutil
from pathlib import Path

import polars as pl
import pytest

import seqdata
from seqdata.errors import OutputError
from seqdata.storage import atomic_path, json_bytes, read_metadata, sha256_json, write_parquet_atomic
from seqdata.verify import verify


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
