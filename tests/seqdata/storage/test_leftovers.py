"""Half-written files: those of killed writers go, those of running ones stay."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from seqdata.errors import OutputError
from seqdata.storage import files
from seqdata.storage.files import GrowingFile, atomic_folder, atomic_path, write_bytes_atomic
from seqdata.storage.leftovers import sweep
from seqdata.storage.lock import claimed
from seqdata.storage.store import Store

WRITER = """
import sys
from seqdata.storage.files import {context}
with {context}(sys.argv[1]) as temporary:
    if temporary.is_dir():
        (temporary / "a").write_bytes(b"half")
    else:
        temporary.write_bytes(b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def writer(target: Path, context: str) -> "subprocess.Popen[str]":
    """A process that is in the middle of writing `target`."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER.format(context=context), str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("context", ["atomic_path", "atomic_folder"])
def test_what_a_killed_writer_left_goes_with_the_next_one(context: str, tmp_path: Path) -> None:
    process = writer(tmp_path / "table", context)
    assert len(names(tmp_path)) == 1
    write_bytes_atomic(tmp_path / "other", b"whole")
    assert len(names(tmp_path)) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(names(tmp_path)) == 2
    write_bytes_atomic(tmp_path / "table", b"whole")
    assert names(tmp_path) == ["other", "table"]


def test_what_a_running_writer_has_stays(tmp_path: Path) -> None:
    process = writer(tmp_path / "table", "atomic_path")
    write_bytes_atomic(tmp_path / "table", b"mine")
    sweep(tmp_path)
    assert len(names(tmp_path)) == 2
    process.communicate("")
    assert names(tmp_path) == ["table"]
    assert (tmp_path / "table").read_bytes() == b"half", "the last writer wins, whole"


def test_a_lock_on_a_dataset_sweeps_it(tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    for name in (".frames.parquet.x1_2y3z4.tmp", "versions/..tracks.parquet.aaaaaaaa.tmp.bbbbbbbb.tmp"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".repair.a1b2c3d4.tmp" / "made").mkdir(parents=True)
    others = {"mine.tmp", ".mine.tmp", ".frames.parquet.MINE.tmp", ".swap.file.tmp"}
    for name in others:
        (tmp_path / name).write_bytes(b"not the program's")
    with claimed(Store(tmp_path), "a test"):
        assert {path.name for path in tmp_path.glob("*tmp")} == others
        assert names(tmp_path / "versions") == []
    assert {path.name for path in tmp_path.glob("*tmp")} == others


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "pack") as folder:
        (folder / "a").write_bytes(b"1")
        raise RuntimeError
    assert names(tmp_path) == []
    with atomic_folder(tmp_path / "pack") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a").write_bytes(b"1")
    assert (tmp_path / "pack/inner/a").read_bytes() == b"1"
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "pack").stat().st_mode & 0o777 == 0o777 & ~mask
    with pytest.raises(OutputError, match="cannot be written"), atomic_folder(tmp_path / "pack") as folder:
        (folder / "b").write_bytes(b"2")
    assert names(tmp_path) == ["pack"]


def test_the_working_folder_can_be_the_one_that_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with atomic_folder(".") as folder:
        (folder / "a").write_bytes(b"1")
    assert (tmp_path / "empty/a").read_bytes() == b"1"
    assert names(tmp_path) == ["empty"]


def test_a_scratch_folder_is_swept_by_whoever_locks_the_dataset_next(tmp_path: Path) -> None:
    process = writer(tmp_path / "repair", "scratch_folder")
    with claimed(Store(tmp_path), "a test"):
        assert len(list(tmp_path.glob(".repair.*"))) == 1, "it is in use"
    process.send_signal(signal.SIGKILL)
    process.wait()
    with claimed(Store(tmp_path), "a test"):
        assert not list(tmp_path.glob(".repair.*"))


def test_one_of_many_files_is_neither_flushed_nor_swept_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(files, "flush", flushed.append)
    (tmp_path / ".table.a1b2c3d4.tmp").write_bytes(b"half")
    with atomic_path(tmp_path / "table", in_batch=True) as temporary:
        temporary.write_bytes(b"whole")
    assert names(tmp_path) == [".table.a1b2c3d4.tmp", "table"]
    assert flushed == []
    write_bytes_atomic(tmp_path / "table", b"whole")
    assert names(tmp_path) == ["table"]
    assert flushed[-1] == tmp_path


def test_a_growing_file_has_whole_additions_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk:
        """A file on a disk that takes three bytes of an addition and then refuses."""

        def __init__(self, file: BinaryIO) -> None:
            self.file, self.left = file, 0

        def write(self, data: memoryview) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, "No space left on device")
            taken = self.file.write(data[: self.left])
            self.left -= taken
            return taken

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    with GrowingFile(tmp_path / "log" / "rows.csv") as file:
        file.add(b"one\n")
        monkeypatch.setattr(file, "_file", FullDisk(file._file))
        file._file.left = 3
        with pytest.raises(OutputError, match=r"rows\.csv: no space left"):
            file.add(b"two\n")
        assert (tmp_path / "log/rows.csv").read_bytes() == b"one\n"
        file._file.left = 9
        file.add(b"two\n")
    assert (tmp_path / "log/rows.csv").read_bytes() == b"one\ntwo\n"
    with pytest.raises(OutputError, match="cannot be written"):
        GrowingFile(tmp_path / "log" / "rows.csv")


def test_nested_writers_of_one_target_leave_nothing(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "table") as outer:
        write_bytes_atomic(outer, b"whole")
    assert names(tmp_path) == ["table"]
