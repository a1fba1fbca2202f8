"""Datasets of every schema version so far: they open for ever, under their ids, with their windows, truth and pixels.

dataset-v1: schema version 1, two drives. dataset-v2: schema version 2, in three versions: two drives and an empty file,
a drive appended, a frame withdrawn. dataset-v3: schema version 3, the same, changed in segments, and then
compacted.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import seqdata
from seqdata.dataset.repair import repair
from seqdata.dataset.verify import verify
from seqdata.dataset.versions import withdrawn
from tests.conftest import write_drives

FIXTURES = Path(__file__).parents[2] / "fixtures"
KNOWN = [
    ("dataset-v1", 1, "23e361cc1f1c518081a3268455f1607f686279c6eb62f1bf3fe0889bf97516ec", 21, 13, 40, []),
    ("dataset-v2", 1, "0433c09701e94b43f9cd7c27116d42e361eaa73f2ebdcaa8ea69f12ce967718f", 13, 5, 6, []),
    ("dataset-v2", 2, "e20b5e3548fb3d912617dbb3d4a5b7dbcf262ac7c68c6023564745a9c852567f", 19, 7, 12, []),
    ("dataset-v2", 3, "e9abe33ac88d956b66c19348efc00a78a44699607717515a9e52b8931847a19d", 18, 5, 4, ["map-001"]),
    ("dataset-v3", 1, "8682dee3661f8b762386fdc02418a1dda29616788ae03a258b35de954ef3beb1", 13, 5, 6, []),
    ("dataset-v3", 2, "4c3c9d5c20bb2a7b7f55fafb206d05bf58721cbfa549956c21411fee694d93b6", 19, 7, 12, []),
    ("dataset-v3", 3, "2e835e39e57f363ef0588cca5af9cd02a187695260b023569685b31248bb3f37", 18, 5, 4, ["map-001"]),
    ("dataset-v3", 4, "47bbb02310a2d8fee8f4a3bf8d64b0069ba7816e11a57dcb40fa1f43467a9199", 18, 5, 4, ["map-001"]),
]


@pytest.mark.parametrize(("name", "version", "identifier", "frames", "windows", "pairs", "gone"), KNOWN)
def test_old_datasets_open(
    name: str, version: int, identifier: str, frames: int, windows: int, pairs: int, gone: list[str]
) -> None:
    opened = seqdata.open(FIXTURES / name, version=version)
    assert opened.id == identifier
    assert opened.frames.collect().height == opened.manifest.counts.frames == frames
    table = opened.sequences("own", "test")
    assert table.height == windows
    assert opened.protocol_positives("own", "test").height == pairs
    pixels = opened.read(table, range(table.height))
    assert pixels.shape == (windows, 5, 3, 24, 32)
    assert pixels.std() > 40, "noise, not grey"
    assert withdrawn(opened) == gone
    assert opened.manifest.source.attribution == "the user's own drives"


@pytest.mark.parametrize("name", ["dataset-v1", "dataset-v2", "dataset-v3"])
def test_old_datasets_are_whole(name: str) -> None:
    assert list(verify(FIXTURES / name)) == []


@pytest.mark.parametrize("name", ["dataset-v2", "dataset-v3"])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_tables_of_old_versions_are_repaired(
    name: str, version: int, tmp_path: Path, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    raw = write_drives(tmp_path / "raw", {"map": 8, "query": 6, **({} if version == 1 else {"query-b": 6})})
    (raw / "map-007.jpg").write_bytes(b"")
    shutil.copytree(FIXTURES / name, tmp_path / "out")
    opened = seqdata.open(tmp_path / "out", version=version)
    folder = f"versions/{version:06d}/" if version > 1 else ""
    damaged = [f"{folder}{table}.parquet" for table in ("frames", "trajectories")]
    damaged = [path for path in damaged if path in opened.manifest.files()]
    for path in damaged:
        (tmp_path / "out" / path).write_bytes(b"")
    assert repair(tmp_path / "out", raw) == damaged
    assert files_of(tmp_path / "out") == files_of(FIXTURES / name)
