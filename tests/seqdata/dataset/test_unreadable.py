"""Files of a dataset that the disk does not give: they are named, and the others are looked at all the same."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import seqdata
from seqdata.build.builder import BuildRequest, build
from seqdata.dataset.info import describe
from seqdata.dataset.repair import repair
from seqdata.dataset.verify import verify
from seqdata.storage import faults
from tests.conftest import write_drives


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(faults, "WAITS_SECONDS", ())
    write_drives(tmp_path / "raw", {"map": 12, "query": 8})
    build(BuildRequest("folder", tmp_path / "raw", tmp_path / "out"))
    damaged = bytearray((tmp_path / "out/trajectories.parquet").read_bytes())
    damaged[100] ^= 1
    (tmp_path / "out/trajectories.parquet").write_bytes(damaged)
    return tmp_path / "out"


def refuse(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the file of one name give EIO."""
    opened: Callable[..., Any] = Path.open

    def bad_open(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name == name:
            raise OSError(errno.EIO, "Input/output error", str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", bad_open)


@pytest.mark.parametrize("name", ["frames.parquet", "shards/part-000000.tar", "shards/part-000000.parquet"])
def test_verify_names_what_it_cannot_read_and_what_is_damaged(
    name: str, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, Path(name).name)
    lines = {(fault.file, fault.fault) for fault in verify(dataset)}
    assert lines == {
        (name, "cannot be read (Input/output error)"),
        ("trajectories.parquet", "its bytes have changed"),
    }


def test_info_names_what_it_cannot_read_and_describes_the_rest(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "frames.parquet")
    described = describe(seqdata.open(dataset))
    assert described["frames"] == 20
    assert described["groups"] is None
    assert [line.split(": ")[0] for line in described["faults"]] == [
        f"{dataset}/frames.parquet",
        f"{dataset}/trajectories.parquet",
    ]


def test_repair_makes_a_file_again_that_cannot_be_read(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "part-000000.tar")
    bad = list(verify(dataset))
    monkeypatch.undo()
    (dataset / "shards/part-000000.tar").write_bytes(b"what a rescued disk left")
    assert repair(dataset, dataset.parent / "raw", {}, bad) == ["shards/part-000000.tar", "trajectories.parquet"]
    assert list(verify(dataset)) == []
