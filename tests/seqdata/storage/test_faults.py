"""Errors of a disk that may pass: what is read again, and what an archive's reader hides."""

import errno
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from seqdata.build.builder import BuildRequest, build
from seqdata.errors import InputError, OutputError
from seqdata.sources import files
from seqdata.sources.archive_index import index_archive
from seqdata.sources.archives import open_archive
from seqdata.storage import faults
from seqdata.storage.faults import passing_error, read_again
from seqdata.storage.hashing import xxh3_file, xxh3_hex
from seqdata.storage.store import Store
from tests.conftest import write_drives


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "WAITS_SECONDS", (0.0, 0.0, 0.0))


def failing(times: int, code: int, result: bytes = b"data") -> Callable[[], bytes]:
    """A read that fails so many times."""
    calls = iter(range(times + 10))

    def read() -> bytes:
        if next(calls) < times:
            raise OSError(code, "no")
        return result

    return read


@pytest.mark.parametrize("code", faults.PASSING)
def test_a_passing_error_is_read_again_four_times_at_most(code: int) -> None:
    assert read_again(failing(3, code)) == b"data"
    with pytest.raises(OSError, match="no") as raised:
        read_again(failing(4, code))
    assert raised.value.errno == code


def test_other_errors_are_raised_at_once() -> None:
    with pytest.raises(OSError, match="no"):
        read_again(failing(1, errno.EACCES))


def test_the_disk_error_behind_a_reader_s_own_is_named() -> None:
    def read() -> None:
        try:
            raise OSError(errno.EIO, "Input/output error")
        except OSError:
            raise zipfile.BadZipFile("File is not a zip file")  # noqa: B904 - as the standard library does

    with pytest.raises(OSError, match="Input/output error"):
        read_again(read)
    assert passing_error(ValueError("no number")) is None


class BadDisk(io.BytesIO):
    """A file whose reads fail."""

    def read(self, *_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_an_archive_on_a_bad_disk_need_not_be_downloaded_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.jpg", b"x")
    (tmp_path / "a.tar").write_bytes(bytes(1024))
    monkeypatch.setattr("io.open", lambda *_, **__: BadDisk())
    monkeypatch.setattr("zipfile.io.open", lambda *_, **__: BadDisk())
    with pytest.raises(InputError, match="run the same command again") as raised:
        index_archive(tmp_path / name)
    assert "download" not in str(raised.value)


def test_a_member_on_a_bad_disk_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("1.jpg", b"x")
    archive = open_archive(tmp_path / "a.zip")
    monkeypatch.setattr(Path, "open", lambda *_, **__: BadDisk())
    with pytest.raises(OSError, match="Input/output"):
        archive.read("1.jpg")


def test_a_file_larger_than_any_image_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_drives(tmp_path / "raw", {"map": 12})
    monkeypatch.setattr(files, "GREATEST_FILE", 500)
    with pytest.raises(files.BadImageError, match="bytes are more than 500"):
        files.read_image_file(tmp_path / "raw/map-000.jpg")


def test_folders_that_cannot_be_read_are_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("os.listdir", fail)
    with pytest.raises(OSError, match="Stale"):
        files.file_names(tmp_path)
    monkeypatch.setattr("os.scandir", fail)
    with pytest.raises(InputError, match="cannot be read"):
        list(files.walk(tmp_path))


def test_a_store_reads_again_and_says_whose_disk_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    for is_output, kind in ((False, InputError), (True, OutputError)):
        store = Store(tmp_path, is_output=is_output)
        monkeypatch.setattr(store, "_range", lambda *_: failing(1, errno.EIO)())
        with pytest.raises(kind, match="run the same command again"):
            store.read("a", 0, 3)
    store = Store(tmp_path)
    answers = failing(2, errno.ETIMEDOUT, b"abc")
    monkeypatch.setattr(store, "_range", lambda *_: answers())
    assert store.read("a", 0, 3) == b"abc"


def test_a_hash_is_of_the_whole_file_also_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    opened = Path.open
    disks = iter([BadDisk()])
    monkeypatch.setattr(Path, "open", lambda self, mode="r": next(disks, None) or opened(self, mode))
    assert xxh3_file(path) == xxh3_hex(b"abc")


def test_a_build_ends_and_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_drives(tmp_path / "raw", {"map": 12, "query": 8})
    whole = build(BuildRequest("folder", tmp_path / "raw", tmp_path / "whole"))
    read = files._read_whole

    def fail_once(path: Path) -> bytes:
        if path.name == "map-005.jpg":
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(files, "_read_whole", fail_once)
    with pytest.raises(InputError, match=r"map-005\.jpg: cannot be read \(Input/output error\); run the same command"):
        build(BuildRequest("folder", tmp_path / "raw", tmp_path / "out"))
    monkeypatch.setattr(files, "_read_whole", read)
    assert build(BuildRequest("folder", tmp_path / "raw", tmp_path / "out")).id == whole.id
